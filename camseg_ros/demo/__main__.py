"""The demo's command line: parses, calls, tells what came of it."""

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
from camseg_ros.demo.page import DemoReport, write_page
from camseg_ros.demo.run import (
    DEFAULT_OUT,
    MOST_FRAMES,
    SYNTHETIC_FRAMES,
    DemoFolder,
    DemoOptions,
    run_demo,
)

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

CLASSES_SHOWN = 8


def main() -> int:
    """Run the demo.

    Returns:
        0 where every frame came back as it should; 1 where one did not or the node failed; 2 where the source or an option
        does not fit; 130 when interrupted.
    """
    # The node is stopped on the way out, however this process is asked to go.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.environ.setdefault(
        "OPENCV_LOG_LEVEL", "SILENT"
    )  # errors are told by this command, on one line
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
    """The options of the command line.

    Raises:
        ConfigError: a value does not fit.
    """
    parser = argparse.ArgumentParser(prog="python -m camseg_ros.demo", description=__doc__)
    parser.add_argument(
        "--source",
        type=Path,
        help="a bag, a video or a folder of images; default: a synthetic drive",
    )
    parser.add_argument(
        "--frames",
        type=int,
        help=f"at most so many frames; default: {SYNTHETIC_FRAMES} synthetic, {MOST_FRAMES} of a source",
    )
    parser.add_argument("--topic", help="the image topic, where a bag has several")
    parser.add_argument(
        "--fps",
        type=float,
        default=DEFAULT_FPS,
        help="frames per second of a folder of images; default: %(default)s",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=20.0,
        help="seconds after which a frame counts as lost; default: %(default)s",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        help="where to leave everything; default: %(default)s",
    )
    given = parser.parse_args()
    source = given.source.expanduser() if given.source is not None else None
    return DemoOptions(
        source, given.frames, given.topic, given.out.expanduser(), given.fps, given.timeout
    )


def summary(report: DemoReport) -> dict[str, object]:
    """The numbers of a run, for programs."""
    tally = report.tally
    return {
        "passed": report.passed,
        "failures": list(report.failures),
        "source": report.source,
        "sent": tally.sent,
        "answered": tally.answered,
        "lost": tally.lost,
        "unreadable": len(tally.unreadable),
        "dropped_by_node": report.dropped,
        "latency_ms": {f"p{percent}": tally.percentile_ms(percent) for percent in (50, 95, 100)},
        "latencies_ms": tally.latencies_ms,
        "rate_hz": tally.answered / report.seconds if report.seconds else None,
        "node_peak_memory_mb": report.peak_memory_bytes / 2**20,
        "classes": {each.name: each.share for each in tally.classes()},
        "node": report.node,
        "machine": report.machine,
    }


def show(report: DemoReport, folder: DemoFolder, console: Console) -> None:
    """Print what came of it, on one screen."""
    tally = report.tally
    table = Table.grid(padding=(0, 2))
    answered = f"{tally.sent} sent, {tally.answered} answered, {tally.lost} lost"
    table.add_row(
        "frames",
        answered + (f", {len(tally.unreadable)} unreadable in the bag" if tally.unreadable else ""),
    )
    p50, p95, worst = (tally.percentile_ms(percent) for percent in (50, 95, 100))
    if p50 is not None:
        table.add_row("latency", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, max {worst:.0f} ms")
        seen = tally.classes()
        shares = ", ".join(f"{each.name} {100 * each.share:.1f} %" for each in seen[:CLASSES_SHOWN])
        table.add_row(
            "classes",
            shares
            + (f" and {len(seen) - CLASSES_SHOWN} more" if len(seen) > CLASSES_SHOWN else ""),
        )
    dropped = "" if report.dropped is None else f", {report.dropped} frames dropped"
    table.add_row("node", f"{report.peak_memory_bytes / 2**20:.0f} MiB of memory at most{dropped}")
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
