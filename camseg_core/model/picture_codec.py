"""Masks as colour pictures, as published: train ids to a picture that the photograph autoencoder reads, and back by nearest colour."""

import torch
from torch import Tensor

from camseg_core.labels import CITYSCAPES, PUBLISHED_PALETTE, UNLABELLED


def _palette(device: torch.device) -> Tensor:
    return torch.tensor(PUBLISHED_PALETTE, dtype=torch.float32, device=device) / 255


def draw(train_ids: Tensor) -> Tensor:
    """Train ids `(B, H, W)` to pictures `(B, 3, H, W)` in −1..1; 255 and any id without a class are drawn as unlabelled."""
    ids = train_ids.long()
    index = torch.where(ids < len(CITYSCAPES), ids + 1, 0)
    return (_palette(train_ids.device)[index].permute(0, 3, 1, 2) - 0.5) / 0.5


def nearest_class(pictures: Tensor) -> Tensor:
    """Pictures `(B, 3, H, W)` in −1..1 to train ids `(B, H, W)` uint8 by the nearest palette colour (L2)."""
    index, _ = _nearest_color(pictures)
    return torch.where(index == 0, UNLABELLED, index - 1).to(torch.uint8)


def distance_to_palette(pictures: Tensor) -> Tensor:
    """Squared distance `(B, H, W)` of each pixel to the nearest palette colour, RGB in 0..1."""
    return _nearest_color(pictures)[1]


def _nearest_color(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the nearest palette colour and squared distance to it, each `(B, H, W)`.

    One colour at a time, so that memory stays at a few planes of the picture's size.
    """
    rgb = pictures.float() * 0.5 + 0.5
    palette = torch.round(_palette(pictures.device), decimals=4)
    best = torch.full_like(rgb[:, 0], torch.inf)
    index = torch.zeros_like(best, dtype=torch.uint8)
    for i, color in enumerate(palette):
        distance = (rgb - color.view(1, 3, 1, 1)).square().sum(1)
        nearer = distance < best
        best = torch.where(nearer, distance, best)
        index = torch.where(nearer, i, index)
    return index, best
