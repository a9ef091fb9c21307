"""Draw a mask: the classes in their colours, alone or over the camera image."""

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_core.labels import UNLABELLED, color_table

Pixels = npt.NDArray[np.uint8]

_CITYSCAPES = color_table()


def colorize(mask: Pixels, colors: Pixels = _CITYSCAPES) -> Pixels:
    """Colour the mask `(H, W)` by class, RGB `(H, W, 3)`; unlabelled pixels are black.

    `colors` is RGB by id, `(256, 3)`, such as `color_table()`; Cityscapes' by default.
    """
    return np.asarray(cv2.LUT(cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), colors[None]), np.uint8)


def overlay(rgb: Pixels, mask: Pixels, opacity: float, colors: Pixels = _CITYSCAPES) -> Pixels:
    """Blend the colours of `mask` `(H, W)` over `rgb` `(H, W, 3)`, except where unlabelled.

    Args:
        rgb: the camera's picture, left unchanged; see `View.picture` for masks at network size.
        mask: class ids, 255 where unlabelled.
        opacity: from 0 (the camera's picture) to 1 (the colours alone).
        colors: see `colorize`.

    Raises:
        ImageError: the sizes differ.
    """
    if rgb.shape[:2] != mask.shape:
        raise ImageError(
            f"mask and image must have the same size, got {mask.shape[1]}x{mask.shape[0]} "
            f"and {rgb.shape[1]}x{rgb.shape[0]}"
        )
    blended = cv2.addWeighted(colorize(mask, colors), opacity, rgb, 1.0 - opacity, 0.0)
    return np.asarray(cv2.copyTo(rgb, (mask == UNLABELLED).view(np.uint8), blended), np.uint8)
