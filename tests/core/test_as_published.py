"""Inference as published: the reference tensors end to end; the project's shorter way agrees."""

import pytest
import reference
import torch
from as_published import segment_as_published
from lite import tiny_lite
from torch import Tensor

from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED

T = reference.tensors()
PIXELS = (T["e2e_image"] * 0.5 + 0.5) * 255
CELLS = 36


def assert_same_at_scale(found: Tensor, expected: Tensor) -> None:
    """Compare relative to the scale: samples of random weights are near 1e5."""
    scale = expected.abs().max()
    assert scale > 1e4
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-6, rtol=0)


def test_the_reference_is_reproduced_with_all_of_its_noise() -> None:
    result = segment_as_published(
        reference.model(), PIXELS, T["e2e_init"], lambda k: T["e2e_noise"][k], steps=10
    )
    assert_same_at_scale(result.latents, T["e2e_mask_latents"])
    torch.testing.assert_close(result.picture, T["e2e_rgb"], atol=1e-3, rtol=0)
    expected = torch.where(T["e2e_class_ids"] == 0, UNLABELLED, T["e2e_class_ids"] - 1)
    assert torch.equal(result.train_ids[0].long(), expected)


def test_denoising_the_mask_alone_gives_the_same_mask() -> None:
    """With the mask's half of each frame's start and noise, latents and ids are the same."""
    model, batch, steps = reference.model(), 2, 5
    pixels = torch.cat([PIXELS, PIXELS.flip(3)])
    generator = torch.Generator().manual_seed(0)
    start, *noise = (
        torch.randn(batch * 2 * CELLS, 16, generator=generator) for _ in range(steps + 1)
    )
    published = segment_as_published(model, pixels, start, lambda k: noise[k], steps)

    def of_mask(all_tokens: Tensor) -> Tensor:
        return all_tokens.unflatten(0, (batch, 2 * CELLS))[:, CELLS:].flatten(0, 1)

    with torch.no_grad():
        features = model.image_features(pixels)
        condition = model.conditions(features)
        sampled = model.sample(
            condition,
            "ancestral",
            SamplerOptions(steps),
            of_mask(start),
            lambda k: of_mask(noise[k]),
        )
        latents = model.to_latents(sampled, model.denoised_grid(features))
        assert_same_at_scale(latents, published.latents)
        assert torch.equal(model.decode_mask(published.latents), published.train_ids)
        assert (model.decode_mask(latents) == published.train_ids).float().mean() > 0.999


def test_it_stays_fp32_inside_an_autocast() -> None:
    plain = segment_as_published(
        reference.model(), PIXELS, T["e2e_init"], lambda k: T["e2e_noise"][k], steps=2
    )
    with torch.autocast("cpu", torch.bfloat16):
        inside = segment_as_published(
            reference.model(), PIXELS, T["e2e_init"], lambda k: T["e2e_noise"][k], steps=2
        )
    assert torch.equal(inside.latents, plain.latents)
    assert inside.picture.dtype == torch.float32


def test_another_layout_is_refused() -> None:
    with pytest.raises(ConfigError, match="tiny-lite must have the published layout"):
        segment_as_published(
            tiny_lite(), torch.zeros(1, 3, 64, 64), torch.zeros(1, 1), lambda k: torch.zeros(1, 1)
        )
