"""The self-contained page that the demo writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from camseg_core.evaluation.report.charts import latency_chart
from camseg_core.evaluation.report.page import Card, number, render
from camseg_ros.demo.replay import DemoCounts
from camseg_ros.statistics import FRAMES_DROPPED


@dataclass(frozen=True)
class DemoReport:
    """What the page and the summary show; `interval_ms` is the recording's time between frames."""

    source: str
    synthetic: bool
    tally: DemoCounts
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
        """Whether every readable frame came back as it should."""
        return not self.failures

    @property
    def dropped(self) -> int | None:
        """Frames that the node dropped for a newer one, by its count; None if not reported."""
        counts = [int(v[FRAMES_DROPPED]) for v in self.node.values() if FRAMES_DROPPED in v]
        return sum(counts) if counts else None


def write_page(report: DemoReport, path: Path) -> None:
    """Write the page; pictures are inside it, the video lies beside it."""
    tally, p50, p95 = report.tally, *map(report.tally.percentile_ms, (50, 95))
    chart = latency_chart(tally.latencies_ms, p50, p95) if tally.answered else None
    html = render(
        str(__package__),
        "page.html.j2",
        report=report,
        tally=tally,
        cards=_cards(report),
        classes=tally.classes(),
        chart=chart,
    )
    path.write_text(html, encoding="utf-8")


def _cards(report: DemoReport) -> list[Card]:
    tally = report.tally
    rate = "rate reached"
    if report.interval_ms:
        rate += f", recorded {1000 / report.interval_ms:.3g}"
    dropped = "–" if report.dropped is None else str(report.dropped)
    latencies = {"p50": 50, "p95": 95, "max": 100}
    return [
        Card("frames answered", str(tally.answered), f"/ {tally.sent}", "answered"),
        Card("frames lost", str(tally.lost), id="lost", css="bad" if tally.lost else ""),
        Card("dropped by the node", dropped, id="dropped"),
        *(
            Card(f"latency {name}", number(tally.percentile_ms(percent), 0), "ms")
            for name, percent in latencies.items()
        ),
        Card(rate, number(tally.answered / report.seconds if report.seconds else None, 1), "Hz"),
        Card("node's memory, peak", number(report.peak_memory_bytes / 2**20, 0), "MiB"),
    ]
