"""Charts as SVG coordinates in pixels; the macro `chart` of `macros.html.j2` draws them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camseg_core.evaluation.calibration import ReliabilityBin

MEASURES = {"average_precision": "AP", "mean_iou": "mean IoU"}
"""The measures of a robustness chart, by their key under `kept` in the report, and their names."""

HIGHEST = 1.6
"""Robustness charts end at this share of the clean performance; higher values are drawn there."""


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
        """The y of the value 0."""
        return self.height - self.bottom

    @property
    def end(self) -> int:
        """The x where the plot ends."""
        return self.width - self.right

    def x(self, share: float, inset: float = 0) -> float:
        """The x at a share, 0..1, of the plot's width without `inset` at either side."""
        return round(self.left + inset + (self.end - self.left - 2 * inset) * share, 1)

    def y(self, share: float) -> float:
        """The y at a share, 0..1, of the plot's height."""
        return round(self.floor - (self.floor - self.top) * share, 1)


KEPT = Box(300, 196, left=50, right=4, top=10, bottom=40)
FRAME_SCORES = Box(1120, 200, left=44, right=10, top=10, bottom=30)
RELIABILITY = Box(540, 352, left=56, right=24, top=20, bottom=102)
LATENCY = Box(1120, 250, left=52, right=92, top=14, bottom=30)


@dataclass(frozen=True)
class Tick:
    """A mark on the axis of frames or levels: the lines of its text, and their `text-anchor`."""

    x: float
    texts: tuple[str, ...]
    anchor: str = "middle"


@dataclass(frozen=True)
class Shape:
    """A path with CSS classes, a tooltip and `data-` attributes; a circle if it has a radius."""

    css: str
    path: str = ""
    text: str = ""
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """A chart: `label` describes it to screen readers, `notes` are texts at x, y with an anchor.

    `cut` is the largest value if the chart does not reach it, else None.
    """

    label: str
    box: Box
    y_ticks: list[tuple[float, str]]
    x_ticks: list[Tick]
    shapes: list[Shape]
    notes: list[tuple[float, float, str, str]] = field(default_factory=list)
    cut: float | None = None


def axis_top(series: Sequence[Mapping[str, Any]]) -> float:
    """Return the end of the axis of all robustness charts: a multiple of 0.2, at least 1."""
    greatest = max((value for each in series for *_, value in _kept(each, MEASURES)), default=1.0)
    return min(HIGHEST, max(1.0, math.ceil(greatest / 0.2 - 0.1) * 0.2))


def kept_chart(
    series: Mapping[str, Any], contenders: Sequence[str], measures: Mapping[str, str], top: float
) -> Chart:
    """Lay out the performance kept over a disturbance's levels, which stand at equal distances.

    Args:
        series: a series of `robustness.json`.
        contenders: their names, in the order of their colours.
        measures: what to draw. Published values are AP and are drawn only with it.
        top: the end of the axis.
    """
    clean, box = series["clean_level"], KEPT
    levels = sorted({clean, *(each["level"] for each in series["levels"])})

    def x(level: float) -> float:
        return box.x(levels.index(level) / max(1, len(levels) - 1), inset=12)

    def y(value: float) -> float:
        return box.y(min(value, top) / top)

    shapes = [
        Shape("whole", f"M{box.left},{y(1)}H{box.end}"),
        Shape("whole", f"M{x(clean)},{box.top}V{box.floor}"),
    ]
    points = []
    for index, name in enumerate(contenders):
        for measure, title in measures.items():
            own = [
                (level, value)
                for of, which, level, value in _kept(series, measures)
                if (of, which) == (name, measure)
            ]
            run = sorted([*own, (clean, 1.0)])
            if own:
                path = "M" + "L".join(f"{x(level)},{y(value)}" for level, value in run)
                shapes.append(Shape(f"line c{index % 6} {measure}", path))
            for level, value in own:
                text = f"{name}, {title} at {level:g}: {100 * value:.1f} % kept"
                data = {"contender": name, "measure": measure, "level": level, "kept": value}
                css = f"point c{index % 6}"
                points.append(Shape(css, "", text, x(level), y(value), 3.2, data))
    for each in series["levels"]:
        value = each["published_kept"]
        if value is not None and "average_precision" in measures:
            level = each["level"]
            text = f"published, AP at {level:g}: {100 * value:.1f} % kept, of another data set"
            data = {"level": level, "kept": value, "y": y(value)}
            points.append(Shape("published", diamond(x(level), y(value)), text, data=data))
    return Chart(
        f"{series['title']}: share of the clean performance that is kept, by level; the table below"
        " has the figures",
        box,
        [(y(0.2 * i), f"{20 * i} %") for i in range(int(top / 0.2 + 0.01) + 1)],
        [Tick(x(level), (f"{level:g}".replace("-", "−"),)) for level in levels],
        [*shapes, *points],
        [(x(clean), box.floor + 34, "middle", "clean")],
    )


def _kept(
    series: Mapping[str, Any], measures: Mapping[str, str]
) -> Iterator[tuple[str, str, float, float]]:
    """Contender, measure, level and share kept of every value that is not null."""
    for each in series["levels"]:
        for name, scores in each["contenders"].items():
            for measure in measures:
                if scores["kept"][measure] is not None:
                    yield name, measure, each["level"], scores["kept"][measure]


def diamond(x: float, y: float) -> str:
    """Return the path of the mark of a published value."""
    return f"M{x},{y - 6}l6,6l-6,6l-6,-6Z"


