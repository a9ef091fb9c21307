"""Runs the demo: makes or opens the bag, starts the node, replays, saves and shows the answers."""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from camseg_core.cli.console import EXIT_FAILED, command_line, say
from camseg_core.cli.options import add_strict_option
from camseg_core.cli.parser import Parser
from camseg_core.data.frame_source import DEFAULT_FPS, open_frames, synthetic_frames
from camseg_core.data.image_files import write_image
from camseg_core.errors import CamSegError, ConfigError, DataError
from camseg_ros.bag.link import Topics
from camseg_ros.bag.make import write_bag
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.read import ImageBag
from camseg_ros.bag.replay_report import describe_machine
from camseg_ros.bag.storage import is_bag
from camseg_ros.demo.output import DemoFolder, DemoReport, show, summary, write_page, write_video
from camseg_ros.demo.replay import DemoCounts, Replay, first_size, reader

SYNTHETIC_FRAMES = 60
DEFAULT_OUT = Path("out/demo")
MAX_FRAMES = 300
"""Frames replayed of the user's own source by default."""

SHOWN_FRAMES = 6
START_S, DIAGNOSTICS_S = 90.0, 2.5
"""How long to wait for the node, and for its last diagnostics."""

NODE_NAME = "segmentation"
PROBLEMS_SHOWN = 5


def main() -> int:
    """Run the demo.

    Returns:
        0 if every frame came back correctly; 1 if one did not, a picture was left out, or the node
        failed.

    Raises:
        SystemExit: with 2 if the source or an option is not usable, with 130 after Ctrl-C.
    """
    # so that the node is stopped too
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    with command_line("demo", lambda: "the node is stopped"):
        options = parse_options()
        folder = DemoFolder(options.out)
        console = Console(highlight=False)
        try:
            report = run_demo(options, folder, console)
        except (DataError, ConfigError):
            raise
        except CamSegError as error:
            say(f"demo: error: {error}")
            return EXIT_FAILED
        write_page(report, folder.page)
        folder.summary.write_text(json.dumps(summary(report), indent=1) + "\n", encoding="utf-8")
        show(report, folder, console)
        return 0 if report.passed and not report.left_out else EXIT_FAILED
    raise AssertionError("command_line ends the process after an error")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def parse_options() -> argparse.Namespace:
    """Parse the command line.

    Raises:
        ConfigError: a value is out of range.
    """
    parser = Parser(prog="python -m camseg_ros.demo", description=__doc__)
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
        help="frames per second of a folder of images",
    )
    option(
        "--timeout",
        type=float,
        default=20.0,
        help="seconds after which a frame counts as lost",
    )
    option("--out", type=Path, default=DEFAULT_OUT, help="output folder")
    add_strict_option(parser)
    options = parser.parse_args()
    if options.frames is not None and options.frames < 1:
        raise ConfigError(f"frames must be >= 1, got {options.frames}")
    for name in ("fps", "timeout"):
        value = getattr(options, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name} must be a number > 0, got {value}")
    options.source = options.source and options.source.expanduser()
    options.out = options.out.expanduser()
    return options


def run_demo(options: argparse.Namespace, folder: DemoFolder, console: Console) -> DemoReport:
    """Run everything except writing the page.

    Raises:
        DataError, ConfigError: the source or an option is not usable.
        CamSegError: the node could not be reached.
    """
    source, topic, frames = options.source, options.topic, None
    left_out: list[str] = []

    def leave_out(error: DataError) -> None:
        left_out.append(str(error))

    if source is not None and not source.exists():
        raise DataError(f"{source} does not exist; name a bag, a video or a folder of images")
    own_bag = source if source is not None and is_bag(source) else None
    if own_bag:
        with ImageBag(own_bag, topic) as bag:  # fail before the last results are removed
            first_size(bag, min(bag.count, options.frames or MAX_FRAMES))
    elif topic is not None:
        raise ConfigError(
            f"a topic ({topic}) needs a bag, got {source or 'the synthetic drive'}; leave it out"
        )
    elif source is None:
        frames = synthetic_frames(options.frames or SYNTHETIC_FRAMES, options.fps)
    else:
        frames = open_frames(source, options.fps, None if options.strict else leave_out)
        frames = frames.first(options.frames or MAX_FRAMES)
    folder.prepare(source)
    columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns, *times, console=console) as progress:
        if frames is not None:
            title = f"bag of {frames.title}"
            total = frames.count or None
            write_bag(progress.track(frames, total=total, description=title), folder.bag)
        with ImageBag(own_bag or folder.bag, topic) as bag:
            count = bag.count
            if bag.note:
                say(f"demo: {bag.note}")
            if source is not None:
                count = min(count, options.frames or MAX_FRAMES)
            report = _empty_report(options, folder, bag, count)
            report.left_out = left_out
            _replay(report, options, folder, bag, count, progress)
            overlays = sorted(folder.overlays.glob("frame_*.png"))
            pictures = progress.track(overlays, description="video of the overlays")
            if write_video(pictures, folder.video, report.tally.recorded_hz or DEFAULT_FPS):
                report.video = folder.video.name
            return report


