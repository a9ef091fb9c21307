"""Unlabelled frames, one at a time, from a folder of images, a video or the synthetic drive."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.data.folders import visible
from camseg_core.data.image_files import read_rgb
from camseg_core.data.image_header import several_pictures
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_core.labels import UNLABELLED

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_UNREAD = (
    ".gif",
    ".heic",
    ".heif",
    ".avif",
    ".jp2",
    ".jxl",
    ".exr",
    ".hdr",
    ".dng",
    ".raw",
    ".svg",
)
"""Endings of pictures that OpenCV does not read everywhere, or not as 8-bit colours."""

START_NS = 1_000_000_000
"""Stamp in ns of the first frame of a source without a clock; not 0, ROS's "no time set"."""

DEFAULT_FPS = 10.0


@dataclass(frozen=True)
class SourceFrame:
    """One camera frame: its time in ns, RGB `(H, W, 3)` uint8, and its name within the source."""

    stamp_ns: int
    image: npt.NDArray[np.uint8]
    name: str


@dataclass(frozen=True)
class FrameSource:
    """Frames in time order, read anew by every iteration.

    `count` is their number; for a video, the number in its header, which may be wrong, or 0 if
    there is none. `fps` is in frames per second.
    """

    title: str
    count: int
    fps: float
    read: Callable[[], Iterator[SourceFrame]]

    def __iter__(self) -> Iterator[SourceFrame]:
        return self.read()

    def first(self, limit: int) -> "FrameSource":
        """Return this source, ending after `limit` frames."""
        return FrameSource(
            self.title,
            min(limit, self.count or limit),
            self.fps,
            lambda: islice(self.read(), limit),
        )


LeaveOut = Callable[[DataError], None]
"""Called with the error of an image that cannot be read and is therefore left out."""


def open_frames(
    path: Path, fps: float = DEFAULT_FPS, leave_out: LeaveOut | None = None
) -> FrameSource:
    """Open the frames of a folder of images, a single image or a video file.

    Args:
        path: an existing folder or file.
        fps: frames per second of a folder of images; a video has its own.
        leave_out: see `image_frames`.

    Raises:
        DataError: the path has neither images nor a video that can be read.
        ConfigError: `fps` is not positive.
    """
    if path.is_dir():
        return image_frames(find_images(path), fps, path.name or str(path), leave_out)
    if not path.exists():
        raise DataError(
            f"{path} does not exist; name an image, a video, a folder of images or a bag"
        )
    if not path.is_file():  # a pipe would block
        raise DataError(f"{path} must be a regular file or a folder")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return image_frames([path], fps, path.name, leave_out)
    return video_frames(path)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `frame2` before `frame10` and ignores case."""
    parts = re.split(r"([0-9]+)", name)
    return [
        (int(part), "") if part.isdecimal() and part.isascii() else (-1, part.casefold())
        for part in parts
    ]


def find_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, in natural order, without hidden files.

    Raises:
        DataError: there are none, or a sub-folder has more; the message names it.
    """
    found = _images_in(folder)
    counts = {sub: len(_images_in(sub)) for sub in sorted(folder.iterdir())}
    inside = max(counts, key=lambda sub: counts[sub], default=folder)
    most = counts.get(inside, 0)
    if found and (most > len(found) or most == len(found) == 1):
        raise DataError(
            f"{folder} has {len(found)} image(s), its folder {inside} has {most}: "
            "name the folder that you mean, or move the others away"
        )
    if not found:
        remedy = "name a folder with images, a bag or a video"
        if most:
            remedy = f"its folder {inside} has some: name that one"
        kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise DataError(f"no images ({kinds}) in {folder}; {remedy}")
    if others := sorted(visible(folder.iterdir(), *_UNREAD)):
        first, count = others[0], len(others)
        logger.warning("images of kinds that are not read, left out: %d, first %s", count, first)
    return found


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = visible(folder.iterdir(), *IMAGE_SUFFIXES)
    return sorted(found, key=lambda path: natural_key(path.name))


