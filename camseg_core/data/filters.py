"""Small filters that the disturbances share; pictures are float32 `(H, W, 3)`, in 0..255 or 0..1."""

import math

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)


def to_pixels(picture: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Values in 0..255 rounded, and cut where they are outside."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def grey_of(rgb: npt.NDArray[np.uint8] | Floats) -> Floats:
    """Luma of ITU-R BT.601 `(H, W)`, in the unit of the picture."""
    return np.asarray(cv2.transform(rgb.astype(np.float32, copy=False), _GREY), np.float32)


def blurred(picture: Floats, sigma: float, sigma_y: float | None = None) -> Floats:
    """Gaussian blur of so many pixels (`sigma_y` along columns, if it differs), cut at four sigma, mirrored at the border."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigmaX=sigma, sigmaY=sigma if sigma_y is None else sigma_y), np.float32)


def line_kernel(weights: Floats, angle: float, start: float | None = None) -> Floats:
    """A kernel of points a pixel apart on a straight line, each spread over the four pixels around it; its sum is 1.

    Args:
        weights: of the points.
        angle: of the line, in radians; 0 is along a row.
        start: where on the line the first point is, in pixels from the kernel's centre; None: so that the line is centred.
    """
    count = len(weights)
    along = np.arange(count) + (-(count - 1) / 2 if start is None else start)
    half = math.ceil(float(np.abs(along).max()))
    x, y = half + along * math.cos(angle), half + along * math.sin(angle)
    left, top = np.floor(x + 1e-9).astype(int), np.floor(y + 1e-9).astype(int)
    kernel = np.zeros((2 * half + 2, 2 * half + 2))
    for right, share_x in ((0, 1 - (x - left)), (1, x - left)):
        for down, share_y in ((0, 1 - (y - top)), (1, y - top)):
            np.add.at(kernel, (top + down, left + right), weights * share_x * share_y)
    kernel = kernel[:-1, :-1]  # only what is off by the rounding of a sine lies in the last row and column
    return (kernel / kernel.sum()).astype(np.float32)
