"""The demo's one job from source to page: make or open the bag, start the node, replay, keep and count what comes back."""

import logging
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
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
from camseg_ros.bag.link import Topics
from camseg_ros.bag.machine import describe_machine
from camseg_ros.bag.make import write_bag
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.read import BagImage, ImageBag, is_bag
from camseg_ros.bag.replay import FrameResult, Replay
from camseg_ros.demo.page import DemoReport
from camseg_ros.demo.tally import Tally
from camseg_ros.image_conversion import choose_converter
from camseg_ros.images import compressed_to_rgb, image_to_rgb

CODECS = ("vp09", "mp4v")
"""VP9 plays in every current browser and OpenCV's wheels have an encoder for it; they have none for H.264. MPEG-4 part 2
is for builds of OpenCV without VP9, and plays in video players only."""

WIDEST = 960
"""Wider pictures are scaled down to this, in pixels."""

logger = logging.getLogger(__name__)


def write_video(pictures: Iterable[Path], path: Path, fps: float) -> bool:
    """Write the picture files, in this order, into the video `path`; all take the size of the first.

    Returns:
        Whether there is a video: False where there was no picture, or OpenCV has no encoder.
    """
    writer, size = None, (0, 0)
    for file in pictures:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:  # removed behind our back: a gap in a video is no reason to fail
            continue
        if writer is None:
            size = _even_size(picture)
            writer = _open(path, fps, size)
            if writer is None:
                return False
        writer.write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    if writer is None:
        return False
    writer.release()
    return True


def _open(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter | None:
    for codec in CODECS:
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size
        )
        if writer.isOpened():
            return writer
        writer.release()
        path.unlink(missing_ok=True)
    logger.warning(
        "this OpenCV has no video encoder (%s); the demo leaves no video", ", ".join(CODECS)
    )
    return None


def _even_size(picture: npt.NDArray[np.generic]) -> tuple[int, int]:
    """The video's width and height: video codecs halve the colour's resolution, so both are even."""
    height, width = picture.shape[:2]
    scale = min(1.0, WIDEST / width)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


MARKER = ".camseg-demo"
MARKER_TEXT = "This folder is written by the camseg demo, which replaces its own files here.\n"

OURS = (
    "index.html",
    "summary.json",
    "overlay.mp4",
    "overlays/frame_*.png",
    "bag/metadata.yaml",
    "bag/bag.mcap",
    "log/*.log",
)
"""What the demo writes into its folder, as patterns."""


class DemoFolder:
    """Where everything that the demo leaves is found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.page = path / "index.html"
        self.summary = path / "summary.json"
        self.video = path / "overlay.mp4"
        self.overlays = path / "overlays"
        self.bag = path / "bag"
        self.log = path / "log"

    def overlay(self, index: int) -> Path:
        """The overlay of one frame."""
        return self.overlays / f"frame_{index:05d}.png"

    def prepare(self, source: Path | None) -> None:
        """Make the folder, without what an earlier demo left in it.

        Args:
            source: what the demo is about to read, and so must not be removed.

        Raises:
            ConfigError: the folder holds something else than an earlier demo, cannot be written, or holds `source`.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; name a folder for the demo's output")
        if path.is_dir() and any(path.iterdir()) and not (path / MARKER).is_file():
            raise ConfigError(
                f"{path} holds files that are not the demo's; name another folder for its output, or an empty one"
            )
        if source is not None and source.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"{source} lies in {path}, which this run replaces; copy it elsewhere, or name another folder for the output"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
            for pattern in OURS:
                for file in path.glob(pattern):
                    file.unlink()
            if self.bag.is_dir():
                self.bag.rmdir()
            self.overlays.mkdir(exist_ok=True)
            self.log.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {path}: {error.strerror} ({error.filename}); name another folder for the output"
            ) from error


SYNTHETIC_FRAMES = 60
DEFAULT_OUT = Path("out/demo")
MOST_FRAMES = 300
"""How much of the user's own source is replayed where no number of frames is given."""

