"""Where unlabelled frames come from: a folder of images, a video file, the synthetic drive. One frame in memory at a time."""

from __future__ import annotations  # cv2.typing came with OpenCV 4.8; Ubuntu 24.04 has 4.6

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.image_file import read_rgb
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cv2.typing import MatLike

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

START_NS = 1_000_000_000
"""The stamp of the first frame of a source without a clock, in ns: not 0, which ROS reads as "no time set"."""

DEFAULT_FPS = 10.0


@dataclass(frozen=True)
class Frame:
    """One camera frame: its time in ns, RGB `(H, W, 3)` uint8, and its name within the source."""

    stamp_ns: int
    image: npt.NDArray[np.uint8]
    name: str


@dataclass(frozen=True)
class FrameSource:
    """Frames in time order, read anew each time they are iterated.

    `count` is how many there are; for a video it is what the file's header claims. `fps` is in frames per second.
    """

    title: str
    count: int
    fps: float
    read: Callable[[], Iterator[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        return self.read()

    def first(self, limit: int) -> FrameSource:
        """This source, ending after `limit` frames."""
        return FrameSource(
            self.title, min(limit, self.count), self.fps, lambda: islice(self.read(), limit)
        )


def open_frames(path: Path, fps: float = DEFAULT_FPS) -> FrameSource:
    """The frames of a folder of images, a single image or a video file.

    Args:
        path: an existing folder or file.
        fps: frames per second of a folder of images; a video has its own.

    Raises:
        DataError: there is nothing here that can be read as images or as a video.
        ConfigError: `fps` is not positive.
    """
    if path.is_dir():
        return image_frames(find_images(path), fps, title=path.name or str(path))
    if not path.exists():
        raise DataError(f"{path} does not exist; name a bag, a video or a folder of images")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return image_frames([path], fps, title=path.name)
    return video_frames(path)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts `frame2` before `frame10`, and capitals with small letters."""
    parts = re.split(r"([0-9]+)", name)
    return [
        (int(part), "") if part.isdecimal() and part.isascii() else (-1, part.casefold())
        for part in parts
    ]


def find_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, in natural order; hidden files are left out.

    Raises:
        DataError: there are none; says where to look where a sub-folder has some.
    """

    def images(where: Path) -> list[Path]:
        return [
            p
            for p in where.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
        ]

    found = sorted(images(folder), key=lambda p: natural_key(p.name))
    if not found:
        inside = next(
            (sub for sub in sorted(folder.iterdir()) if sub.is_dir() and images(sub)), None
        )
        remedy = (
            f"its folder {inside} has some: name that one"
            if inside
            else "name a folder with images, a bag or a video"
        )
        raise DataError(
            f"no images ({', '.join(s[1:] for s in IMAGE_SUFFIXES)}) in {folder}; {remedy}"
        )
    return found


def image_frames(files: Sequence[Path], fps: float, title: str) -> FrameSource:
    """These image files as frames, `fps` of them per second.

    Raises:
        ConfigError: `fps` is not positive.
        DataError: (while reading) a file is not a readable image.
    """
    if not fps > 0:
        raise ConfigError(f"{fps} frames per second is not a rate; give a number above 0")

    def read() -> Iterator[Frame]:
        for i, path in enumerate(files):
            yield Frame(_stamp(i, fps), read_rgb(path), path.name)

    return FrameSource(title, len(files), fps, read)


def video_frames(path: Path) -> FrameSource:
    """The frames of a video file at its own rate.

    Raises:
        DataError: the file is not a video that OpenCV can read, or it has no frame.
    """
    capture = cv2.VideoCapture(str(path))
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    readable = capture.isOpened() and capture.grab()
    capture.release()
    if not readable:
        raise DataError(
            f"{path} cannot be read as a video; name a bag, a folder of images, or a video such as H.264 in .mp4"
        )
    if not fps > 0:  # some containers do not say
        fps = DEFAULT_FPS

    def read() -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(path))
        try:
            i = 0
            while True:
                more, image = capture.read()
                if not more:
                    return
                yield Frame(_stamp(i, fps), _rgb(image), f"{path.stem}:{i:06}")
                i += 1
        finally:
            capture.release()

    return FrameSource(path.name, max(count, 1), fps, read)


def synthetic_frames(frames: int, fps: float = DEFAULT_FPS, seed: int = 0) -> FrameSource:
    """The project's synthetic drive, 480 x 360."""
    drive = SyntheticDrive(frames=frames, seed=seed, fps=fps)

    def read() -> Iterator[Frame]:
        for i in range(len(drive)):
            sample = drive[i]
            yield Frame(START_NS + drive.stamp_ns(i), sample.image, sample.name)

    return FrameSource("synthetic drive", len(drive), fps, read)


def _stamp(i: int, fps: float) -> int:
    return START_NS + round(i * 1e9 / fps)


def _rgb(bgr: MatLike) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
