"""Inference as published (arXiv 2503.15617), step for step: the baseline for time and masks.

It does more work than `Segmenter`: the diffusion head also denoises the image's tokens, which are
then discarded; the step is embedded once for each token; and 100 ancestral steps end in a picture
whose colours are looked up. Everything is fp32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from camseg_core.diffusion.samplers import Noise, SamplerOptions, ancestral
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.kl_autoencoder import nearest_class

STEPS = 100
"""Respaced ancestral steps in the published inference."""


@dataclass(frozen=True)
class PublishedMask:
    """The mask and the intermediate results."""

    latents: Tensor
    """The mask's latents `(B, C, h, w)`."""
    picture: Tensor
    """The mask decoded as a colour picture, `(B, 3, H, W)` in about −1..1."""
    train_ids: Tensor
    """`(B, H, W)` uint8; 255 where "unlabelled" has the nearest colour."""


@torch.no_grad()
def segment_as_published(
    model: CamSeg, pixels: Tensor, start: Tensor, noise: Noise, steps: int = STEPS
) -> PublishedMask:
    """Segment RGB pixels `(B, 3, H, W)` in 0..255 in one pass, with ancestral steps.

    The temperature is 1. With L tokens for each image, `start` and each `noise(k)` are `(B·2L, C)`:
    for every image of the batch its tokens, then those of the mask.

    Raises:
        ConfigError: the model does not have the published layout.
    """
    config = model.config
    if model.autoencoder is None or config.transformer.fusion != "sequence":
        raise ConfigError(
            f"{config.name} must have the published layout: "
            "an autoencoder of pictures, and fusion 'sequence'"
        )
    with torch.autocast(pixels.device.type, enabled=False):
        (image,) = model.image_features(pixels)
        tokens, grid = image.flatten(2).transpose(1, 2), (image.shape[2], image.shape[3])
        conditions = model.transformer.sequence_conditions(tokens, grid)
        flat = conditions.flatten(0, 1)  # (B·2L, D)

        def denoise(x: Tensor, step: int) -> Tensor:
            return model.denoiser(x, torch.full((len(x),), step, device=x.device), flat)

        options = SamplerOptions(steps, temperature=1.0)
        clean: Tensor = ancestral(denoise, start, model.schedule, options, noise)
        of_mask = clean.unflatten(0, conditions.shape[:2])[:, tokens.shape[1] :]
        latents = model.to_latents(of_mask, grid)
        picture = model.autoencoder.decode(latents)
        return PublishedMask(latents, picture, nearest_class(picture))


def seeded_noise(numbers: int, channels: int) -> Callable[[int], Tensor]:
    """A function that draws `(numbers, channels)` for each step, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return lambda _: torch.randn(numbers, channels, generator=generator)


def seeded_pixels(size: int) -> Tensor:
    """A random frame `(1, 3, size, size)` uint8, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, size, size), generator=generator, dtype=torch.uint8)


def frame_as_published(model: CamSeg, size: int, steps: int) -> Callable[[], PublishedMask]:
    """A function that segments the random frame as published, in `steps` steps."""
    pixels, cells = seeded_pixels(size), (size // model.config.token_stride) ** 2

    def segment() -> PublishedMask:
        noise = seeded_noise(2 * cells, model.config.denoised_channels)
        return segment_as_published(model, pixels, noise(-1), noise, steps)

    return segment
