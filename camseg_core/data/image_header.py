"""Reads what an image file says besides its pixels: damage, orientation, palette."""

import logging
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from camseg_core.bit_depth import stated_white
from camseg_core.errors import is_out_of_memory
from camseg_core.jpeg import simplejpeg

logger = logging.getLogger(__name__)

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_JPEG_APP1, _EXIF = b"\xe1", b"Exif\0\0"
_JPEG_MARK = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""Ends a scan or begins a segment; stuffed bytes and restarts do not."""

_CUT_OFF = "is cut off: its end is missing"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_PNG_SIZE, _PNG_COLORS = 16, 25
_PALETTE = 3
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", _PNG_END, b"eXIf")
"""Chunks on which pixels, and how they are turned, depend."""

_VAST = 1 << 28
"""Pixels of a picture that may be damaged, or too large."""

_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _BITS, _COMPRESSION, _PHOTOMETRIC = 0x0112, 0x0102, 0x0103, 0x0106
_BLACK_IS_ZERO, _RGB = 1, 2
_LOSSLESS = (None, 1, 5, 8, 32773, 32946)
"""Compressions of TIFF without loss: none, LZW, deflate, PackBits, deflate by its old number."""


def damage(content: bytes) -> str:
    """Return what is wrong with a file that OpenCV may decode without an error; empty if nothing.

    OpenCV fills the missing pixels of a JPEG, and those after an error in its data, with grey or
    noise.
    """
    if is_jpeg(content):
        return _jpeg_damage(content)
    return _png_damage(content) if content.startswith(_PNG) else ""


def _jpeg_damage(content: bytes) -> str:
    """Other data may follow the end, such as the film of a motion photo."""
    turbo = _simplejpeg()
    if turbo is None:
        return "" if _jpeg_ends(content) else _CUT_OFF
    warning = _decoder_warning(content, turbo)
    if "Premature end" in warning:
        return _CUT_OFF
    return f"is damaged ({warning})" if warning else ""


def _jpeg_ends(content: bytes) -> bool:
    """Return whether the end marker follows the segments and scans of a JPEG."""
    at = len(_JPEG) - 1
    while mark := _JPEG_MARK.search(content, at):
        if mark[0].endswith(_JPEG_END[1:]):
            return True
        at = mark.end() + int.from_bytes(content[mark.end() : mark.end() + 2], "big")
    return False


def _png_damage(content: bytes) -> str:
    view, kind = memoryview(content), b""
    for kind, chunk in _chunks(content):
        if kind in _PNG_PIXELS and zlib.crc32(view[chunk][4:-4]) != _number(
            content, chunk.stop - 4
        ):
            return f"is damaged (the checksum of its {kind.decode()} data is wrong)"
    return "" if kind == _PNG_END else _CUT_OFF


def _chunks(content: bytes) -> Iterator[tuple[bytes, slice]]:
    """Yield the kind of each whole chunk of a PNG up to its end, and where all of it is."""
    at, kind = len(_PNG), b""
    while kind != _PNG_END and at + 12 <= len(content):
        kind, end = content[at + 4 : at + 8], at + 12 + _number(content, at)
        if end > len(content):
            break
        yield kind, slice(at, end)
        at = end


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")


def pixels_only(content: bytes) -> bytes:
    """Return a PNG without notes such as colour profiles, of which libpng prints what is odd.

    OpenCV does not use them. Other files are returned as they are.
    """
    if not content.startswith(_PNG):
        return content
    chunks = [*_chunks(content)]
    kept = [at for kind, at in chunks if kind in _PNG_PIXELS and not _odd_tags(content, kind, at)]
    return (
        content if len(kept) == len(chunks) else b"".join([_PNG, *map(content.__getitem__, kept)])
    )


def _odd_tags(content: bytes, kind: bytes, at: slice) -> bool:
    """Return whether a chunk of tags does not begin as tags do; libpng ignores it."""
    return kind == b"eXIf" and content[at.start + 8 : at.start + 12] not in _TIFF


_printing = threading.Lock()
_PRINTED = re.compile(
    r"\[ ?(?:ERROR|WARN):.*?\] global \S+ \S+ (?:TIFF_\w+ )?(?P<log>.*)"
    r"|(?:libpng|Corrupt JPEG|Premature end|Invalid SOS|>) .*|$"
)


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Collect the errors that OpenCV and its libraries print inside; the list is filled at the end.

    Lines of others are printed then. stderr is the process's: one thread at a time is inside.
    """
    found = list[str]()
    if sys.stderr is None:
        yield found
        return
    with _printing:
        sys.stderr.flush()
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        printed, terminal = os.memfd_create("stderr"), os.dup(2)
        os.dup2(printed, 2)
        try:
            yield found
        finally:
            os.dup2(terminal, 2)
            cv2.utils.logging.setLogLevel(level)
            text = os.pread(printed, os.fstat(printed).st_size, 0).decode(errors="replace")
            for line in text.splitlines(keepends=True):
                if message := _PRINTED.match(line):
                    found.append(message["log"] or message[0])  # the rest continues an error
                else:
                    os.write(terminal, line.encode())
            os.close(printed)
            os.close(terminal)


