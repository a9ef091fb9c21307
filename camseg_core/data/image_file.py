"""Image files to arrays, refusing what a decoder would quietly make up."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """The picture in the file, RGB `(H, W, 3)`.

    Raises:
        DataError: as `read_unchanged`.
    """
    return np.asarray(cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def read_unchanged(path: Path) -> npt.NDArray[np.uint8 | np.uint16]:
    """What the file holds: `(H, W)` for one channel, else `(H, W, C)`, of the file's own depth.

    Raises:
        DataError: the file cannot be opened, is empty, cut off, damaged, or no image; the message names it.
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
    except cv2.error:  # such as a header that claims more pixels than OpenCV takes
        image = None
    if image is None:
        raise DataError(
            f"cannot read {path}: it is damaged or not an image; copy it again, or move it out of the folder"
        )
    return np.asarray(image)


def _is_cut_off(content: bytes) -> bool:
    """Whether the end is missing. libjpeg fills what is missing with grey and OpenCV does not tell; a JPEG is whole if its last scan is
    followed by the end marker, which cannot occur inside the scan (a thumbnail in the header ends before it)."""
    if content.startswith(_JPEG):
        return content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
    return content.startswith(_PNG) and _PNG_END not in content
