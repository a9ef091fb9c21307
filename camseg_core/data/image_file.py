"""Read image files into arrays; refuse damaged ones, whose gaps a decoder would fill silently."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB `(H, W, 3)`.

    Raises:
        DataError: see `read_unchanged`.
    """
    return np.asarray(cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def read_unchanged(path: Path) -> npt.NDArray[np.uint8 | np.uint16]:
    """Read a picture as stored: `(H, W)` for one channel, else `(H, W, C)`; bit depth of the file.

    Raises:
        DataError: the file cannot be opened, is empty, cut off, damaged, or not an image; the
            message names it.
    """
    return _decode(path, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, flags: int) -> npt.NDArray[np.uint8 | np.uint16]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise DataError(f"{path} is empty (0 bytes): copy it again")
    if _is_cut_off(content):
        raise DataError(f"{path} is cut off: its end is missing; copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # for example a header with more pixels than OpenCV accepts
        image = None
    if image is None:
        raise DataError(
            f"cannot read {path}: it is damaged or not an image; "
            "copy it again, or move it out of the folder"
        )
    return np.asarray(image)


def _is_cut_off(content: bytes) -> bool:
    """Whether the end is missing, which OpenCV does not report: libjpeg fills the rest with grey.

    A JPEG is whole if the end marker follows its last scan: the marker cannot occur in a scan, and
    a thumbnail in the header ends before it.
    """
    if content.startswith(_JPEG):
        return content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
    return content.startswith(_PNG) and _PNG_END not in content
