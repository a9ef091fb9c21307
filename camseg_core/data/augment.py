"""Training-time augmentation, by kornia, of image and label together."""

import kornia.augmentation as K
import torch
from torch import Tensor


class Augment:
    """Random scale, crop, flip and colour for a batch.

    Geometry moves image and label alike (label by nearest neighbour; pixels from outside become `ignore`). Draws from
    torch's global generator, as kornia does: fork and seed it around the call.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], ignore: int, color: bool) -> None:
        self._ignore = ignore
        self._geometry = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomResizedCrop(size, scale=scale, ratio=(1.1, 1.6)),
            data_keys=["input", "mask"],
        )
        self._color = (
            K.ImageSequential(
                K.ColorJiggle(0.4, 0.4, 0.4, 0.08, p=0.8),
                K.RandomGrayscale(p=0.05),
                K.RandomGaussianBlur((3, 3), (0.1, 1.5), p=0.15),
                K.RandomGaussianNoise(std=0.03, p=0.15),
            )
            if color
            else None
        )

    @torch.no_grad()
    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`image` (B, 3, H, W) in 0..1 and `label` (B, H, W) integer to the same at the crop's size."""
        # kornia fills what it moves in from outside with zeros, which is a class: shift ids by one so that zero means ignore
        shifted = torch.where(label == self._ignore, 0, label.long() + 1).unsqueeze(1).float()
        image, shifted = self._geometry(image, shifted)
        moved = shifted.squeeze(1).round().long() - 1
        if self._color is not None:
            image = self._color(image)
        return image.clamp(0, 1), torch.where(moved < 0, self._ignore, moved)
