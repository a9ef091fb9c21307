"""Figures over any number of frames in constant memory, and their charts."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from camseg_core.evaluation.report.charts import Box, Chart, Shape, Tick, elapsed, tick_step, ticks

MAX_BINS = 500
"""Bins of a timeline: about one per two pixels of a chart."""

FIGURES = ("miou", "pixel_accuracy", "confidence", "changed", "latency_ms")

CUT_ABOVE = 4
"""A chart is cut if its largest value is more than this many times the usual one."""

OVER_FRAMES = Box(1120, 190, left=64, right=16, top=12, bottom=42)
ROW = Box(640, 26, top=3, bottom=4)
SPARK = Box(150, 24, left=2, right=2, top=2, bottom=2)

Key = tuple[str, str]
"""A figure's name and its class; the class is empty for a figure of the whole frame."""


@dataclass(slots=True)
class Spread:
    """The number of values, their sum, least and greatest."""

    count: int
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return self.total / self.count

    def add(self, other: "Spread") -> None:
        """Add the values of another."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass(slots=True)
class Bin:
    """Successive frames: their indices, the stamp of the first, and the spread of each figure."""

    first: int
    last: int
    stamp_ns: int
    spreads: dict[Key, Spread] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The frames, in words."""
        one = self.first == self.last
        return f"frame {self.first}" if one else f"frames {self.first} to {self.last}"

    def add(self, other: "Bin") -> None:
        """Add the bin that follows."""
        self.last = other.last
        for key, spread in other.spreads.items():
            if key in self.spreads:
                self.spreads[key].add(spread)
            else:
                self.spreads[key] = spread


class Timeline:
    """Bins of equally many successive frames.

    When there are too many, neighbours are merged, so the number of frames need not be known. Bins
    do not depend on stamps, which recordings often have wrong.

    Args:
        classes: the classes whose figures are kept.
        max_bins: an even number.
    """

    def __init__(self, classes: Iterable[str] = (), max_bins: int = MAX_BINS) -> None:
        self.bins: list[Bin] = []
        self.frames = 0
        self.frames_in_bin = 1
        self._classes = frozenset(classes)
        self._max_bins = max_bins
        self._totals: dict[Key, Spread] = {}

    def add(self, frame: Mapping[str, Any]) -> None:
        """Add the next frame, an entry of `frames.jsonl`."""
        index = int(frame["index"])
        spreads = {key: Spread(1, value, value, value) for key, value in self._figures(frame)}
        for key, spread in spreads.items():
            self._totals.setdefault(key, Spread(0, 0.0, math.inf, -math.inf)).add(spread)
        one = Bin(index, index, int(frame["stamp_ns"]), spreads)
        if self.frames % self.frames_in_bin:
            self.bins[-1].add(one)
        else:
            if len(self.bins) == self._max_bins:
                self._halve()
            self.bins.append(one)
        self.frames += 1

    def total(self, name: str, of_class: str = "") -> Spread | None:
        """Return the spread of a figure over all frames; None if no frame has it."""
        return self._totals.get((name, of_class))

    def series(self, name: str, of_class: str = "") -> list[Spread | None]:
        """Return the spread of a figure, bin by bin."""
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
            for of_class in self._classes:  # classes that are not listed have no pixel
                share = float(frame["share"].get(of_class) or 0)
                yield ("share", of_class), share
                yield ("present", of_class), float(share > 0)

    def _halve(self) -> None:
        for first, second in zip(self.bins[::2], self.bins[1::2], strict=True):
            first.add(second)
        self.bins = self.bins[::2]
        self.frames_in_bin *= 2


class FrameAxis:
    """The axis of frames, the same in all charts of a page, with the time since the first frame."""

    def __init__(self, bins: Sequence[Bin], box: Box) -> None:
        self.bins, self.box = bins, box
        self.first, self.last = (bins[0].first, bins[-1].last) if bins else (0, 0)

    def x(self, index: float) -> float:
        """Return the x of a frame; a lone frame is in the middle."""
        if self.first == self.last:
            return self.box.x(0.5)
        return self.box.x((index - self.first) / (self.last - self.first))

    def ends(self, each: Bin) -> tuple[float, float]:
        """Return a bin's left and right: half a frame beyond its ends, but inside the plot."""
        if self.first == self.last:
            return self.box.left, self.box.end
        left, right = self.x(each.first - 0.5), self.x(each.last + 0.5)
        return max(left, self.box.left), min(right, self.box.end)

    def ticks(self) -> list[Tick]:
        """Return the axis' marks, each with the frame's index and its time."""
        if not self.bins:
            return []
        times = [(each.stamp_ns - self.bins[0].stamp_ns) / 1e9 for each in self.bins]
        indices = sorted({round(each) for each in ticks(self.first, self.last)}) or [self.first]
        at = np.interp(indices, [each.first for each in self.bins], times)
        found = []
        for index, seconds in zip(indices, map(float, at), strict=True):
            x = self.x(index)
            near_start, near_end = x < self.box.left + 20, x > self.box.end - 20
            anchor = "start" if near_start else "end" if near_end else "middle"
            found.append(Tick(x, (str(index), elapsed(seconds)), anchor))
        return found


