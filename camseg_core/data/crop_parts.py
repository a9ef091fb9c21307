"""Size and start of the part of a frame that a random view shows."""

import math
from collections.abc import Callable

import numpy as np

from camseg_core.data.disturbances import Pixels
from camseg_core.data.random_changes import Range

Part = Callable[[tuple[int, int], np.random.Generator], tuple[float, float]]
"""Draws which part of a frame `(height, width)` is seen, as shares of its height and width."""

Target = tuple[float | None, float | None]
"""A point that a part must contain, as shares of the frame's height and width; None for any."""


def by_area(area: Range, aspect: Range) -> Part:
    """Return parts with a share of the frame's area, `aspect` times as wide as high.

    The aspect is drawn log-uniformly. If ten draws do not fit into the frame, the part is
    as large as the nearest aspect allows (the rule of torchvision's RandomResizedCrop).
    """

    def part(frame: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
        for _ in range(10):
            pixels = rng.uniform(*area) * frame[0] * frame[1]
            ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
            height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < height <= frame[0] and 0 < width <= frame[1]:
                return height / frame[0], width / frame[1]
        ratio = min(max(frame[1] / frame[0], aspect[0]), aspect[1])
        return min(1, frame[1] / ratio / frame[0]), min(1, frame[0] * ratio / frame[1])

    return part


def of_any_size(area: Range, aspect: Range) -> Part:
    """Return parts whose share of the frame's area and aspect are both drawn log-uniformly.

    They may be higher or wider than the frame.
    """

    def part(frame: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
        share, ratio = (math.exp(rng.uniform(*np.log(ends))) for ends in (area, aspect))
        height = math.sqrt(share * frame[0] * frame[1] / ratio)
        return height / frame[0], height * ratio / frame[1]

    return part


def pixel_of_class(label: Pixels, shown: int, rng: np.random.Generator) -> Target:
    """Return a random pixel of class `shown` in a label `(H, W)`, or any point if it has none."""
    places = np.flatnonzero(label == shown)
    if len(places) == 0:
        return None, None
    row, column = divmod(int(rng.choice(places)), label.shape[1])
    return (row + 0.5) / label.shape[0], (column + 0.5) / label.shape[1]


def start_of(side: int, length: int, target: float | None, rng: np.random.Generator) -> int:
    """Draw where a part of `side` pixels starts in a frame of `length`, so that it has `target`.

    A part longer than the frame contains the frame anywhere; its start is then negative.
    """
    first, last = min(0, length - side), max(0, length - side)
    if target is not None:
        pixel = int(target * length)
        first, last = max(first, pixel - side + 1), min(last, pixel)
    return int(rng.integers(first, last + 1))
