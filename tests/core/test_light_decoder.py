"""The light decoder of the published layout: what it costs, what it may say, that it learns the exact decoder's masks and resumes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lite import tiny_lite
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.errors import ConfigError, ModelError
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.model.config import (
    AutoencoderConfig,
    CamSegConfig,
    DenoiserConfig,
    LightDecoderConfig,
    TransformerConfig,
    load_config,
    save_config,
)
from camseg_core.model.picture_codec import nearest_class
from camseg_core.model.sizes import CAM_SEG_BASE_768
from camseg_core.training.transformer import TransformerTraining

TINY = CamSegConfig(
    name="tiny-published",
    network_pixels=48 * 64,
    transformer=TransformerConfig(width=32, encoder_depth=1, decoder_depth=1, heads=2, grid=(4, 4), dropout=0.0),
    denoiser=DenoiserConfig(width=32, depth=1),
    autoencoder=AutoencoderConfig(base_width=32, multipliers=(1, 1, 1), blocks_per_level=1, latent_channels=4),
)
LIGHT = LightDecoderConfig((16, 32), (0, 1))


def published(light: LightDecoderConfig | None = None) -> CamSeg:
    torch.manual_seed(0)
    return CamSeg(replace(TINY, light_decoder=light)).eval()


# what it costs


def multiply_accumulates(exact: bool, pixels: int) -> int:
    """Of decoding one mask at the published size, counted on the meta device: nothing is computed."""
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


def test_masks_are_decoded_by_the_light_decoder_unless_the_exact_one_is_asked_for() -> None:
    plain, light = published(), published(LIGHT)
    latents = torch.randn(2, 4, 12, 16)
    pixels = torch.randint(0, 256, (1, 3, 48, 64))
    with torch.no_grad():
        assert torch.equal(light.decode_mask(latents, exact=True), plain.decode_mask(latents))
        expected = light.light_decoder(latents).argmax(1)
        assert torch.equal(light.decode_mask(latents).long(), torch.where(expected == len(CITYSCAPES), UNLABELLED, expected))
    assert not torch.equal(light.segment(pixels), light.segment(pixels, exact=True))
    assert torch.equal(light.segment(pixels, exact=True), plain.segment(pixels))


def test_its_last_class_is_unlabelled_and_the_others_are_the_labels() -> None:
    labels = tuple(CITYSCAPES[i] for i in (10, 0, 13))
    model = CamSeg(replace(TINY, light_decoder=LIGHT), labels).eval()
    output = model.light_decoder.layers[-1]
    with torch.no_grad():
        output.weight.zero_()
        for index, train_id in enumerate((10, 0, 13, UNLABELLED)):
            output.bias.zero_()
            output.bias[4 * index : 4 * index + 4] = 1.0  # four pixels of a class stand side by side
            assert model.decode_mask(torch.zeros(1, 4, 2, 2)).unique().tolist() == [train_id]


def test_a_checkpoint_keeps_it_and_one_from_before_still_loads(tmp_path: Path) -> None:
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
    with pytest.raises(ModelError, match="widths and blocks list 2 and 3 strides; both list the same ones, at least two"):
        LightDecoderConfig((8, 8), (0, 1, 1))
    with pytest.raises(ModelError, match="light_decoder lists strides up to 16, but the autoencoder's latents have stride 4"):
        replace(TINY, light_decoder=LightDecoderConfig())
    with pytest.raises(ModelError, match="a mask_autoencoder's own decoder is light"):
        replace(tiny_lite().config, light_decoder=LIGHT)


def test_a_training_of_the_whole_model_refuses_one() -> None:
    with pytest.raises(ConfigError, match="tiny-published has a light_decoder, which this does not train: .* add it with distill-decoder"):
        TransformerTraining(crop=(64, 64)).check(published(LIGHT).config)
