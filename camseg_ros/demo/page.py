"""The page that the demo leaves: one HTML file that shows everything without asking any network for anything."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from camseg_core.evaluation.report.charts import tick_step
from camseg_core.evaluation.report.page import environment
from camseg_ros.demo.tally import Tally

CHART_WIDTH, CHART_HEIGHT = 1120, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 92, 14, 30
"""The chart's margins for its labels, in pixels."""


@dataclass(frozen=True)
class DemoReport:
    """Everything that the page and the summary say. `interval_ms` is the recording's time between frames."""

    source: str
    synthetic: bool
    tally: Tally
    failures: Sequence[str]
    seconds: float
    interval_ms: float | None
    peak_memory_bytes: int
    video: str | None
    overlays: str
    bag: str
    again: str
    machine: Mapping[str, str]
    node: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    last_lines: str = ""

    @property
    def passed(self) -> bool:
        """Whether every frame that should have come back did, as it should."""
        return not self.failures

    @property
    def dropped(self) -> int | None:
        """Frames that the node passed over for a fresher one, by its own count; None where it did not say."""
        counts = [
            values["frames dropped"] for values in self.node.values() if "frames dropped" in values
        ]
        return sum(map(int, counts)) if counts else None


def write_page(report: DemoReport, path: Path) -> None:
    """Write the page; pictures are inside it, the video lies beside it."""
    made = environment()
    made.filters["data_uri"] = lambda content, kind: (
        f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    )
    template = made.from_string(
        files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    )
    tally = report.tally
    html = template.render(
        report=report,
        tally=tally,
        classes=tally.classes(),
        p50=tally.percentile_ms(50),
        p95=tally.percentile_ms(95),
        worst=tally.percentile_ms(100),
        chart=latency_chart(tally.latencies_ms, tally.percentile_ms(50), tally.percentile_ms(95))
        if tally.answered
        else None,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    path.write_text(html, encoding="utf-8")


@dataclass(frozen=True)
class LatencyChart:
    """Latency over frames as SVG coordinates, in pixels, and the texts of the axes."""

    width: int
    height: int
    left: int
    right: int
    bottom: int
    lines: list[str]
    dots: list[tuple[float, float, str]]
    lost: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str]]
    levels: list[tuple[float, float, str]]
    """Of each marked latency: where its line lies, where its text, and the text."""


def latency_chart(
    latencies_ms: Sequence[float | None], p50: float | None, p95: float | None
) -> LatencyChart:
    """Lay out the chart; at least one frame must have been answered."""
    answered = [each for each in latencies_ms if each is not None]
    step_ms = tick_step(max(answered))
    top_ms = step_ms * (int(max(answered) / step_ms) + 1)
    right, bottom = CHART_WIDTH - RIGHT, CHART_HEIGHT - BOTTOM

    def x(index: float) -> float:
        return round(LEFT + 8 + (right - LEFT - 16) * index / max(len(latencies_ms) - 1, 1), 1)

    def y(ms: float) -> float:
        return round(bottom - (bottom - TOP) * ms / top_ms, 1)

    lines, run = [], []
    for i, ms in enumerate([*latencies_ms, None]):
        if ms is not None:
            run.append(f"{x(i)},{y(ms)}")
        elif run:  # a lost frame leaves a gap in the line
            lines.append(" ".join(run))
            run = []
    frame_step = max(1, int(tick_step(len(latencies_ms))))
    levels = [
        (y(ms), f"{name} {ms:.0f} ms")
        for name, ms in (("p95", p95), ("p50", p50))
        if ms is not None
    ]
    return LatencyChart(
        CHART_WIDTH,
        CHART_HEIGHT,
        LEFT,
        right,
        bottom,
        lines,
        dots=[
            (x(i), y(ms), f"frame {i}: {ms:.0f} ms")
            for i, ms in enumerate(latencies_ms)
            if ms is not None
        ],
        lost=[(x(i), f"frame {i}: no mask") for i, ms in enumerate(latencies_ms) if ms is None],
        y_ticks=[
            (y(ms), f"{ms:g}") for ms in (step_ms * k for k in range(round(top_ms / step_ms) + 1))
        ],
        x_ticks=[(x(i), str(i)) for i in range(0, len(latencies_ms), frame_step)],
        levels=_apart(levels),
    )


def _apart(levels: list[tuple[float, str]]) -> list[tuple[float, float, str]]:
    """Texts beside their lines, but none closer than a line of text below the one before."""
    placed: list[tuple[float, float, str]] = []
    for line, text in levels:
        placed.append((line, max(line, placed[-1][1] + 15) if placed else line, text))
    return placed
