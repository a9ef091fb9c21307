"""Pictures of a mask for people: the classes in their colours, alone or over the camera image."""

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_core.labels import UNLABELLED, color_table

Pixels = npt.NDArray[np.uint8]

_CITYSCAPES = color_table()


def colorize(mask: Pixels, colors: Pixels = _CITYSCAPES) -> Pixels:
    """The mask `(H, W)` in the colours of its classes, RGB `(H, W, 3)`; unlabelled pixels are black.

    `colors` is RGB by id, `(256, 3)`, as of `color_table` and `ClassTable.colors`; Cityscapes' by default.
    """
    return np.asarray(cv2.LUT(cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), colors[None]), np.uint8)


def overlay(rgb: Pixels, mask: Pixels, opacity: float, colors: Pixels = _CITYSCAPES) -> Pixels:
    """The colours of `mask` `(H, W)` blended over `rgb` `(H, W, 3)`; unlabelled pixels stay the camera's.

    Args:
        rgb: the camera's picture; it is not changed. For a mask at the network's size, `View.picture` gives it.
        mask: class ids, 255 where there is no class.
        opacity: of the colours, from 0 (the camera's picture) to 1 (the colours alone).
        colors: as `colorize` takes them.

    Raises:
        ImageError: the sizes differ.
    """
    if rgb.shape[:2] != mask.shape:
        sizes = f"the mask is {mask.shape[1]}x{mask.shape[0]} and the image {rgb.shape[1]}x{rgb.shape[0]}"
        raise ImageError(f"{sizes}; give the mask of this image, at its own size")
    blended = cv2.addWeighted(colorize(mask, colors), opacity, rgb, 1.0 - opacity, 0.0)
    return np.asarray(cv2.copyTo(rgb, (mask == UNLABELLED).view(np.uint8), blended), np.uint8)
