"""Reads and writes image files, and decodes label files to train ids.

Damaged files are refused, because a decoder would fill their gaps silently.
"""

import logging
import stat
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.bit_depth import eight_bits, stated_white, stored_ids, white_of
from camseg_core.data.image_header import (
    damage,
    decode,
    has_palette,
    is_jpeg,
    keeps_ids,
    orientation,
    size_of,
)
from camseg_core.errors import DataError, memory_for

logger = logging.getLogger(__name__)

Raw = npt.NDArray[np.uint8 | np.uint16]
Ids = npt.NDArray[np.uint8]


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB `(H, W, 3)` uint8, turned by its orientation tag.

    White of a picture of 16 bits is 65535; one that looks dark because its camera has fewer bits is
    named in a warning, once in a process.

    Raises:
        DataError: the file cannot be opened, is empty, cut off, damaged, or not an image; the
            message names it.
    """
    rgb, brightest = read_rgb_and_brightest(path)
    white = white_of(brightest)
    if white is not None:
        _warn_once(f"{path}: {too_dark(white)}")
    return rgb


def read_rgb_and_brightest(path: Path) -> tuple[npt.NDArray[np.uint8], int]:
    """Read a picture as `read_rgb` does, without its warning, and the largest value of 16 bits.

    That is 0 if the file has fewer bits, or states what white is.
    """
    content = _content(path)
    try:
        pixels = _decode(path, content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except DataError:  # OpenCV turns no grey floats into colours
        _require_depth(path, _decode(path, content, cv2.IMREAD_UNCHANGED))
        raise
    _require_depth(path, pixels)
    unclear = pixels.dtype == np.uint16 and stated_white(content) is None
    bgr = eight_bits(pixels, content)
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    return rgb, int(pixels.max()) if unclear else 0


def _require_depth(path: Path, pixels: npt.NDArray[np.generic] | None) -> None:
    """Refuse numbers whose black and white are unknown."""
    if pixels is not None and pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} must have 8 or 16 bits a channel, without sign, got {pixels.dtype}: convert it"
        )


def too_dark(white: int) -> str:
    """Return what is wrong with image files whose values do not exceed `white`, and the remedy."""
    return (
        f"no value of its 16 bits is above {white}, so it is read as dark: multiply the values by "
        f"{65536 // (white + 1)}, or store images of 8 bits"
    )


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    """Log a warning, the first of its kind only."""
    if not _warned:
        _warned.add(text)
        logger.warning("%s", text)


def read_label(path: Path) -> npt.NDArray[np.uint8 | np.uint16]:
    """Read a label as stored: `(H, W)` for one channel, else `(H, W, C)`.

    Values have the file's 16 bits, or 8 for files with 8 or fewer.

    Raises:
        DataError: see `read_rgb`; also a format of which decoders change class ids, see
            `keeps_ids`.
    """
    content = _content(path)
    if is_jpeg(content):
        raise DataError(f"{path} is a JPEG, which changes class ids: store labels as PNG")
    label = _decode(path, content, cv2.IMREAD_UNCHANGED)
    if not keeps_ids(content):
        raise DataError(f"{path} is in a format that may change class ids: store labels as PNG")
    return label if label.ndim > 2 else np.asarray(stored_ids(label, content), label.dtype)


def size_of_rgb(path: Path) -> tuple[int, ...]:
    """Return height and width of a picture as `read_rgb` reads it; look for damage, as that does.

    Raises:
        DataError: see `read_rgb`.
    """
    content = _content(path)
    size = size_of(content)
    if size is None:
        return read_rgb(path).shape[:2]
    if problem := damage(content):
        raise _unreadable(path, problem)
    return size


def turned(path: Path) -> str:
    """Return a note on the orientation tag of a file, or an empty text if it is upright."""
    try:
        tag = orientation(_content(path))
    except DataError:
        tag = 1
    if tag == 1:
        return ""
    return (
        f"{path} has the EXIF orientation tag {tag}: images are turned when they are read, labels "
        "are not; store both upright without the tag"
    )


def is_palette_png(path: Path) -> bool:
    """Return whether a file is a PNG of indices of colours, which are read as these.

    Raises:
        DataError: the file cannot be read.
    """
    return has_palette(_content(path))


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            raise DataError(f"{path} must be a regular file")
        with memory_for(path):
            content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise DataError(f"{path} is empty (0 bytes): copy it again")
    return content


def _decode(path: Path, content: bytes, flags: int) -> npt.NDArray[np.uint8 | np.uint16]:
    with memory_for(path):
        image, problem = decode(content, flags)
    if image is None or problem:
        raise _unreadable(path, problem)
    return np.asarray(image)


def _unreadable(path: Path, problem: str) -> DataError:
    what = f"{path} {problem}" if problem else f"cannot read {path}: it is damaged or not an image"
    return DataError(f"{what}; copy it again, or move it out of the folder")


def write_image(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write RGB `(H, W, 3)` or ids `(H, W)` in the format of the path's suffix; make its folder.

    Raises:
        DataError: the file cannot be written.
    """
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    content = cv2.imencode(path.suffix, stored)[1].tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # OpenCV cannot write to names that are not UTF-8
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; name a folder that can be written"
        ) from error