def _empty_report(
    options: argparse.Namespace, folder: DemoFolder, bag: ImageBag, count: int
) -> DemoReport:
    """Return the report of a replay of `count` images that has not begun."""
    source = "the synthetic drive"
    if options.source is not None:
        source = str(options.source)
    if count < bag.count:
        source += f" (the first {count} of {bag.count} images)"
    settings = {
        "SOURCE": options.source,
        "TOPIC": options.topic,
        "FRAMES": options.frames,
        "OUT": options.out if options.out != DEFAULT_OUT else None,
        "FPS": options.fps if options.fps != DEFAULT_FPS else None,
    }
    given = [f"{name}={value}" for name, value in settings.items() if value is not None]
    return DemoReport(
        source=source,
        synthetic=options.source is None,
        again=shlex.join(["make", "demo", *given]),
        bag=folder.bag.name if folder.bag.is_dir() else str(options.source),
        overlays=folder.overlays.name,
        machine=describe_machine(),
        tally=DemoCounts(show={round(i) for i in np.linspace(0, count - 1, SHOWN_FRAMES)}),
    )


def _replay(
    report: DemoReport,
    options: argparse.Namespace,
    folder: DemoFolder,
    bag: ImageBag,
    count: int,
    progress: Progress,
) -> None:
    """Start the node, send it `count` images of the bag, and add what it did to the report."""
    topics, domain, read = Topics(), free_domain(), reader(bag)
    env = ros_environment(domain, folder.log, os.environ)
    os.environ.update(env)  # this process publishes the images and needs the same transport
    starting = progress.add_task("start of the node", total=None)
    command = segmentation_command(topics.image, bag.compressed)
    with (
        NodeProcess(command, env, folder.log / "node_output.log") as node,
        Replay(domain, bag.compressed, topics) as replay,
    ):
        try:
            replay.wait_for_node(first_size(bag, count), START_S, node.check)
            progress.update(starting, total=1, completed=1)
            started = time.monotonic()
            answers = replay.play(islice(bag, count), read, options.timeout, node.check)
            for answer in progress.track(answers, total=count, description="replay over DDS"):
                report.tally.add(answer)
                if answer.overlay is not None:
                    write_image(folder.overlay(answer.image.index), answer.overlay)
                report.seconds = time.monotonic() - started
            replay.wait_for_diagnostics(DIAGNOSTICS_S, node.check)
        except NodeDied as error:
            report.failures.append(str(error))
            report.last_lines = error.last_lines
        except DataError as error:  # the bag is damaged from here on; the results so far count
            report.failures.append(str(error))
        report.peak_memory_bytes = node.peak_memory_bytes
        report.node = {
            name: values for name, values in replay.diagnostics.items() if NODE_NAME in name
        }
        _judge(report, replay, count, options.timeout)


def _judge(report: DemoReport, replay: Replay, count: int, timeout_s: float) -> None:
    """Add what went wrong to the failures."""
    tally, failures = report.tally, report.failures
    if tally.sent < count:
        failures.append(f"the replay ended after {tally.sent} of {count} frames")
    if tally.lost:
        late = f", {replay.late} of them came later" if replay.late else ""
        lost = f"{tally.lost} of {tally.sent} frames"
        failures.append(f"{lost} did not come back within {timeout_s:g} s{late}")
    if not tally.answered and not failures:
        failures.append("the source has no readable image")
    if replay.strays:
        failures.append(f"masks with a stamp that was never sent: {replay.strays}")
    failures += tally.problems[:PROBLEMS_SHOWN]
    more = len(tally.problems) - PROBLEMS_SHOWN
    if more > 0:
        failures.append(f"{more} more frames had problems like these")


if __name__ == "__main__":
    sys.exit(main())
