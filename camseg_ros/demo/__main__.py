"""The demo's command line: parses the options, runs the demo, prints the result."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from camseg_core.data.frame_source import DEFAULT_FPS
from camseg_core.errors import CamSegError, ConfigError, DataError
from camseg_ros.demo.output import DemoFolder
from camseg_ros.demo.page import DemoReport, write_page
from camseg_ros.demo.run import DEFAULT_OUT, MAX_FRAMES, SYNTHETIC_FRAMES, DemoOptions, run_demo

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

CLASSES_SHOWN = 8


def main() -> int:
    """Run the demo.

    Returns:
        0 if every frame came back correctly; 1 if one did not or the node failed; 2 if the source
        or an option is not usable; 130 after Ctrl-C.
    """
    # so that the node is stopped too
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # this command reports errors itself
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    console = Console(highlight=False)
    options = None
    try:
        options = parse_options()
        report = run_demo(options, console)
        folder = DemoFolder(options.out)
        write_page(report, folder.page)
        folder.summary.write_text(json.dumps(summary(report), indent=1) + "\n", encoding="utf-8")
        show(report, folder, console)
        return 0 if report.passed else EXIT_FAILED
    except CamSegError as error:
        sys.stderr.write(f"demo: {error}\n")
        return EXIT_BAD_INPUT if isinstance(error, DataError | ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; the node is stopped\n")
        return EXIT_INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def parse_options() -> DemoOptions:
    """Parse the command line.

    Raises:
        ConfigError: a value is out of range.
    """
    parser = argparse.ArgumentParser(prog="python -m camseg_ros.demo", description=__doc__)
    option = parser.add_argument
    option(
        "--source",
        type=Path,
        help="a bag, a video or a folder of images (default: a synthetic drive)",
    )
    option(
        "--frames",
        type=int,
        help=f"number of frames (default: {SYNTHETIC_FRAMES} synthetic, {MAX_FRAMES} of a source)",
    )
    option("--topic", help="image topic, if a bag has several")
    option(
        "--fps",
        type=float,
        default=DEFAULT_FPS,
        help="frames per second of a folder of images (default: %(default)s)",
    )
    option(
        "--timeout",
        type=float,
        default=20.0,
        help="seconds after which a frame counts as lost (default: %(default)s)",
    )
    option("--out", type=Path, default=DEFAULT_OUT, help="output folder (default: %(default)s)")
    given = parser.parse_args()
    source = given.source.expanduser() if given.source is not None else None
    return DemoOptions(
        source, given.frames, given.topic, given.out.expanduser(), given.fps, given.timeout
    )


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
        "dropped_by_node": report.dropped,
        "latency_ms": {f"p{percent}": counts.percentile_ms(percent) for percent in (50, 95, 100)},
        "latencies_ms": counts.latencies_ms,
        "rate_hz": counts.answered / report.seconds if report.seconds else None,
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
        console.print(f"[bold red]failed[/]   {escape(failure)}", soft_wrap=True)
    if report.last_lines:
        console.print(f"\nThe node's last lines:\n{escape(report.last_lines)}", soft_wrap=True)
    if report.passed:
        console.print("[bold green]every frame came back[/]")


if __name__ == "__main__":
    sys.exit(main())
