"""Which part of the camera's picture a mask shows, and at which scale."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.runtime.resizing import scaled_picture


@dataclass(frozen=True)
class View:
    """From the camera's pixels to the mask's: `left` and `top` are cut off, in the camera's pixels, then each axis is scaled.

    Whole coordinates are the centres of pixels, 0 being the first, as in ROS' CameraInfo. So a camera matrix holds for the mask with its
    focal lengths times the scales, and its principal point put through `to_mask`. The default is the camera's own picture.
    """

    left: int = 0
    top: int = 0
    scale_x: float = 1.0
    scale_y: float = 1.0

    def to_mask(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the camera's picture lies in the mask; outside it, if that part is cut off."""
        return (x + 0.5 - self.left) * self.scale_x - 0.5, (y + 0.5 - self.top) * self.scale_y - 0.5

    def to_camera(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the mask lies in the camera's picture."""
        return (x + 0.5) / self.scale_x - 0.5 + self.left, (y + 0.5) / self.scale_y - 0.5 + self.top

    def picture(self, rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """What the mask, of this (height, width), shows of the camera's RGB `(H, W, 3)`, at its size: to draw the mask over."""
        below, right = self.top + round(size[0] / self.scale_y), self.left + round(size[1] / self.scale_x)
        return np.asarray(scaled_picture(rgb[self.top : below, self.left : right], size), np.uint8)
