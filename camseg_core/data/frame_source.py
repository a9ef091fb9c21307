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
from camseg_core.data.folders import refuse_bag, visible
from camseg_core.data.image_files import read_rgb
from camseg_core.data.image_header import several_pictures
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_core.labels import UNLABELLED

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")

MISSING_FRAMES, MISSING_SHARE = 2, 0.02
"""How many frames of those in a video's header may be missing: some headers are estimates."""

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
"""Called with the error of an image, or of the end of a video, that is therefore left out."""


def open_frames(
    path: Path, fps: float = DEFAULT_FPS, leave_out: LeaveOut | None = None
) -> FrameSource:
    """Open the frames of a folder of images, a single image or a video file.

    Args:
        path: an existing folder or file.
        fps: frames per second of a folder of images; a video has its own.
        leave_out: see `image_frames` and `video_frames`.

    Raises:
        DataError: the path has neither images nor a video that can be read.
        ConfigError: `fps` is not positive.
    """
    if path.is_dir():
        return image_frames(find_images(path), fps, path.name or str(path), leave_out)
    if not path.exists():
        what = "does not exist"
        if re.match(r"[a-z]+:/", str(path)):
            what = "is an address, which is not read: download it first"
        raise DataError(f"{path} {what}; name an image, a video or a folder of images")
    if not path.is_file():  # a pipe would block
        raise DataError(f"{path} must be a regular file or a folder")
    refuse_bag(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return image_frames([path], fps, path.name, leave_out)
    return video_frames(path, leave_out)


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
    fullest = max(counts, key=lambda sub: counts[sub], default=folder)
    most = counts.get(fullest, 0)
    if found and (most > len(found) or most == len(found) == 1):
        raise DataError(
            f"{folder} has {len(found)} image(s), its folder {fullest} has {most}: "
            "name the folder that you mean, or move the others away"
        )
    if not found:
        refuse_bag(folder)
        remedy = "name a folder with images, or a video"
        if most:
            remedy = f"its folder {fullest} has some: name that one"
        kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise DataError(f"no images ({kinds}) in {folder}; {remedy}")
    if others := sorted(visible(folder.iterdir(), *_UNREAD)):
        _warn_once(f"images of kinds that are not read, left out: {len(others)}, first {others[0]}")
    if inside := sum(counts.values()):
        names = ", ".join(sub.name for sub, count in counts.items() if count)
        _warn_once(f"images in folders of {folder} are not read, left out: {inside}, in {names}")
    return found


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    """Log a warning, once in a process: commands look into a folder before and during the work."""
    if text not in _warned:
        _warned.add(text)
        logger.warning("%s", text)


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

    def read() -> Iterator[SourceFrame]:
        for i, path in enumerate(files):
            try:
                image = read_rgb(path)
            except DataError as error:
                if leave_out is None:
                    raise
                leave_out(error)
                continue
            if several_pictures(path.read_bytes()):
                _warn_once(f"{path} holds several images: only the first is read")
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


def video_frames(path: Path, leave_out: LeaveOut | None = None) -> FrameSource:
    """Return the frames of a video file at its own rate, up to its end.

    Logs a warning at the end if their number differs from the header's, which is an estimate in
    some formats.

    Raises:
        DataError: the file is not a video that OpenCV can read, or it has no frame; (at the end)
            more than `MISSING_FRAMES` and `MISSING_SHARE` are missing, unless `leave_out` takes the
            error.
    """
    with _name_for_opencv(path) as name:
        capture = cv2.VideoCapture(name)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    readable = capture.isOpened() and capture.grab()
    capture.release()
    if not readable:
        remedy = "name an image in JPEG or PNG, a video (H.264 in .mp4) or a folder of images"
        if path.suffix.lower() in VIDEO_SUFFIXES:
            remedy = (
                "it is cut off, damaged or of a kind that this OpenCV lacks; copy it again, or "
                "convert it to H.264 in .mp4"
            )
        raise DataError(f"{path} cannot be read as a video: {remedy}")
    if not fps > 0:  # some containers have no rate
        logger.warning("%s has no frame rate: assuming %g frames a second", path, DEFAULT_FPS)
        fps = DEFAULT_FPS

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
        text = f"{path}: its header claims {count} frames, {i} could be read"
        if count - i > max(MISSING_FRAMES, MISSING_SHARE * count):
            error = DataError(f"{text}; the end is cut off or damaged: copy the video again")
            if leave_out is None:
                raise error
            leave_out(error)
        elif count and i != count:
            _warn_once(text)

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
