"""Charts of a timeline as SVG coordinates in pixels; the page's template draws them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from camseg_core.evaluation.report.charts import elapsed, tick_step, ticks
from camseg_ros.bag.timeline import Bin, Spread, Timeline

CUT_ABOVE = 4
"""A chart is cut where its largest value is more than so many times the level that most stay below."""


@dataclass(frozen=True)
class Box:
    """A chart's size, and the margins inside it for labels."""

    width: int
    height: int
    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    @property
    def floor(self) -> int:
        """Where the value 0 lies."""
        return self.height - self.bottom

    @property
    def end(self) -> int:
        """Where the last frame lies."""
        return self.width - self.right


CHART = Box(1120, 190, left=64, right=16, top=12, bottom=42)
ROW = Box(640, 26, top=3, bottom=4)
SPARK = Box(150, 24, left=2, right=2, top=2, bottom=2)


class Frames:
    """The axis of frames, the same in all charts of a page; below it the time since the first frame, as stamped."""

    def __init__(self, bins: Sequence[Bin]) -> None:
        self.bins = bins
        self.first, self.last = (bins[0].first, bins[-1].last) if bins else (0, 0)

    def x(self, index: float, box: Box) -> float:
        """Where a frame lies; a lone frame lies in the middle."""
        if self.first == self.last:
            return round((box.left + box.end) / 2, 1)
        return round(
            box.left + (box.end - box.left) * (index - self.first) / (self.last - self.first), 1
        )

    def ends(self, each: Bin, box: Box) -> tuple[float, float]:
        """From where to where a bin's frames reach: half a frame beyond its first and last, but not out of the chart."""
        if self.first == self.last:
            return box.left, box.end
        return max(self.x(each.first - 0.5, box), box.left), min(
            self.x(each.last + 0.5, box), box.end
        )

    def ticks(self, box: Box) -> list[tuple[float, str, str]]:
        """Where the axis is marked, with the frame's index and its time."""
        if not self.bins:
            return []
        times = [(each.stamp_ns - self.bins[0].stamp_ns) / 1e9 for each in self.bins]
        indices = sorted({round(each) for each in ticks(self.first, self.last)}) or [self.first]
        at = np.interp(indices, [each.first for each in self.bins], times)
        return [
            (self.x(i, box), str(i), elapsed(seconds))
            for i, seconds in zip(indices, map(float, at), strict=True)
        ]


@dataclass(frozen=True)
class Chart:
    """A figure over frames: the line of the means, the band from least to greatest, and what the axes say."""

    name: str
    label: str
    box: Box
    line: str
    band: str
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str, str]]
    hovers: list[tuple[float, float, str]]
    """From where to where, and the text."""
    marks: list[tuple[float, float, str]]
    cut: float | None
    """The largest value, where the chart does not reach up to it."""


def chart(
    timeline: Timeline,
    name: str,
    label: str,
    text: Callable[[float], str],
    top: float | None = None,
    usual: float | None = None,
    marks: Iterable[tuple[int, float, str]] = (),
    unit: str = "",
) -> Chart | None:
    """Lay out a figure over frames; None where no frame has it.

    Args:
        timeline: the frames.
        name: the figure's, in the timeline.
        label: what the chart is called.
        text: a value as text, for the hovering pointer.
        top: where the axis of values ends; None: above the greatest.
        usual: what most values stay below, so that a single outlier does not make the chart unreadable.
        marks: frames to mark: index, value, text.
        unit: behind the axis' numbers; with `%` they are hundredths.
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
        top = step * max(1, np.ceil(reached / step - 1e-9))
    height, limit, frames = CHART.floor - CHART.top, float(top), Frames(timeline.bins)

    def y(value: float) -> float:
        return round(CHART.floor - height * min(max(value / limit, 0), 1), 1)

    line, band = _paths(frames, series, CHART, y)
    return Chart(
        name,
        label,
        CHART,
        line,
        band if timeline.frames_in_bin > 1 else "",
        y_ticks=[(y(value), _axis_text(value, unit)) for value in ticks(0, limit)],
        x_ticks=frames.ticks(CHART),
        hovers=[
            (*frames.ends(each, CHART), f"{_which(each)}: {_values(spread, text)}")
            for each, spread in zip(timeline.bins, series, strict=True)
            if spread
        ],
        marks=[(frames.x(index, CHART), y(value), said) for index, value, said in marks],
        cut=cut,
    )


def spark(timeline: Timeline, name: str, of_class: str) -> str:
    """The line of a class' figure, 0 to 1, for a chart as small as a word."""
    line, _ = _paths(
        Frames(timeline.bins),
        timeline.series(name, of_class),
        SPARK,
        lambda value: round(SPARK.floor - (SPARK.floor - SPARK.top) * value, 1),
    )
    return line


