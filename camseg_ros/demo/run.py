"""Runs the demo: makes or opens the bag, starts the node, replays, counts and saves the answers."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
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

from camseg_core.data.frame_source import DEFAULT_FPS, FrameSource, open_frames, synthetic_frames
from camseg_core.errors import ConfigError, DataError, ImageError
from camseg_ros.bag.frames import decode
from camseg_ros.bag.link import Topics
from camseg_ros.bag.make import write_bag
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.read import BagImage, ImageBag
from camseg_ros.bag.replay_report import describe_machine
from camseg_ros.bag.storage import is_bag
from camseg_ros.demo.output import DemoFolder, write_video
from camseg_ros.demo.page import DemoReport
from camseg_ros.demo.replay import DemoCounts, Pixels, Replay
from camseg_ros.image_conversion import Converter, choose_converter

SYNTHETIC_FRAMES = 60
DEFAULT_OUT = Path("out/demo")
MAX_FRAMES = 300
"""Frames replayed of the user's own source by default."""

SHOWN_FRAMES = 6
DIAGNOSTICS_S = 2.5
NODE_NAME = "segmentation"
PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class DemoOptions:
    """The options of the demo; times in s. `fps` is for a folder of images."""

    source: Path | None
    frames: int | None
    topic: str | None
    out: Path
    fps: float = DEFAULT_FPS
    timeout_s: float = 20.0
    start_timeout_s: float = 90.0

    def __post_init__(self) -> None:
        """Raise ConfigError if a value is out of range."""
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"frames must be >= 1, got {self.frames}")
        for name in ("fps", "timeout_s", "start_timeout_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name.removesuffix('_s')} must be a number > 0, got {value}")


def run_demo(options: DemoOptions, console: Console) -> DemoReport:
    """Run everything except writing the page.

    Raises:
        DataError, ConfigError: the source or an option is not usable.
        CamSegError: the node could not be reached.
    """
    folder, source = DemoFolder(options.out), options.source
    if source is not None and not source.exists():
        raise DataError(f"{source} does not exist; name a bag, a video or a folder of images")
    own_bag = source if source is not None and is_bag(source) else None
    if own_bag:
        ImageBag(own_bag, options.topic).close()  # fail before the last results are removed
    elif options.topic is not None:
        raise ConfigError(
            f"a topic ({options.topic}) needs a bag, got {source or 'the synthetic drive'}; "
            "leave it out"
        )
    frames = None if own_bag else _frames(options)
    folder.prepare(source)
    with _progress(console) as progress:
        if frames is not None:
            title = f"bag of {frames.title}"
            write_bag(progress.track(frames, total=frames.count, description=title), folder.bag)
        with ImageBag(own_bag or folder.bag, options.topic) as bag:
            count = bag.count
            if source is not None:
                count = min(count, options.frames or MAX_FRAMES)
            replayed = _replay(options, folder, bag, count, progress)
            video = _write_video(folder, bag, progress)
            return _report(options, folder, bag, replayed, video)


def _frames(options: DemoOptions) -> FrameSource:
    """Return the frames to make a bag of."""
    if options.source is None:
        return synthetic_frames(options.frames or SYNTHETIC_FRAMES, options.fps)
    return open_frames(options.source, options.fps).first(options.frames or MAX_FRAMES)


@dataclass
class _Replayed:
    """What is known after a complete or incomplete replay of `count` images."""

    count: int
    counts: DemoCounts
    failures: list[str]
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    last_lines: str = ""
    node: dict[str, dict[str, str]] | None = None


