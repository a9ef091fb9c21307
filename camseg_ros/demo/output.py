"""The demo's output folder and its video."""

import logging
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

logger = logging.getLogger(__name__)

CODECS = ("vp09", "mp4v")
"""VP9 plays in every current browser, and OpenCV's wheels can encode it but not H.264. MPEG-4
part 2, for builds of OpenCV without VP9, plays in video players only."""

MAX_WIDTH = 960
"""A wider video is scaled down to this, in pixels."""

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
        if source is not None and source.resolve().is_relative_to(path.resolve()):
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
    writer, size = None, (0, 0)
    for file in pictures:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:  # removed meanwhile
            continue
        if writer is None:
            size = _video_size(picture)
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


def _video_size(picture: npt.NDArray[np.generic]) -> tuple[int, int]:
    """Return width and height, both even because codecs halve the resolution of colours."""
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_WIDTH / width)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
