"""Masks as colour pictures, as published: train ids to colours, and back by the nearest colour."""

import torch
from torch import Tensor

from camseg_core.labels import CITYSCAPES, PUBLISHED_PALETTE, UNLABELLED


def _palette(device: torch.device) -> Tensor:
    return torch.tensor(PUBLISHED_PALETTE, dtype=torch.float32, device=device) / 255


def draw(train_ids: Tensor) -> Tensor:
    """Draw train ids `(B, H, W)` as pictures `(B, 3, H, W)` in −1..1; unknown ids as 255."""
    ids = train_ids.long()
    index = torch.where(ids < len(CITYSCAPES), ids + 1, 0)
    return (_palette(train_ids.device)[index].permute(0, 3, 1, 2) - 0.5) / 0.5


def nearest_class(pictures: Tensor) -> Tensor:
    """Return the train ids `(B, H, W)` uint8 of the palette colours nearest (L2) to pictures.

    Pictures are `(B, 3, H, W)` in −1..1. One colour at a time, so that memory stays at a few
    planes.
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
    return torch.where(index == 0, UNLABELLED, index - 1).to(torch.uint8)