SHOWN_FRAMES = 6
MAX_IMAGE_BYTES = 1 << 30
DIAGNOSTICS_S = 2.5
NODE_NAME = "segmentation"
PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class DemoOptions:
    """What the user asked for. Times are in s; `fps` is that of a folder of images."""

    source: Path | None
    frames: int | None
    topic: str | None
    out: Path
    fps: float = DEFAULT_FPS
    timeout_s: float = 20.0
    start_timeout_s: float = 90.0

    def __post_init__(self) -> None:
        """Raises ConfigError where a value does not fit."""
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"{self.frames} frames cannot be replayed; give a number above 0")
        for name, value in (
            ("fps", self.fps),
            ("timeout", self.timeout_s),
            ("start timeout", self.start_timeout_s),
        ):
            if not 0 < value < float("inf"):
                raise ConfigError(f"the {name} is {value}; give a number above 0")


def run_demo(options: DemoOptions, console: Console) -> DemoReport:
    """Do the whole job but the page.

    Raises:
        DataError, ConfigError: the source or an option does not fit.
        CamSegError: the node could not be reached at all.
    """
    folder = DemoFolder(options.out)
    if options.source is not None and not options.source.exists():
        raise DataError(
            f"{options.source} does not exist; name a bag, a video or a folder of images"
        )
    own_bag = options.source if options.source is not None and is_bag(options.source) else None
    if own_bag:
        ImageBag(own_bag, options.topic).close()  # complain before the last run's results are gone
    elif options.topic is not None:
        raise ConfigError(
            f"the topic {options.topic} was named, but {options.source or 'the synthetic drive'} is not a bag; leave it out"
        )
    frames = None if own_bag else _frames(options)
    folder.prepare(options.source)
    with _progress(console) as progress:
        if frames is not None:
            write_bag(
                progress.track(frames, total=frames.count, description=f"bag of {frames.title}"),
                folder.bag,
            )
        with ImageBag(own_bag or folder.bag, options.topic) as bag:
            count = (
                bag.count
                if options.source is None
                else min(bag.count, options.frames or MOST_FRAMES)
            )
            replayed = _replay(options, folder, bag, count, progress)
            video = _write_video(folder, bag, progress)
            return _report(options, folder, bag, count, replayed, video)


@dataclass
class _Replayed:
    """What is known after the replay, whether it came to its end or not."""

    tally: Tally
    failures: list[str]
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    last_lines: str = ""
    node: dict[str, dict[str, str]] | None = None


def _frames(options: DemoOptions) -> FrameSource:
    """The frames to make a bag of."""
    if options.source is None:
        return synthetic_frames(options.frames or SYNTHETIC_FRAMES, options.fps)
    return open_frames(options.source, options.fps).first(options.frames or MOST_FRAMES)


def _replay(
    options: DemoOptions, folder: DemoFolder, bag: ImageBag, count: int, progress: Progress
) -> _Replayed:
    """Start the node and send it `count` images of the bag."""
    tally = Tally(show={round(i) for i in np.linspace(0, count - 1, SHOWN_FRAMES)})
    replayed = _Replayed(tally, [])
    domain = free_domain()
    env = ros_environment(domain, folder.log, os.environ)
    os.environ.update(env)  # this process publishes the images, and needs the same transport
    decode = _Decoder(bag.compressed)
    starting = progress.add_task("start of the node", total=None)
    topics = Topics()
    with (
        NodeProcess(
            segmentation_command(topics.image, bag.compressed), env, folder.log / "node_output.log"
        ) as node,
        Replay(domain, bag.compressed, topics) as replay,
    ):
        try:
            replay.wait_for_node(_first_size(bag), options.start_timeout_s, node.check)
            progress.update(starting, total=1, completed=1)
            started = time.monotonic()
            results = replay.play(_first(bag, count), options.timeout_s, node.check)
            for result in progress.track(results, total=count, description="replay over DDS"):
                tally.add(result, decode(result))
                if result.overlay is not None:
                    cv2.imwrite(
                        str(folder.overlay(result.image.index)),
                        cv2.cvtColor(result.overlay, cv2.COLOR_RGB2BGR),
                    )
                replayed.seconds = time.monotonic() - started
            replay.watch(DIAGNOSTICS_S, node.check)
        except NodeDied as error:
            replayed.failures.append(str(error))
            replayed.last_lines = error.last_lines
        except DataError as error:  # the bag is damaged from here on; what came before counts
            replayed.failures.append(str(error))
        replayed.peak_memory_bytes = node.peak_memory_bytes
        replayed.node = {
            name: values for name, values in replay.diagnostics.items() if NODE_NAME in name
        }
        _judge(replayed, replay, count, options.timeout_s)
    return replayed