def _replay(
    options: DemoOptions, folder: DemoFolder, bag: ImageBag, count: int, progress: Progress
) -> _Replayed:
    """Start the node and send it `count` images of the bag."""
    counts = DemoCounts(show={round(i) for i in np.linspace(0, count - 1, SHOWN_FRAMES)})
    replayed = _Replayed(count, counts, [])
    topics, domain, converter = Topics(), free_domain(), choose_converter()
    env = ros_environment(domain, folder.log, os.environ)
    os.environ.update(env)  # this process publishes the images and needs the same transport
    starting = progress.add_task("start of the node", total=None)
    command = segmentation_command(topics.image, bag.compressed)
    with (
        NodeProcess(command, env, folder.log / "node_output.log") as node,
        Replay(domain, bag.compressed, topics) as replay,
    ):
        try:
            replay.wait_for_node(_first_size(bag), options.start_timeout_s, node.check)
            progress.update(starting, total=1, completed=1)
            started = time.monotonic()
            answers = replay.play(islice(bag, count), options.timeout_s, node.check)
            for answer in progress.track(answers, total=count, description="replay over DDS"):
                counts.add(answer, _rgb(answer.image, bag.compressed, converter))
                if answer.overlay is not None:
                    overlay = cv2.cvtColor(answer.overlay, cv2.COLOR_RGB2BGR)
                    cv2.imwrite(str(folder.overlay(answer.image.index)), overlay)
                replayed.seconds = time.monotonic() - started
            replay.wait_for_diagnostics(DIAGNOSTICS_S, node.check)
        except NodeDied as error:
            replayed.failures.append(str(error))
            replayed.last_lines = error.last_lines
        except DataError as error:  # the bag is damaged from here on; the results so far count
            replayed.failures.append(str(error))
        replayed.peak_memory_bytes = node.peak_memory_bytes
        replayed.node = {
            name: values for name, values in replay.diagnostics.items() if NODE_NAME in name
        }
        _judge(replayed, replay, options.timeout_s)
    return replayed


def _judge(replayed: _Replayed, replay: Replay, timeout_s: float) -> None:
    """Add what went wrong to the failures."""
    counts, failures = replayed.counts, replayed.failures
    if counts.sent < replayed.count:
        failures.append(f"the replay ended after {counts.sent} of {replayed.count} frames")
    if counts.lost:
        late = f", {replay.late} of them came later" if replay.late else ""
        lost = f"{counts.lost} of {counts.sent} frames"
        failures.append(f"{lost} did not come back within {timeout_s:g} s{late}")
    if not counts.answered and not failures:
        failures.append("the source has no readable image")
    if replay.strays:
        failures.append(f"masks with a stamp that was never sent: {replay.strays}")
    failures += counts.problems[:PROBLEMS_SHOWN]
    more = len(counts.problems) - PROBLEMS_SHOWN
    if more > 0:
        failures.append(f"{more} more frames had problems like these")


def _rgb(image: BagImage, compressed: bool, converter: Converter) -> Pixels | None:
    """Return the pixels `(H, W, 3)`, or None if the message holds no readable image."""
    try:
        return decode(image.message, compressed, converter)
    except ImageError:
        return None


def _first_size(bag: ImageBag) -> tuple[int, int]:
    """Return width and height of the first image with a readable header."""
    return next((size for image in bag if (size := image.size) and min(size) > 0), (64, 48))


def _write_video(folder: DemoFolder, bag: ImageBag, progress: Progress) -> str | None:
    overlays = sorted(folder.overlays.glob("frame_*.png"))
    fps = 1e3 / bag.interval_ms if bag.interval_ms else DEFAULT_FPS
    pictures = progress.track(overlays, description="video of the overlays")
    return folder.video.name if write_video(pictures, folder.video, fps) else None


def _report(
    options: DemoOptions, folder: DemoFolder, bag: ImageBag, replayed: _Replayed, video: str | None
) -> DemoReport:
    source, count = "the synthetic drive", replayed.count
    if options.source is not None:
        source = "/".join(options.source.resolve().parts[-2:])
    if count < bag.count:
        source += f" (the first {count} of {bag.count} images)"
    return DemoReport(
        source=source,
        synthetic=options.source is None,
        tally=replayed.counts,
        failures=replayed.failures,
        seconds=replayed.seconds,
        interval_ms=bag.interval_ms,
        peak_memory_bytes=replayed.peak_memory_bytes,
        video=video,
        overlays=folder.overlays.name,
        bag=folder.bag.name if folder.bag.is_dir() else str(options.source),
        again=_command(options),
        machine=describe_machine(),
        node=replayed.node or {},
        last_lines=replayed.last_lines,
    )


def _command(options: DemoOptions) -> str:
    """Return the command that repeats the run."""
    settings = {
        "SOURCE": options.source,
        "TOPIC": options.topic,
        "FRAMES": options.frames,
        "OUT": options.out if options.out != DEFAULT_OUT else None,
        "FPS": options.fps if options.fps != DEFAULT_FPS else None,
    }
    given = [f"{name}={value}" for name, value in settings.items() if value is not None]
    return shlex.join(["make", "demo", *given])


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    text = TextColumn("{task.description:<24}")
    done = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(
        text, *done, TextColumn("left"), TimeRemainingColumn(), console=console
    ) as progress:
        yield progress
