"""Reads what an image file says besides its pixels: damage, orientation, palette."""

import logging
import struct
from functools import cache
from types import ModuleType

logger = logging.getLogger(__name__)

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_DEPTH, _PNG_COLORS = 24, 25
_PALETTE = 3

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112


def damage(content: bytes) -> str:
    """Return what is wrong with a file that OpenCV may decode without an error; empty if nothing.

    OpenCV fills the missing pixels of a JPEG, and those after an error in its data, with grey or
    noise.
    """
    if is_jpeg(content):
        # the end marker cannot occur in a scan, and a thumbnail in the header ends before it
        if content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
            return "is cut off: its end is missing"
        return _decoder_warning(content)
    if content.startswith(_PNG) and _PNG_END not in content:
        return "is cut off: its end is missing"
    return ""


def is_jpeg(content: bytes) -> bool:
    """Return whether this is a JPEG file, which does not keep class ids."""
    return content.startswith(_JPEG)


def _decoder_warning(content: bytes) -> str:
    """Return the first warning or error of libjpeg, which OpenCV would at most print."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return ""
    try:
        color = simplejpeg.decode_jpeg_header(content)[2]
    except ValueError:
        return ""  # OpenCV decides whether this is an image at all
    try:
        # at an eighth of the size: all data are read, little is computed
        simplejpeg.decode_jpeg(
            content,
            colorspace="CMYK" if color == "CMYK" else "GRAY",
            fastdct=True,
            fastupsample=True,
            min_height=1,
            min_width=1,
            min_factor=8,
            strict=True,
        )
    except ValueError as error:
        return f"is damaged ({' '.join(str(error).split())})"
    return ""


@cache
def _simplejpeg() -> ModuleType | None:
    """Return the package, or None with a warning: rosdep does not have it."""
    try:
        import simplejpeg
    except ImportError:
        logger.warning("damage within JPEG files goes unnoticed: pip install simplejpeg")
        return None
    return simplejpeg


def orientation(content: bytes) -> int:
    """Return the orientation tag of a JPEG, PNG, WebP or TIFF file: 1 to 8, as in EXIF 2.3.

    Upright is 1, also without a tag; `cv2.imdecode` turns other images by default.
    """
    at = _tags(content)
    order = _TIFF.get(content[at : at + 4]) if at is not None else None
    if at is None or order is None:
        return 1
    try:
        place = at + struct.unpack_from(f"{order}I", content, at + 4)[0]
        count = struct.unpack_from(f"{order}H", content, place)[0]
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", content, entry)[0] == _ORIENTATION:
                value = int(struct.unpack_from(f"{order}H", content, entry + 8)[0])
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the tags are cut off
        pass
    return 1


def _tags(content: bytes) -> int | None:
    """Return where the file's tags begin, or None."""
    if content[:4] in _TIFF:
        return 0
    mark, after, end = b"", 0, len(content)
    if is_jpeg(content):
        mark, after, end = b"Exif\0\0", 6, content.find(_JPEG_SCAN)
    elif content.startswith(_PNG):
        mark, after = b"eXIf", 4
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        mark, after = b"EXIF", 8
    found = content.find(mark, 0, end) if mark else -1
    return found + after if found >= 0 else None


def has_palette(content: bytes) -> bool:
    """Return whether a PNG stores indices of colours; decoders return the colours."""
    return content.startswith(_PNG) and content[_PNG_COLORS : _PNG_COLORS + 1] == bytes([_PALETTE])