def _judge(replayed: _Replayed, replay: Replay, count: int, timeout_s: float) -> None:
    """Add what was wrong to the failures."""
    tally, failures = replayed.tally, replayed.failures
    if tally.sent < count:
        failures.append(f"the replay ended after {tally.sent} of {count} frames")
    if tally.lost:
        late = f", {replay.late} of them came later" if replay.late else ""
        failures.append(
            f"{tally.lost} of {tally.sent} frames did not come back within {timeout_s:g} s{late}"
        )
    if not tally.answered and not failures:
        failures.append("not one frame of the source is a readable image")
    if replay.strays:
        failures.append(f"masks with a stamp that was never sent: {replay.strays}")
    failures += tally.problems[:PROBLEMS_SHOWN]
    if len(tally.problems) > PROBLEMS_SHOWN:
        failures.append(
            f"{len(tally.problems) - PROBLEMS_SHOWN} more frames had problems like these"
        )


class _Decoder:
    """The camera's picture of a frame, where it is needed: to be shown, or to know why it was lost."""

    def __init__(self, compressed: bool) -> None:
        self._compressed = compressed
        self._converter = choose_converter()

    def __call__(self, result: FrameResult) -> npt.NDArray[np.uint8] | None:
        """RGB `(H, W, 3)`, or None where the message holds no readable picture."""
        try:
            if self._compressed:
                return compressed_to_rgb(result.image.message, MAX_IMAGE_BYTES)
            return image_to_rgb(result.image.message, self._converter, MAX_IMAGE_BYTES)
        except ImageError:
            return None


def _first(bag: ImageBag, count: int) -> Iterator[BagImage]:
    for image in bag:
        if image.index == count:
            return
        yield image


def _first_size(bag: ImageBag) -> tuple[int, int]:
    """Width and height of the first image that says so."""
    return next((size for image in bag if (size := image.size) and min(size) > 0), (64, 48))


def _write_video(folder: DemoFolder, bag: ImageBag, progress: Progress) -> str | None:
    overlays = sorted(folder.overlays.glob("frame_*.png"))
    fps = 1e3 / bag.interval_ms if bag.interval_ms else DEFAULT_FPS
    pictures = progress.track(overlays, description="video of the overlays")
    return folder.video.name if write_video(pictures, folder.video, fps) else None


def _report(
    options: DemoOptions,
    folder: DemoFolder,
    bag: ImageBag,
    count: int,
    replayed: _Replayed,
    video: str | None,
) -> DemoReport:
    settings: dict[str, object] = {
        "SOURCE": options.source,
        "TOPIC": options.topic,
        "FRAMES": options.frames,
    }
    settings["OUT"] = options.out if options.out != DEFAULT_OUT else None
    settings["FPS"] = options.fps if options.fps != DEFAULT_FPS else None
    again = [
        "make",
        "demo",
        *(f"{name}={value}" for name, value in settings.items() if value is not None),
    ]
    source = (
        "the synthetic drive"
        if options.source is None
        else "/".join(options.source.resolve().parts[-2:])
    )
    if count < bag.count:
        source += f" (the first {count} of {bag.count} images)"
    return DemoReport(
        source=source,
        synthetic=options.source is None,
        tally=replayed.tally,
        failures=replayed.failures,
        seconds=replayed.seconds,
        interval_ms=bag.interval_ms,
        peak_memory_bytes=replayed.peak_memory_bytes,
        video=video,
        overlays=folder.overlays.name,
        bag=folder.bag.name if folder.bag.is_dir() else str(options.source),
        again=shlex.join(again),
        machine=describe_machine(),
        node=replayed.node or {},
        last_lines=replayed.last_lines,
    )


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress
