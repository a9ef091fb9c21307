"""Removes strong noise from a frame, before the network sees it; other frames stay as they are.

A small network that averages over noise loses what a filter keeps: under salt and pepper on half of
the pixels, the values in between are all there. What is in a frame is measured on a few thousand
of its pixels, so that a frame without such noise costs a fraction of a millisecond.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

DARK, BRIGHT = 2, 253
"""Values up to the one and from the other may be impulses."""

CONTRAST = 24
"""Grey values by which an impulse stands out from all four neighbours where noise is measured."""

LEAST_IMPULSES, MOST_DEVIATION = 0.004, 12.0
"""Impulses are removed from this share on, unless other noise has made the extreme values.

On the 5,550 frames of CamVid, cityscapes-small and IDD-Lite they are at most 0.0023 and 8.
"""

WINDOWS = (3, 5, 9)
"""Sides of the windows whose intact values replace an impulse: the first that has any."""

SURFACE = 0.25
"""By how much of the largest window white values must outnumber black ones to be a white surface,
and the other way round; salt and pepper are equally frequent."""

LEAST_GRAIN = 20.0
"""Standard deviation of Gaussian noise, in grey values, from which a frame is smoothed."""

SMOOTHING = 2.0
"""Range of the bilateral filter, in standard deviations of the noise."""

ROWS, COLUMNS = 32, 160
"""Most pixels that are measured each way."""


@dataclass(frozen=True)
class Noise:
    """What is measured of a frame's noise.

    Attributes:
        impulses: share of the pixels that are nearly black or white and stand out from all four
            neighbours.
        deviation: standard deviation of the noise of the others, in grey values.
    """

    impulses: float = 0.0
    deviation: float = 0.0


def measured(rgb: Pixels) -> Noise:
    """Measure the noise of RGB `(H, W, 3)` uint8 on a grid of pixels, in green.

    The deviation is from the median absolute value (Donoho & Johnstone, Biometrika 1994) of the
    second differences along rows, so that edges and texture hardly count.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < 3:
        return Noise()
    rows, columns = _spread(height, ROWS), _spread(width, COLUMNS)
    green = rgb[..., 1]
    lines = green[rows]
    middle, left, right, above, below = (
        line.take(places, 1).astype(np.int16)
        for line, places in (
            (lines, columns),
            (lines, columns - 1),
            (lines, columns + 1),
            (green[rows - 1], columns),
            (green[rows + 1], columns),
        )
    )
    highest = np.maximum(np.maximum(left, right), np.maximum(above, below))
    lowest = np.minimum(np.minimum(left, right), np.minimum(above, below))
    salt = (middle >= BRIGHT) & (middle - highest >= CONTRAST)
    pepper = (middle <= DARK) & (lowest - middle >= CONTRAST)
    intact = [(each > DARK) & (each < BRIGHT) for each in (middle, left, right)]
    changes = np.abs(2 * middle - left - right)[intact[0] & intact[1] & intact[2]]
    # the median of a normal variable's absolute value is 0.6745 of its deviation, here of √6 values
    deviation = float(np.median(changes)) / (0.6745 * 6**0.5) if changes.size else 0.0
    return Noise(float((salt | pepper).mean()), deviation)


def without_impulses(rgb: Pixels) -> Pixels:
    """Replace salt and pepper of RGB `(H, W, 3)` uint8, on whole pixels or on single channels.

    Each impulse becomes the mean of the intact values around it (as the switching filters of Chan,
    Ho & Nikolova, IEEE TIP 2005, with a mean); all other values stay. Returns `rgb` itself if it
    has no such noise.
    """
    noise = measured(rgb)
    if noise.impulses < LEAST_IMPULSES or noise.deviation > MOST_DEVIATION:
        return rgb
    dark, bright = rgb <= DARK, rgb >= BRIGHT
    surplus = _sums(bright, WINDOWS[-1]).astype(np.int16) - _sums(dark, WINDOWS[-1])
    surface = SURFACE * WINDOWS[-1] ** 2
    left = (bright & (surplus <= surface)) | (dark & (surplus >= -surface))
    intact = ~left
    values, result = rgb * intact, rgb.copy()
    for side in WINDOWS:
        count = _sums(intact, side)
        mean = cv2.divide(_sums(values, side), count, dtype=cv2.CV_8U)
        np.copyto(result, mean, where=left & (count > 0))
        left &= count == 0
        if not left.any():
            break
    return result


def without_grain(rgb: Pixels) -> Pixels:
    """Smooth strong Gaussian noise of RGB `(H, W, 3)` uint8, and keep edges.

    With a bilateral filter (Tomasi & Manduchi, ICCV 1998). Returns `rgb` itself if it has no such
    noise.
    """
    deviation = measured(rgb).deviation
    if deviation < LEAST_GRAIN:
        return rgb
    smoothed = cv2.bilateralFilter(rgb, 7, SMOOTHING * deviation, 2.0)
    return np.asarray(smoothed, np.uint8)


def _sums(values: npt.NDArray[np.uint8 | np.bool_], side: int) -> npt.NDArray[np.uint16]:
    """Return the sums over a square window around each value, as uint16."""
    sums = cv2.boxFilter(values.view(np.uint8), cv2.CV_16U, (side, side), normalize=False)
    return np.asarray(sums, np.uint16)


@functools.cache
def _spread(length: int, most: int) -> npt.NDArray[np.intp]:
    """Return at most `most` numbers of the inner pixels of a row or column, evenly spread."""
    return np.linspace(1, length - 2, min(most, length - 2)).astype(np.intp)