def image_frames(
    files: Sequence[Path], fps: float, title: str, leave_out: LeaveOut | None = None
) -> FrameSource:
    """Return image files as frames, `fps` of them per second.

    With `leave_out`, files that cannot be read are skipped, and their stamps with them, and it is
    called with the error of each. Without it, the first error is raised.

    Raises:
        ConfigError: `fps` is not positive.
        DataError: (while reading) a file is not a readable image.
    """
    if not fps > 0:
        raise ConfigError(f"the rate must be above 0 frames per second, got {fps:g}")
    said = set[Path]()  # once, however often the files are read

    def read() -> Iterator[SourceFrame]:
        for i, path in enumerate(files):
            try:
                image = read_rgb(path)
            except DataError as error:
                if leave_out is None:
                    raise
                leave_out(error)
                continue
            if path not in said and several_pictures(path.read_bytes()):
                said.add(path)
                logger.warning("%s holds several images: only the first is read", path)
            yield SourceFrame(_stamp(i, fps), image, path.name)

    return FrameSource(title, len(files), fps, read)


class Unlabelled(Samples):
    """Images as samples without labels: of files, or of other samples, whose labels are dropped."""

    def __init__(self, images: Sequence[Path] | Samples) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        found = self._images[index]
        if isinstance(found, Sample):
            image, name = found.image, found.name
        else:
            image, name = read_rgb(found), found.name
        return Sample(image, np.full(image.shape[:2], UNLABELLED, np.uint8), name)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def video_frames(path: Path) -> FrameSource:
    """Return the frames of a video file at its own rate, up to its end.

    Logs a warning at the end if their number differs from the header's.

    Raises:
        DataError: the file is not a video that OpenCV can read, or it has no frame.
    """
    with _name_for_opencv(path) as name:
        capture = cv2.VideoCapture(name)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    readable = capture.isOpened() and capture.grab()
    capture.release()
    if not readable:
        raise DataError(
            f"{path} cannot be read as a video; name an image in JPEG or PNG, a video such as "
            "H.264 in .mp4, a folder of images or a bag"
        )
    if not fps > 0:  # some containers have no rate
        logger.warning("%s has no frame rate: assuming %g frames a second", path, DEFAULT_FPS)
        fps = DEFAULT_FPS
    said = set[Path]()  # once, however often the video is read

    def read() -> Iterator[SourceFrame]:
        with _name_for_opencv(path) as name:
            capture = cv2.VideoCapture(name)
        try:
            i = 0
            while True:
                more, image = capture.read()
                if not more:
                    break
                yield SourceFrame(
                    _stamp(i, fps),
                    np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
                    f"{path.stem}:{i:06}",
                )
                i += 1
        finally:
            capture.release()
        if count and i != count and not said:
            said.add(path)
            logger.warning("%s: its header claims %d frames, %d could be read", path, count, i)

    return FrameSource(path.name, count, fps, read)


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    """Yield a UTF-8 name of the file, as OpenCV needs it; the name is valid inside the block."""
    try:
        str(path).encode()
        yield str(path)
    except UnicodeEncodeError:
        file = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{file}"
        finally:
            os.close(file)


def synthetic_frames(frames: int, fps: float = DEFAULT_FPS, seed: int = 0) -> FrameSource:
    """Return the frames of the synthetic drive, 480x360."""
    drive = SyntheticDrive(frames=frames, seed=seed, fps=fps)

    def read() -> Iterator[SourceFrame]:
        for i in range(len(drive)):
            sample = drive[i]
            yield SourceFrame(START_NS + drive.stamp_ns(i), sample.image, sample.name)

    return FrameSource("synthetic drive", len(drive), fps, read)


def _stamp(i: int, fps: float) -> int:
    return START_NS + round(i * 1e9 / fps)