def frame_scores_chart(frames: Sequence[tuple[str, float, str]]) -> Chart:
    """Lay out one score, 0..1, per frame.

    Args:
        frames: name, score (NaN is left out) and, if the frame is shown on the page, its rank.
    """
    box, dots = FRAME_SCORES, []
    notes: list[tuple[float, float, str, str]] = []
    for i, (name, score, rank) in enumerate(frames):
        if math.isnan(score):
            continue
        x, y = box.x(i / max(1, len(frames) - 1), inset=10), box.y(score)
        text = f"{name}: {score:.3f}"
        dots.append(Shape(f"dot {rank}".rstrip(), "", text, x, y, 5 if rank else 3))
        if rank:
            anchor = "start" if x < 100 else "end" if x > 1060 else "middle"
            notes.append((x, y - 10 if y > 26 else y + 18, anchor, rank))
    axis = [(54, 192, "start", "first frame"), (box.end, 192, "end", "last frame")]
    y_ticks = [(box.y(i / 4), f"{i / 4:.2f}") for i in range(5)]
    return Chart("mean IoU over frames", box, y_ticks, [], dots, [*notes, *axis])


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Chart:
    """Lay out the reliability diagram: accuracy over confidence, and pixels per bin below it."""
    box, base = RELIABILITY, 332
    most = max(1, *(each.pixels for each in bins))
    shapes = []
    for each in bins:
        if each.pixels:
            left, right = box.x(each.low) + 1, box.x(each.high) - 1
            text = (
                f"confidence {each.low:.2f} to {each.high:.2f}: mean {each.confidence:.3f}, "
                f"accuracy {each.accuracy:.3f}, {each.pixels} pixels"
            )

            accuracy, count = box.y(each.accuracy), round(base - 44 * each.pixels / most, 1)
            shapes += [
                Shape("share", f"M{left},{box.floor}V{accuracy}H{right}V{box.floor}Z", text),
                Shape("count", f"M{left},{base}V{count}H{right}V{base}Z", text),
                Shape("level", f"M{left},{box.y(each.confidence)}H{right}", text),
            ]
    shapes.append(Shape("diagonal", f"M{box.left},{box.floor}L{box.end},{box.top}"))
    fifths = [i / 5 for i in range(6)]
    return Chart(
        "reliability diagram: accuracy over confidence",
        box,
        [(box.y(each), f"{each:.1f}") for each in fifths],
        [Tick(box.x(each), (f"{each:.1f}",)) for each in fifths],
        shapes,
        [(box.x(0.5), 348, "middle", "confidence"), (48, 314, "end", "pixels")],
    )


def latency_chart(
    latencies_ms: Sequence[float | None], p50: float | None, p95: float | None
) -> Chart:
    """Lay out latencies over frames, None for a lost one; at least one must be a number."""
    box, answered = LATENCY, [each for each in latencies_ms if each is not None]
    step_ms = tick_step(max(answered))
    top_ms = step_ms * (int(max(answered) / step_ms) + 1)

    def x(index: float) -> float:
        return box.x(index / max(len(latencies_ms) - 1, 1), inset=8)

    line, dots, lost, follows = "", [], [], False
    for i, ms in enumerate(latencies_ms):
        if ms is None:
            lost.append(Shape("lost", f"M{x(i)},{box.top}V{box.floor}", f"frame {i}: no mask"))
        else:
            y = box.y(ms / top_ms)
            line += f"{'L' if follows else 'M'}{x(i)},{y}"
            dots.append(Shape("dot", "", f"frame {i}: {ms:.0f} ms", x(i), y, 2.8))
        follows = ms is not None  # a lost frame leaves a gap in the line
    levels: list[Shape] = []
    notes: list[tuple[float, float, str, str]] = []
    for name, ms in (("p95", p95), ("p50", p50)):
        if ms is not None:
            y = box.y(ms / top_ms)
            levels.append(Shape("whole", f"M{box.left},{y}H{box.end}"))
            lowest = notes[-1][1] + 15 if notes else 0.0  # texts must not cover each other
            notes.append((box.end + 6, max(y + 4, lowest), "start", f"{name} {ms:.0f} ms"))
    return Chart(
        "latency in milliseconds over frames",
        box,
        [
            (box.y(step_ms * k / top_ms), f"{step_ms * k:g}")
            for k in range(round(top_ms / step_ms) + 1)
        ],
        [
            Tick(x(i), (str(i),))
            for i in range(0, len(latencies_ms), max(1, int(tick_step(len(latencies_ms)))))
        ],
        [*levels, Shape("line", line), *dots, *lost],
        notes,
    )


def tick_step(largest: float) -> float:
    """Return a round step (1, 2 or 5 times a power of ten), about a fifth of `largest`."""
    magnitude = 1e-3
    while True:
        for factor in (1, 2, 5):
            if factor * magnitude * 5.5 >= largest:
                return factor * magnitude
        magnitude *= 10


def ticks(low: float, high: float) -> list[float]:
    """Return about five round values from `low` to `high`."""
    step = tick_step(high - low)
    return [
        round(i * step, 6)
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def elapsed(seconds: float) -> str:
    """Return a duration for people: `8.4 s`, `2:05 min`, `1:02:05 h`."""
    if abs(seconds) < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    sign = "−" if seconds < 0 else ""
    return f"{sign}{hours}:{minutes:02}:{rest:02} h" if hours else f"{sign}{minutes}:{rest:02} min"
