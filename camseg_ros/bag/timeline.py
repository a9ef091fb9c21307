"""Figures of any number of frames in the memory of a few hundred: what a report draws over time."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

BINS = 500
"""A timeline has at most so many bins: about the pixels that a plot has for them."""

FIGURES = ("miou", "pixel_accuracy", "confidence", "changed", "latency_ms")

Key = tuple[str, str]
"""A figure's name, and the class it is of; the second is empty for a figure of the whole frame."""


@dataclass(slots=True)
class Spread:
    """How many values there were, their sum, and the least and greatest."""

    count: int
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return self.total / self.count

    def add(self, other: "Spread") -> None:
        """Take in the values of another."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass(slots=True)
class Bin:
    """Successive frames: their indices, the stamp of the first, and what their figures spread over."""

    first: int
    last: int
    stamp_ns: int
    spreads: dict[Key, Spread] = field(default_factory=dict)

    @property
    def middle(self) -> float:
        """Where the bin lies among the frames."""
        return (self.first + self.last) / 2

    def add(self, other: "Bin") -> None:
        """Take in the bin that follows."""
        self.last = other.last
        for key, spread in other.spreads.items():
            if key in self.spreads:
                self.spreads[key].add(spread)
            else:
                self.spreads[key] = spread


class Timeline:
    """Bins of equally many successive frames. When they become too many, neighbours are merged and the bins twice as long.

    So the number of frames need not be known, and no frame's place depends on stamps, which recordings often have wrong.
    """

    def __init__(self, classes: Iterable[str] = (), most: int = BINS) -> None:
        """`classes` are those whose figures are kept; `most` bins there may be, an even number."""
        self.bins: list[Bin] = []
        self.frames = 0
        self.frames_in_bin = 1
        self._classes = frozenset(classes)
        self._most = most
        self._totals: dict[Key, Spread] = {}

    def add(self, frame: Mapping[str, Any]) -> None:
        """Count the next frame."""
        index = int(frame["index"])
        spreads = {key: Spread(1, value, value, value) for key, value in self._figures(frame)}
        for key, spread in spreads.items():
            self._totals.setdefault(key, Spread(0, 0.0, math.inf, -math.inf)).add(spread)
        one = Bin(index, index, int(frame["stamp_ns"]), spreads)
        if self.frames % self.frames_in_bin:
            self.bins[-1].add(one)
        else:
            if len(self.bins) == self._most:
                self._halve()
            self.bins.append(one)
        self.frames += 1

    def total(self, name: str, of_class: str = "") -> Spread | None:
        """What a figure spreads over in all frames; None where no frame has it."""
        return self._totals.get((name, of_class))

    def series(self, name: str, of_class: str = "") -> list[Spread | None]:
        """What a figure spreads over, bin by bin."""
        return [each.spreads.get((name, of_class)) for each in self.bins]

    def _figures(self, frame: Mapping[str, Any]) -> Iterator[tuple[Key, float]]:
        for name in FIGURES:
            value = frame.get(name)
            if value is not None and math.isfinite(value):
                yield (name, ""), float(value)
        for of_class, value in (frame.get("iou") or {}).items():
            if of_class in self._classes and value is not None and math.isfinite(value):
                yield ("iou", of_class), float(value)
        if frame.get("share") is not None:
            for of_class in self._classes:
                share = float(
                    frame["share"].get(of_class) or 0
                )  # a class that is not listed has no pixel
                yield ("share", of_class), share
                yield ("present", of_class), float(share > 0)

    def _halve(self) -> None:
        pairs = zip(self.bins[::2], self.bins[1::2], strict=True)
        merged = []
        for first, second in pairs:
            first.add(second)
            merged.append(first)
        self.bins = merged
        self.frames_in_bin *= 2
