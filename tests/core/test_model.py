"""The model beyond the reference: any size, passes, the picture codec, checkpoint folders."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import reference
import torch
from lite import tiny_lite, torch_segmenter

from camseg_core.config.model import load_config, save_config
from camseg_core.diffusion.passes import ORDERS
from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ModelError
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.model.kl_autoencoder import draw, nearest_class
from camseg_core.training.completion import fill_unlabelled

Ids = npt.NDArray[np.uint8]


def frames(height: int, width: int, count: int = 2) -> list[Ids]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def masks(model: CamSeg, images: list[Ids], sampling: Sampling) -> Ids:
    segmenter = torch_segmenter(model, *images[0].shape[:2], sampling)
    return np.stack([result.mask for result in segmenter.segment_batch(images)])


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 160), (32, 224)])
def test_the_published_layout_segments_any_multiple_of_its_stride(height: int, width: int) -> None:
    ids = masks(reference.model(), frames(height, width), Sampling("ddim", 3))
    assert ids.shape == (2, height, width)
    assert ids.dtype == np.uint8
    assert set(np.unique(ids)) <= {*range(19), UNLABELLED}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (128, 32), (384, 480)])
def test_the_lite_layout_segments_any_multiple_of_32(height: int, width: int) -> None:
    model = tiny_lite()
    ids = masks(model, frames(height, width), Sampling())
    assert ids.shape == (2, height, width)
    assert set(np.unique(ids)) <= {label.id for label in model.labels}


def test_the_same_seed_gives_the_same_mask() -> None:
    images = frames(96, 96, count=1)
    found = [
        masks(reference.model(), images, Sampling("ancestral", 4, seed=seed)) for seed in (5, 5, 6)
    ]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("which", ["published", "lite"])
def test_a_mask_is_revealed_in_several_passes(which: str, order: str) -> None:
    model = reference.model() if which == "published" else tiny_lite()
    images = frames(64, 96)

    def revealed(passes: int, seed: int) -> Ids:
        return masks(model, images, Sampling("ddim", 3, 0.7, passes=passes, order=order, seed=seed))

    assert np.array_equal(revealed(1, 0), masks(model, images, Sampling("ddim", 3, 0.7)))
    several = revealed(3, 0)
    assert several.shape == (2, 64, 96)
    assert np.array_equal(several, revealed(3, 0))
    assert not np.array_equal(several, revealed(3, 1))
    assert not np.array_equal(several, revealed(1, 0))


def test_learned_positions_are_interpolated_and_exact_at_their_own_size() -> None:
    transformer = reference.model().transformer
    stored = transformer.encoder_pos_embed_learned
    assert torch.equal(transformer.positions(stored, (6, 6)), stored)
    wide = transformer.positions(stored, (3, 12))
    assert wide.shape == (1, 2 * 36, 64)
    constant = torch.ones_like(stored)
    assert torch.allclose(transformer.positions(constant, (5, 9)), torch.ones(1, 90, 64))


def test_known_mask_tokens_change_the_conditions_of_the_hidden_ones() -> None:
    for model, channels, grid in ((reference.model(), 16, (6, 6)), (tiny_lite(), 32, (2, 4))):
        cells = grid[0] * grid[1]
        image = torch.randn(1, cells, channels)
        mask = torch.randn(1, cells, model.config.token_channels)
        hidden = torch.arange(cells).unsqueeze(0) >= cells // 2
        given = model.transformer(image, grid, mask, hidden)
        other = model.transformer(image, grid, mask + 1, hidden)
        ignored = model.transformer(
            image, grid, torch.where(hidden.unsqueeze(2), mask + 1, mask), hidden
        )
        assert not torch.allclose(given[hidden], other[hidden])
        assert torch.allclose(given, ignored, atol=1e-6)


def test_masks_drawn_as_pictures_come_back_exactly() -> None:
    ids = torch.from_numpy(
        np.random.default_rng(0).choice([*range(19), UNLABELLED], (2, 24, 40)).astype(np.uint8)
    )
    assert torch.equal(nearest_class(draw(ids)), ids)
    noisy = draw(ids) + 0.05 * torch.randn(2, 3, 24, 40).clamp(-2, 2)
    assert (nearest_class(noisy) == ids).float().mean() > 0.95


def test_unlabelled_pixels_take_the_nearest_class() -> None:
    indices = torch.full((2, 6, 8), UNLABELLED, dtype=torch.uint8)
    indices[0, :, :2], indices[0, :, 6:] = 3, 7
    filled = fill_unlabelled(indices)
    assert (filled[0, :, :4] == 3).all()
    assert (filled[0, :, 5:] == 7).all()
    assert (filled[1] == 0).all()
    assert (indices[0, :, 3] == UNLABELLED).all()  # the input is left alone


def test_a_checkpoint_folder_rebuilds_the_model(tmp_path: Path) -> None:
    for model in (reference.model(), tiny_lite()):
        model.save_pretrained(tmp_path / model.config.name)
        again = CamSeg.from_pretrained(tmp_path / model.config.name)
        assert again.config == model.config
        assert again.labels == model.labels
        assert all(
            torch.equal(a, b)
            for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
        )
        assert not any(path.suffix in {".pt", ".pth", ".pkl"} for path in tmp_path.rglob("*"))


def test_weights_stored_in_halves_keep_their_vectors_exact(tmp_path: Path) -> None:
    model = tiny_lite()
    model.save_pretrained(tmp_path, torch.float16)
    stored = CamSeg.from_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        expected = (
            tensor.half().float() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        )
        assert torch.equal(stored[name], expected), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("transformer"), "lacks one of .*transformer"),
        (lambda c: c.update(banana=1), "unknown entries banana"),
        (
            lambda c: c["transformer"].update(width="wide"),
            "transformer.width must be of type int, got 'wide'",
        ),
        (lambda c: c["transformer"].update(fusion="soup"), "sequence, grid"),
        (lambda c: c["denoiser"].update(prediction_type="x"), "epsilon, sample"),
        (lambda c: c.update(transformer=[]), "transformer must be entries with values"),
        (
            lambda c: c.update(mask_autoencoder=None),
            "either an autoencoder, or an image_encoder and a mask_autoencoder",
        ),
    ],
)
def test_a_wrong_configuration_says_which_entry(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "config.json"
    save_config(tiny_lite().config, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        load_config(path)


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    tiny_lite().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot read the weights .*model\.safetensors"):
        CamSeg.from_pretrained(tmp_path)
    reference.model().save_pretrained(tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="do not fit"):
        CamSeg.from_pretrained(tmp_path)


def test_classes_and_labels_must_agree() -> None:
    with pytest.raises(ModelError, match="decodes 11 classes, but its labels list 19"):
        CamSeg(tiny_lite().config, CITYSCAPES)
