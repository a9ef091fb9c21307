"""A short video of pictures, in a format that browsers play."""

import logging
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

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
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
        writer.release()
        path.unlink(missing_ok=True)
    logger.warning("this OpenCV has no video encoder (%s); the demo leaves no video", ", ".join(CODECS))
    return None


def _even_size(picture: npt.NDArray[np.generic]) -> tuple[int, int]:
    """The video's width and height: video codecs halve the colour's resolution, so both are even."""
    height, width = picture.shape[:2]
    scale = min(1.0, WIDEST / width)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
