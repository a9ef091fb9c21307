"""What the demo writes and prints: its folder, page, summary and video."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from camseg_core.cli.console import printable
from camseg_core.data.image_files import read_rgb
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.report.charts import latency_chart
from camseg_core.evaluation.report.page import Card, number, render
from camseg_ros.demo.replay import DemoCounts
from camseg_ros.statistics import FRAMES_DROPPED

logger = logging.getLogger(__name__)

CODECS = ("vp09", "mp4v")
"""VP9 plays in every current browser, and OpenCV's wheels can encode it but not H.264. MPEG-4
part 2, for builds of OpenCV without VP9, plays in video players only."""

MAX_WIDTH = 960
"""A wider video is scaled down to this, in pixels."""

CLASSES_SHOWN = 8
"""Classes that are printed; the page has all."""

UNREADABLE_SHOWN = 3
"""Unreadable frames whose reason is printed; the page has all."""

MARKER = ".camseg-demo"
MARKER_TEXT = "The camseg demo writes this folder and replaces its own files here.\n"

OWN_FILES = (
    "index.html",
    "summary.json",
    "overlay.mp4",
    "overlays/frame_*.png",
    "bag/metadata.yaml",
    "bag/bag.mcap",
    "log/*.log",
)
"""Patterns of the files that the demo writes into its folder."""


class DemoFolder:
    """The paths of everything that the demo writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.page = path / "index.html"
        self.summary = path / "summary.json"
        self.video = path / "overlay.mp4"
        self.overlays = path / "overlays"
        self.bag = path / "bag"
        self.log = path / "log"

    def overlay(self, index: int) -> Path:
        """Return the path of the overlay of one frame."""
        return self.overlays / f"frame_{index:05d}.png"

    def prepare(self, source: Path | None) -> None:
        """Create the folder and remove the results of an earlier demo.

        Args:
            source: what the demo will read, which must not be in the folder.

        Raises:
            ConfigError: the folder holds other files or `source`, or cannot be written.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; name a folder for the demo's output")
        if path.is_dir() and any(path.iterdir()) and not (path / MARKER).is_file():
            raise ConfigError(
                f"{path} holds files that are not the demo's; "
                "name another folder for its output, or an empty one"
            )
        if source is not None and Path(os.path.realpath(source)).is_relative_to(
            os.path.realpath(path)
        ):
            raise ConfigError(
                f"{source} lies in {path}, which this run replaces; "
                "copy it elsewhere, or name another folder for the output"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
            for pattern in OWN_FILES:
                for file in path.glob(pattern):
                    file.unlink()
            if self.bag.is_dir():
                self.bag.rmdir()
            self.overlays.mkdir(exist_ok=True)
            self.log.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {path}: {error.strerror} ({error.filename}); "
                "name another folder for the output"
            ) from error


def write_video(pictures: Iterable[Path], path: Path, fps: float) -> bool:
    """Write picture files into a video; all take the size of the first.

    Returns:
        Whether there is a video: False if there are no pictures or OpenCV has no encoder.
    """
    with tempfile.TemporaryDirectory() as folder:  # OpenCV needs a name that is UTF-8
        video = Path(folder, "video.mp4")
        if not _write_video(pictures, video, fps):
            return False
        shutil.move(video, path)
        return True


def _write_video(pictures: Iterable[Path], path: Path, fps: float) -> bool:
    writer, size = None, (0, 0)
    for file in pictures:
        try:
            picture = cv2.cvtColor(read_rgb(file), cv2.COLOR_RGB2BGR)
        except DataError:  # removed meanwhile
            continue
        if writer is None:
            height, width = picture.shape[:2]
            scale = min(1.0, MAX_WIDTH / width) / 2
            # both even, because codecs halve the resolution of colours
            size = 2 * max(1, round(width * scale)), 2 * max(1, round(height * scale))
            writer = _open_video(path, fps, size)
            if writer is None:
                return False
        writer.write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    if writer is None:
        return False
    writer.release()
    return True


def _open_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter | None:
    for codec in CODECS:
        fourcc = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, size)
        if writer.isOpened():
            return writer
        writer.release()
        path.unlink(missing_ok=True)
    logger.warning("no video: this OpenCV has no encoder for %s", ", ".join(CODECS))
    return None


@dataclass
class DemoReport:
    """What the page and the summary show, also of an incomplete replay.

    Attributes:
        source: what was replayed; `synthetic` if it is the synthetic drive.
        again: the command that repeats the run.
        bag, overlays: as shown on the page, beside which they lie.
        seconds: length of the replay.
        node: the node's diagnostics, by component.
        last_lines: the end of the node's output if it died.
        left_out: why pictures of the source could not be read.
    """

    source: str
    synthetic: bool
    again: str
    bag: str
    overlays: str
    machine: Mapping[str, str]
    tally: DemoCounts
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    video: str | None = None
    node: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    last_lines: str = ""

    @property
    def passed(self) -> bool:
        """Whether every readable frame came back as it should."""
        return not self.failures

    @property
    def rate_hz(self) -> float | None:
        """The rate reached."""
        return self.tally.answered / self.seconds if self.seconds else None

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
    path.write_text(html, encoding="utf-8", errors="backslashreplace")


def _cards(report: DemoReport) -> list[Card]:
    tally = report.tally
    rate = "rate reached"
    if tally.recorded_hz is not None:
        rate += f", recorded {tally.recorded_hz:.3g}"
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
        Card(rate, number(report.rate_hz, 1), "Hz"),
        Card("node's memory, peak", number(report.peak_memory_bytes / 2**20, 0), "MiB"),
    ]


def summary(report: DemoReport) -> dict[str, object]:
    """Return the numbers of a run, for programs."""
    counts = report.tally
    return {
        "passed": report.passed,
        "failures": list(report.failures),
        "source": report.source,
        "sent": counts.sent,
        "answered": counts.answered,
        "lost": counts.lost,
        "unreadable": len(counts.unreadable),
        "left_out": report.left_out,
        "dropped_by_node": report.dropped,
        "latency_ms": {f"p{percent}": counts.percentile_ms(percent) for percent in (50, 95, 100)},
        "latencies_ms": counts.latencies_ms,
        "rate_hz": report.rate_hz,
        "node_peak_memory_mb": report.peak_memory_bytes / 2**20,
        "classes": {each.name: each.share for each in counts.classes()},
        "node": report.node,
        "machine": report.machine,
    }


def show(report: DemoReport, folder: DemoFolder, console: Console) -> None:
    """Print the result on one screen."""
    counts = report.tally
    table = Table.grid(padding=(0, 2))
    unreadable = f", {len(counts.unreadable)} unreadable in the bag" if counts.unreadable else ""
    frames = f"{counts.sent} sent, {counts.answered} answered, {counts.lost} lost{unreadable}"
    table.add_row("frames", frames)
    p50, p95, worst = (counts.percentile_ms(percent) for percent in (50, 95, 100))
    if p50 is not None:
        table.add_row("latency", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, max {worst:.0f} ms")
        found = counts.classes()
        more = f" and {len(found) - CLASSES_SHOWN} more" if len(found) > CLASSES_SHOWN else ""
        shares = (f"{each.name} {100 * each.share:.1f} %" for each in found[:CLASSES_SHOWN])
        table.add_row("classes", ", ".join(shares) + more)
    dropped = "" if report.dropped is None else f", {report.dropped} frames dropped"
    memory = f"{report.peak_memory_bytes / 2**20:.0f} MiB peak memory"
    table.add_row("node", memory + dropped)
    table.add_row("look at", str(folder.page) + (f" and {folder.video}" if report.video else ""))
    console.print()
    console.print(table, soft_wrap=True)
    for failure in report.failures:
        console.print(f"[bold red]failed[/]   {escape(printable(failure))}", soft_wrap=True)
    if report.last_lines:
        console.print(f"\nThe node's last lines:\n{escape(report.last_lines)}", soft_wrap=True)
    for problem in report.left_out:
        console.print(f"[bold red]left out[/] {escape(printable(problem))}", soft_wrap=True)
    if report.passed:
        every = "every frame sent came back" if report.left_out else "every frame came back"
        if count := len(counts.unreadable):
            every = f"every readable frame came back; {count} could not be read"
            console.print(escape("; ".join(counts.unreadable[:UNREADABLE_SHOWN])), soft_wrap=True)
        console.print(f"[bold green]{every}[/]")
