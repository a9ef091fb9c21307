"""Charts of what is kept over the levels of a disturbance, as SVG coordinates in pixels; the page's template draws them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MEASURES = {"average_precision": "AP", "mean_iou": "mean IoU"}
"""What is drawn, by its name in the report under `kept`, and what it is called."""

HIGHEST = 1.6
"""Charts do not reach above so much of the clean performance; what lies higher is drawn at their upper edge."""


@dataclass(frozen=True)
class Box:
    """A chart's size, and the margins inside it for labels."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def floor(self) -> int:
        """Where the value 0 lies."""
        return self.height - self.bottom

    @property
    def end(self) -> int:
        """Where the last level lies, at most."""
        return self.width - self.right


CHART = Box(300, 196, left=42, right=4, top=10, bottom=40)


@dataclass(frozen=True)
class Point:
    """A value: `kept` of the measure at a level. `contender` is an index, None for a published value."""

    x: float
    y: float
    contender: int | None
    measure: str
    level: float
    kept: float
    text: str


@dataclass(frozen=True)
class Chart:
    """What is kept over levels, which stand at equal distances, the clean one among them where it belongs."""

    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    clean_x: float
    lines: list[tuple[int, str, str]]
    """Index of the contender, measure, and the path."""
    points: list[Point]
    published: list[Point]


def axis_top(series: Sequence[Mapping[str, Any]]) -> float:
    """Where the axes of the page's charts end, all at the same value: at the greatest, a multiple of 0.2 from 1 up."""
    greatest = max((point[3] for each in series for point in _ours(each, MEASURES)), default=1.0)
    return min(HIGHEST, max(1.0, math.ceil(greatest / 0.2 - 0.1) * 0.2))


def chart(
    series: Mapping[str, Any], contenders: Sequence[str], measures: Mapping[str, str], top: float
) -> Chart:
    """Lay out a series of the report.

    Args:
        series: as in `robustness.json`.
        contenders: their names, in the order of their colours.
        measures: what to draw; published values are AP and are drawn only with it.
        top: where the axis ends.
    """
    clean = series["clean_level"]
    levels = sorted({clean, *(each["level"] for each in series["levels"])})
    step = (CHART.end - CHART.left - 24) / max(1, len(levels) - 1)

    def x(level: float) -> float:
        return round(CHART.left + 12 + step * levels.index(level), 1)

    def y(value: float) -> float:
        return round(CHART.floor - (CHART.floor - CHART.top) * min(value, top) / top, 1)

    points = []
    lines = []
    for index, name in enumerate(contenders):
        for measure, title in measures.items():
            mine = [
                each for each in _ours(series, measures) if each[0] == name and each[1] == measure
            ]
            run = sorted(
                [(level, value) for _, _, level, value in mine] + ([(clean, 1.0)] if mine else [])
            )
            lines.append(
                (
                    index,
                    measure,
                    "M" + "L".join(f"{x(level)},{y(value)}" for level, value in run) if run else "",
                )
            )
            points += [
                Point(
                    x(level),
                    y(value),
                    index,
                    measure,
                    level,
                    value,
                    f"{name}, {title} at {level:g}: {100 * value:.1f} % kept",
                )
                for _, _, level, value in mine
            ]
    published = [
        Point(
            x(each["level"]),
            y(value),
            None,
            "average_precision",
            each["level"],
            value,
            f"published, AP at {each['level']:g}: {100 * value:.1f} % kept, of another data set",
        )
        for each in series["levels"]
        if "average_precision" in measures and (value := each["published_kept"]) is not None
    ]
    return Chart(
        x_ticks=[(x(level), f"{level:g}".replace("-", "−")) for level in levels],
        y_ticks=[(y(0.2 * i), f"{20 * i} %") for i in range(int(top / 0.2 + 0.01) + 1)],
        clean_x=x(clean),
        lines=lines,
        points=points,
        published=published,
    )


def _ours(
    series: Mapping[str, Any], measures: Mapping[str, str]
) -> Iterator[tuple[str, str, float, float]]:
    """Contender, measure, level and share kept of every value that there is."""
    for each in series["levels"]:
        for name, scores in each["contenders"].items():
            for measure in measures:
                if scores["kept"][measure] is not None:
                    yield name, measure, each["level"], scores["kept"][measure]


def tick_step(largest: float) -> float:
    """A round step (1, 2 or 5 times a power of ten) that divides 0..largest into about five."""
    magnitude = 1e-3
    while True:
        for factor in (1, 2, 5):
            if factor * magnitude * 5.5 >= largest:
                return factor * magnitude
        magnitude *= 10


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, about five."""
    step = tick_step(high - low)
    return [
        round(i * step, 6)
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def elapsed(seconds: float) -> str:
    """A time since the start for people: `8.4 s`, `2:05 min`, `1:02:05 h`."""
    if abs(seconds) < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    sign = "−" if seconds < 0 else ""
    return f"{sign}{hours}:{minutes:02}:{rest:02} h" if hours else f"{sign}{minutes}:{rest:02} min"