def decode(content: bytes, flags: int) -> tuple[Any, str]:
    """Decode an image file, unless its data are damaged.

    Returns:
        OpenCV's array, or None if there is none, and what is wrong with the file, if it is known.

    Raises:
        cv2.error: OpenCV runs out of memory.
    """
    problem = damage(content)
    if problem:
        return None, problem
    # other threads, as of a training, decode at the same time, but only what is checked already
    alone = threading.current_thread() is threading.main_thread() or size_of(content) is None
    try:
        with decoder_messages() if alone else nullcontext(list[str]()) as messages:
            image = cv2.imdecode(np.frombuffer(pixels_only(content), np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            hint = "scale it down, or set OPENCV_IO_MAX_IMAGE_PIXELS"
            return None, f"has more pixels than OpenCV reads: {hint}"
        if is_out_of_memory(error):
            raise
        return None, ""
    problem = next((each for each in messages if not each.startswith("imdecode_")), "")
    return image, f"is damaged ({problem})" if problem else ""


def size_of(content: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG or PNG as it is read, turned.

    None for other files, and for sizes that are doubtful until the file is decoded.
    """
    height = width = 0
    if content.startswith(_PNG) and len(content) > _PNG_COLORS:
        width, height = (_number(content, _PNG_SIZE + i) for i in (0, 4))
    elif is_jpeg(content) and (turbo := _simplejpeg()) is not None:
        with suppress(ValueError):
            height, width = turbo.decode_jpeg_header(content)[:2]
    if not 0 < height * width < _VAST:
        return None
    return (width, height) if orientation(content) > 4 else (height, width)


def is_jpeg(content: bytes) -> bool:
    """Return whether this is a JPEG file, which does not keep class ids."""
    return content.startswith(_JPEG)


def _decoder_warning(content: bytes, turbo: ModuleType) -> str:
    """Return the first warning or error of libjpeg, which OpenCV would at most print."""
    try:
        color = turbo.decode_jpeg_header(content)[2]
    except ValueError:
        return ""  # OpenCV decides whether this is an image at all
    try:
        # at an eighth of the size: all data are read, little is computed
        turbo.decode_jpeg(
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
        return " ".join(str(error).split())
    return ""


@cache
def _simplejpeg() -> ModuleType | None:
    """Return the package, or None with a warning, once."""
    found = simplejpeg()
    if found is None:
        logger.warning("damage within JPEG files goes unnoticed: pip install simplejpeg")
    return found


def orientation(content: bytes) -> int:
    """Return the orientation tag of a JPEG, PNG, WebP or TIFF file: 1 to 8, as in EXIF 2.3.

    Upright is 1, also without a tag; `cv2.imdecode` turns other images by default.
    """
    value = _tag(content, _tags(content), _ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def keeps_ids(content: bytes) -> bool:
    """Return whether OpenCV, or `stored_ids` after it, returns the values that a label file stores.

    It does for PNG, PGM and PPM, and for TIFF of 8 or more bits without palette, inversion, JPEG
    compression or orientation tag. Other formats have palettes, or may be compressed with loss.
    """
    if content.startswith(_PNG) or stated_white(content) is not None:
        return True
    if content[:4] not in _TIFF:
        return False
    bits, kind, colors = (_tag(content, 0, tag) for tag in (_BITS, _COMPRESSION, _PHOTOMETRIC))
    plain = (bits or 1) >= 8 and kind in _LOSSLESS and colors in (_BLACK_IS_ZERO, _RGB)
    return plain and orientation(content) == 1


def _tag(content: bytes, at: int | None, number: int) -> int | None:
    """Return the first value of a tag of 16-bit numbers in the tags at `at`; None without it."""
    order = _TIFF.get(content[at : at + 4]) if at is not None else None
    if at is None or order is None:
        return None
    try:
        place = at + struct.unpack_from(f"{order}I", content, at + 4)[0]
        count = struct.unpack_from(f"{order}H", content, place)[0]
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", content, entry)[0] == number:
                values = struct.unpack_from(f"{order}I", content, entry + 4)[0]
                inside = entry + 8
                if values > 2:  # do not fit into the entry
                    inside = at + struct.unpack_from(f"{order}I", content, inside)[0]
                return int(struct.unpack_from(f"{order}H", content, inside)[0])
    except struct.error:  # the tags are cut off
        pass
    return None


def _tags(content: bytes) -> int | None:
    """Return where the file's tags begin, or None."""
    if content[:4] in _TIFF:
        return 0
    if is_jpeg(content):
        return _jpeg_tags(content)
    if content.startswith(_PNG):
        return next((at.start + 8 for kind, at in _chunks(content) if kind == b"eXIf"), None)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_tags(content)
    return None


def _jpeg_tags(content: bytes) -> int | None:
    """Return where the tags of the first Exif segment begin; notes before it may hold any bytes."""
    at = len(_JPEG) - 1
    while (mark := _JPEG_MARK.search(content, at)) and not mark[0].endswith(_JPEG_SCAN[1:]):
        at = mark.end() + int.from_bytes(content[mark.end() : mark.end() + 2], "big")
        if mark[0].endswith(_JPEG_APP1) and content.startswith(_EXIF, mark.end() + 2):
            return mark.end() + 2 + len(_EXIF)
    return None


def _webp_tags(content: bytes) -> int | None:
    """Return where the tags in the chunk of that name begin, with or without `Exif`."""
    at = 12
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if kind == b"EXIF":
            return at + 8 + len(_EXIF) * content.startswith(_EXIF, at + 8)
        at += 8 + size + size % 2
    return None


def several_pictures(content: bytes) -> bool:
    """Return whether an animated PNG or WebP, or a TIFF of several pages; only the first is read.

    Of other files, none that is read can hold several.
    """
    if content.startswith(_PNG):
        return content.find(b"acTL", 0, content.find(b"IDAT")) >= 0
    if content.startswith(b"RIFF") and content[8:16] == b"WEBPVP8X":
        return bool(content[20] & 2) if len(content) > 20 else False
    order = _TIFF.get(content[:4])
    try:
        place = struct.unpack_from(f"{order}I", content, 4)[0] if order else 0
        entries = struct.unpack_from(f"{order}H", content, place)[0] if order else 0
        after = place + 2 + 12 * entries
        return bool(order and struct.unpack_from(f"{order}I", content, after)[0])
    except struct.error:  # cut off
        return False


def has_palette(content: bytes) -> bool:
    """Return whether a PNG stores indices of colours; decoders return the colours."""
    return content.startswith(_PNG) and content[_PNG_COLORS : _PNG_COLORS + 1] == bytes([_PALETTE])
