"""The light decoder of the published layout: its cost, its classes, its training and command."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from camvid_folder import write_camvid
from lite import LABELS, tiny_lite, torch_segmenter
from published import LIGHT, TINY
from resuming import assert_resumes
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.cli.main import main
from camseg_core.config.model import (
    LightDecoderConfig,
    load_config,
    save_config,
)
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, ModelError
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.model.kl_autoencoder import nearest_class
from camseg_core.training.frames import Frames
from camseg_core.training.kl_autoencoder import (
    PictureAutoencoderTraining,
    train_picture_autoencoder,
)
from camseg_core.training.light_decoder import (
    DecoderComparison,
    LightDecoderTraining,
    train_light_decoder,
    with_light_decoder,
)
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Callback, Run
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import CAM_SEG_BASE_768


def published(light: LightDecoderConfig | None = None) -> CamSeg:
    torch.manual_seed(0)
    return CamSeg(replace(TINY, light_decoder=light)).eval()


# what it costs


def multiply_accumulates(exact: bool, pixels: int) -> int:
    """Count those of decoding one mask at the published size, on the meta device."""
    with torch.device("meta"):
        model = CamSeg(replace(CAM_SEG_BASE_768, light_decoder=LightDecoderConfig())).eval()
        latents = torch.zeros(1, 16, pixels // 16, pixels // 16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        assert model.decode_mask(latents, exact).shape == (1, pixels, pixels)
    return counter.get_total_flops() // 2


def test_the_light_decoder_takes_a_fraction_of_the_exact_ones_arithmetic() -> None:
    assert multiply_accumulates(exact=True, pixels=768) > 1.1e12
    assert multiply_accumulates(exact=False, pixels=768) < 0.1e12


class _Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_the_nearest_colour_is_found_without_a_distance_to_every_colour_at_once() -> None:
    height, width = 96, 128
    pictures = torch.rand(1, 3, height, width)
    with _Largest() as largest:
        nearest_class(pictures)
    assert largest.numbers == 3 * height * width


# what it may say


def test_the_light_decoder_decodes_masks_unless_the_exact_one_is_requested() -> None:
    plain, light = published(), published(LIGHT)
    latents = torch.randn(2, 4, 12, 16)
    with torch.no_grad():
        assert torch.equal(light.decode_mask(latents, exact=True), plain.decode_mask(latents))
        expected = light.light_decoder(latents).argmax(1)
        assert torch.equal(
            light.decode_mask(latents).long(),
            torch.where(expected == len(CITYSCAPES), UNLABELLED, expected),
        )
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    masks = [torch_segmenter(model, 48, 64).segment(frame).mask for model in (plain, light)]
    assert not np.array_equal(*masks)


def test_its_last_class_is_unlabelled_and_the_others_are_the_labels() -> None:
    labels = tuple(CITYSCAPES[i] for i in (10, 0, 13))
    model = CamSeg(replace(TINY, light_decoder=LIGHT), labels).eval()
    output = model.light_decoder.layers[-1]
    with torch.no_grad():
        output.weight.zero_()
        for index, train_id in enumerate((10, 0, 13, UNLABELLED)):
            output.bias.zero_()
            output.bias[4 * index : 4 * index + 4] = (
                1.0  # four pixels of a class stand side by side
            )
            assert model.decode_mask(torch.zeros(1, 4, 2, 2)).unique().tolist() == [train_id]


def test_a_checkpoint_with_it_and_one_without_it_load(tmp_path: Path) -> None:
    model = published(LIGHT)
    model.save_pretrained(tmp_path)
    again = CamSeg.from_pretrained(tmp_path)
    assert again.config == model.config
    latents = torch.randn(1, 4, 12, 16)
    with torch.no_grad():
        assert torch.equal(again.decode_mask(latents), model.decode_mask(latents))
    save_config(TINY, tmp_path / "config.json")
    text = (tmp_path / "config.json").read_text().replace(',\n "light_decoder": null', "")
    assert "light_decoder" not in text
    (tmp_path / "config.json").write_text(text)
    assert load_config(tmp_path / "config.json") == TINY


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ModelError,
        match="widths and blocks must list the same strides, at least two, got 2 and 3",
    ):
        LightDecoderConfig((8, 8), (0, 1, 1))
    with pytest.raises(
        ModelError,
        match="light_decoder lists strides up to 16, but the autoencoder's latents have stride 4",
    ):
        replace(TINY, light_decoder=LightDecoderConfig())
    with pytest.raises(ModelError, match="a mask_autoencoder's own decoder is light"):
        replace(tiny_lite().config, light_decoder=LIGHT)


def test_a_training_of_the_whole_model_refuses_one() -> None:
    with pytest.raises(
        ConfigError,
        match="tiny-published has a light_decoder, which is trained afterwards: "
        ".* add it with distill-decoder",
    ):
        TransformerTraining(crop=(64, 64)).check(published(LIGHT).config)


# that it learns


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(SyntheticDrive(frames=4, height=48, width=64, seed=1), LABELS)


def training(steps: int, **changes: Any) -> LightDecoderTraining:
    loop = LoopConfig(
        steps=steps,
        lr=5e-3,
        warmup=2,
        ema_decay=0.8,
        weight_decay=1e-4,
        save_every=2,
        validate_every=1000,
    )
    return LightDecoderTraining(
        LIGHT, loop, **{"batch": 4, "crop": (32, 48), "disturbance": 0.3, **changes}
    )


def with_fresh_decoder(model: CamSeg) -> CamSeg:
    torch.manual_seed(0)
    return with_light_decoder(model, LIGHT)


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_step_end(self, done: int, figures: dict[str, float], learning_rate: float) -> None:
        self.all.append(figures["loss"])


def test_the_loss_falls_and_everything_but_the_light_decoder_stays(
    tmp_path: Path, frames: Frames
) -> None:
    """Latents of a random encoder still say what the mask was."""
    torch.manual_seed(0)
    base, losses = CamSeg(TINY, LABELS).eval(), Losses()
    before = copy.deepcopy(base.state_dict())
    trained = train_light_decoder(
        training(40, teacher="labels"), with_fresh_decoder(base), frames, Run(tmp_path, (losses,))
    )
    assert sum(losses.all[-5:]) < 0.8 * sum(losses.all[:5])
    after = trained.state_dict()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    scores = DecoderComparison(trained, frames).scores(trained.light_decoder).light
    assert (
        scores.accuracy() > 0.1 + scores.labelled.max() / scores.labelled.sum()
    )  # more than naming one class throughout


def test_a_killed_training_resumes_exactly(tmp_path: Path, frames: Frames) -> None:
    torch.manual_seed(0)
    base = CamSeg(TINY, LABELS).eval()

    def train(run: Run) -> torch.nn.Module:
        return train_light_decoder(training(7), with_fresh_decoder(base), frames, run)

    assert_resumes(train, tmp_path)


@pytest.mark.slow
def test_it_learns_the_masks_of_the_exact_decoder(tmp_path: Path, frames: Frames) -> None:
    torch.manual_seed(0)
    base = CamSeg(TINY, LABELS).eval()
    loop = LoopConfig(steps=150, lr=4e-3, warmup=5, ema_decay=0.8, weight_decay=0.0)
    pictures = PictureAutoencoderTraining(TINY.autoencoder, loop, batch=4, crop=(32, 48))
    base.autoencoder = train_picture_autoencoder(
        pictures, frames, LABELS, Run(tmp_path / "autoencoder")
    )
    model = with_fresh_decoder(base)
    comparison = DecoderComparison(model, frames)
    fresh = comparison.scores(model.light_decoder)
    trained = train_light_decoder(
        training(120), model, frames, Run(tmp_path / "decoder"), comparison.validation
    )
    found = comparison.scores(trained.light_decoder)
    commonest = (
        found.exact.predicted.max() / found.exact.predicted.sum()
    )  # what naming one class throughout would agree on
    assert found.agreement > max(0.8, fresh.agreement + 0.2, commonest + 0.2)
    assert found.light.mean_iou() > 0.5 * found.exact.mean_iou()


def test_a_model_with_a_mask_autoencoder_needs_none() -> None:
    with pytest.raises(
        ConfigError, match="tiny-lite needs no light decoder: the decoder of its mask"
    ):
        with_light_decoder(tiny_lite(), LIGHT)


def test_settings_out_of_range_are_named() -> None:
    for change, message in (
        ({"crop": (60, 64)}, r"both sides of crop must be multiples of 16, got \[60, 64\]"),
        ({"batch": 0}, "batch must be >= 1, got 0"),
        (
            {"crop_area": (0.5, 0.2)},
            r"crop_area must be two rising shares in \(0, 1\], got \[0.5, 0.2\]",
        ),
        ({"disturbance": -1.0}, "disturbance must be >= 0, got -1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            LightDecoderTraining(**change)


# the command

CONFIG = Path(__file__).parents[2] / "config" / "train" / "light-decoder.yaml"
SMALL = [
    "model={widths: [8, 8], blocks: [0, 1]}",
    "loop.steps=3",
    "loop.save_every=2",
    "batch=2",
    "crop=[32, 32]",
]


def command(root: Path, model: Path, *changes: str) -> list[str]:
    folders = [
        "--model",
        model,
        "--config",
        CONFIG,
        "--data",
        root / "data",
        "--run",
        root / "run",
        "--out",
        root / "out",
    ]
    return [
        "distill-decoder",
        *map(str, folders),
        *(f"--set=decoder.{change}" for change in (*SMALL, *changes)),
    ]


def test_the_command_adds_a_light_decoder_to_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "data", "train", "val", size=(40, 60))
    for path in (tmp_path / "data/train/labels").iterdir():  # CamVid's road, sky and vehicles
        label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), np.choose(label % 3, [0, 3, 8]).astype(np.uint8))
    torch.manual_seed(0)
    CamSeg(TINY).save_pretrained(tmp_path / "model", torch.float16)
    main(command(tmp_path, tmp_path / "model"))
    said = capsys.readouterr().err
    assert "no frame of train shows sidewalk, building, wall," in said
    assert "vegetation, terrain, person, rider, motorcycle, bicycle: the light decoder" in said
    before, after = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out")
    )
    added = set(after) - set(before)
    assert added
    assert all(name.startswith("light_decoder.") for name in added)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name], tensor), name
    assert (tmp_path / "out" / "labels.json").read_text() == (
        tmp_path / "model" / "labels.json"
    ).read_text()
    result = json.loads((tmp_path / "out" / "val.json").read_text())
    assert 0 <= result["agreement"] <= 1
    assert f"{100 * result['agreement']:.2f} % of the pixels"[:4] in said
    for decoder in ("light", "exact"):
        assert 0 <= result[decoder]["mean_iou"] <= 1
    stored = CamSeg.from_pretrained(tmp_path / "out")
    black = np.zeros((32, 32, 3), np.uint8)
    assert torch_segmenter(stored, 32, 32).segment(black).mask.shape == (32, 32)

    main(command(tmp_path, tmp_path / "model"))  # nothing is left to do
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in after.items())


def test_an_error_of_the_command_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "data", "train", "val")
    tiny_lite().save_pretrained(tmp_path / "lite")
    torch.manual_seed(0)
    CamSeg(TINY).save_pretrained(tmp_path / "model")
    for model, changes, message in (
        ("lite", (), "tiny-lite needs no light decoder"),
        (
            "model",
            ("model.widths=[8, 8, 8]", "model.blocks=[0, 0, 0]"),
            "--set decoder.model.widths",
        ),
        (
            "model",
            ("model={widths: [8, 8, 8], blocks: [0, 0, 0]}",),
            "light_decoder lists strides up to 8, but .* stride 4",
        ),
        ("absent", (), "cannot read the model's configuration .*absent"),
        ("out", (), "--out must not be the folder of the model to start from"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(command(tmp_path, tmp_path / model, *changes))
        assert caught.value.code == 2
        assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run" / "config.yaml").exists()
