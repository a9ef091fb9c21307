"""Pictures of a mask for people: the classes in their colours, alone or over the camera image."""

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_core.labels import UNLABELLED, color_table

_COLORS = color_table()[None]  # (1, 256, 3), as cv2.LUT wants it


def colorize(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mask `(H, W)` in the colours of its classes, RGB `(H, W, 3)`; unlabelled pixels are black."""
    return np.asarray(cv2.LUT(cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), _COLORS), np.uint8)


def overlay(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], opacity: float) -> npt.NDArray[np.uint8]:
    """The colours of `mask` `(H, W)` blended over `rgb` `(H, W, 3)`; unlabelled pixels stay the camera's.

    Args:
        rgb: the camera's picture; it is not changed.
        mask: train ids, 255 where there is no class.
        opacity: of the colours, from 0 (the camera's picture) to 1 (the colours alone).

    Raises:
        ImageError: the sizes differ.
    """
    if rgb.shape[:2] != mask.shape:
        sizes = f"the mask is {mask.shape[1]}x{mask.shape[0]} and the image {rgb.shape[1]}x{rgb.shape[0]}"
        raise ImageError(f"{sizes}; give the mask of this image, at its own size")
    blended = cv2.addWeighted(colorize(mask), opacity, rgb, 1.0 - opacity, 0.0)
    return np.asarray(cv2.copyTo(rgb, (mask == UNLABELLED).view(np.uint8), blended), np.uint8)