def presence(timeline: Timeline, of_class: str) -> tuple[str, str]:
    """When a class is there: the area of its share, as high as the row where that is greatest, and lines where there is any of it."""
    frames, series, total = (
        Frames(timeline.bins),
        timeline.series("share", of_class),
        timeline.total("share", of_class),
    )
    if total is None or total.high <= 0:
        return "", ""
    highest = max(spread.mean for spread in series if spread)

    def y(spread: Spread) -> float:
        return round(ROW.floor - (ROW.floor - ROW.top) * spread.mean / highest, 1)

    areas, lines = [], []
    pairs = zip(timeline.bins, series, strict=True)
    for there, grouped in groupby(pairs, key=lambda pair: pair[1] is not None and pair[1].high > 0):
        if there:
            run = [(frames.ends(each, ROW), y(spread)) for each, spread in grouped if spread]
            start, end = run[0][0][0], run[-1][0][1]
            areas.append(
                f"M{start},{ROW.floor}"
                + "".join(f"V{top}H{right}" for (_, right), top in run)
                + f"V{ROW.floor}Z"
            )
            lines.append(f"M{start},{ROW.floor + 2}H{max(end, start + 1)}")
    return "".join(areas), "".join(lines)


def _paths(
    frames: Frames, series: Sequence[Spread | None], box: Box, y: Callable[[float], float]
) -> tuple[str, str]:
    """The line of the means and the band; both have gaps where there is no value, and a lone value is a dot."""
    line, band = [], []
    pairs = zip(frames.bins, series, strict=True)
    for there, grouped in groupby(pairs, key=lambda pair: pair[1] is not None):
        if not there:
            continue
        run = [(each, spread) for each, spread in grouped if spread]
        line.append(
            "M" + "L".join(f"{frames.x(each.middle, box)},{y(spread.mean)}" for each, spread in run)
        )
        if len(run) == 1:
            line.append("h0")  # with round caps, a line of no length is a dot
        (start, _), (_, end) = frames.ends(run[0][0], box), frames.ends(run[-1][0], box)
        xs = [start, *(frames.x(each.middle, box) for each, _ in run), end]
        spreads = [run[0][1], *(spread for _, spread in run), run[-1][1]]
        edge = [(x, y(spread.high)) for x, spread in zip(xs, spreads, strict=True)]
        edge += [
            (x, y(spread.low)) for x, spread in zip(reversed(xs), reversed(spreads), strict=True)
        ]
        band.append("M" + "L".join(f"{x},{value}" for x, value in edge) + "Z")
    return "".join(line), "".join(band)


def _axis_text(value: float, unit: str) -> str:
    return f"{100 * value:g} %" if unit == "%" else f"{value:g} {unit}".rstrip()


def _which(each: Bin) -> str:
    return (
        f"frame {each.first}" if each.first == each.last else f"frames {each.first} to {each.last}"
    )


def _values(spread: Spread, text: Callable[[float], str]) -> str:
    return (
        text(spread.mean)
        if spread.count == 1
        else f"{text(spread.mean)} ({text(spread.low)} to {text(spread.high)})"
    )