def frames_chart(
    timeline: Timeline,
    name: str,
    label: str,
    text: Callable[[float], str],
    top: float | None = None,
    usual: float | None = None,
    marks: Iterable[tuple[int, float, str]] = (),
    unit: str = "",
) -> Chart | None:
    """Lay out a figure over frames: the means as a line, minimum to maximum as a band.

    Args:
        timeline: the frames.
        name: the figure's name in the timeline; None is returned if no frame has it.
        label: the chart's title.
        text: formats a value for the tooltips.
        top: the end of the axis of values; None chooses it above the greatest.
        usual: the level that most values stay below: one outlier must not flatten the chart.
        marks: frames to mark: index, value, tooltip.
        unit: unit of the axis; values are shares if it is `%`.
    """
    series, total = timeline.series(name), timeline.total(name)
    if total is None:
        return None
    cut = None
    if top is None:
        reached = total.high
        if usual and reached > CUT_ABOVE * usual:
            reached, cut = 2 * usual, total.high
        scale = 100 if unit == "%" else 1
        step = tick_step(scale * reached or 1) / scale
        top = step * max(1, math.ceil(reached / step - 1e-9))
    box, limit, axis = OVER_FRAMES, top, FrameAxis(timeline.bins, OVER_FRAMES)

    def y(value: float) -> float:
        return box.y(min(max(value / limit, 0), 1))

    line, band = _paths(axis, series, y)
    shapes = [Shape("band", band)] if timeline.frames_in_bin > 1 else []
    shapes.append(Shape("line", line))
    for each, spread in zip(timeline.bins, series, strict=True):
        if spread:
            left, right = axis.ends(each)
            area = f"M{left},{box.top}H{right}V{box.floor}H{left}Z"
            shapes.append(Shape("hover", area, f"{each.name}: {_values(spread, text)}"))
    shapes += [Shape("mark", "", said, axis.x(i), y(value), 4.5) for i, value, said in marks]
    beside = box.left - 8
    return Chart(
        label,
        box,
        [(y(value), _axis_text(value, unit)) for value in ticks(0, limit)],
        axis.ticks(),
        shapes,
        [(beside, box.floor + 18, "end", "frame"), (beside, box.floor + 34, "end", "time")],
        cut,
    )


def spark(timeline: Timeline, name: str, of_class: str) -> str:
    """Return the line of a class's figure, 0..1, for a chart as small as a word."""
    axis = FrameAxis(timeline.bins, SPARK)
    return _paths(axis, timeline.series(name, of_class), SPARK.y)[0]


def presence(timeline: Timeline, of_class: str) -> tuple[str, str]:
    """Return the area of a class's share over frames and a line under the frames that have it."""
    axis, series = FrameAxis(timeline.bins, ROW), timeline.series("share", of_class)
    highest = max((spread.mean for spread in series if spread), default=0.0)
    areas, lines = "", ""
    pairs = zip(timeline.bins, series, strict=True)
    for there, grouped in groupby(pairs, key=lambda pair: pair[1] is not None and pair[1].high > 0):
        if there:
            run = [(axis.ends(each), spread) for each, spread in grouped if spread]
            start, end = run[0][0][0], run[-1][0][1]
            tops = (f"V{ROW.y(spread.mean / highest)}H{right}" for (_, right), spread in run)
            areas += f"M{start},{ROW.floor}{''.join(tops)}V{ROW.floor}Z"
            lines += f"M{start},{ROW.floor + 2}H{max(end, start + 1)}"
    return areas, lines


def _paths(
    axis: FrameAxis, series: Sequence[Spread | None], y: Callable[[float], float]
) -> tuple[str, str]:
    """The line of the means and the band; both have gaps for None, and a lone value is a dot."""
    line, band = "", ""
    pairs = zip(axis.bins, series, strict=True)
    for there, grouped in groupby(pairs, key=lambda pair: pair[1] is not None):
        if not there:
            continue
        run = [(each, spread) for each, spread in grouped if spread]
        xs = [axis.x((each.first + each.last) / 2) for each, _ in run]
        means = (f"{x},{y(spread.mean)}" for x, (_, spread) in zip(xs, run, strict=True))
        # with round caps, a line of no length is a dot
        line += "M" + "L".join(means) + ("h0" if len(run) == 1 else "")
        xs = [axis.ends(run[0][0])[0], *xs, axis.ends(run[-1][0])[1]]
        spreads = [run[0][1], *(spread for _, spread in run), run[-1][1]]
        edges = list(zip(xs, spreads, strict=True))
        edge = [f"{x},{y(spread.high)}" for x, spread in edges]
        edge += [f"{x},{y(spread.low)}" for x, spread in reversed(edges)]
        band += "M" + "L".join(edge) + "Z"
    return line, band


def _axis_text(value: float, unit: str) -> str:
    return f"{100 * value:g} %" if unit == "%" else f"{value:g} {unit}".rstrip()


def _values(spread: Spread, text: Callable[[float], str]) -> str:
    mean = text(spread.mean)
    return mean if spread.count == 1 else f"{mean} ({text(spread.low)} to {text(spread.high)})"
