"""What the values of image files mean: how many bits they fill, and what decoders make of few."""

import re

import numpy as np
import numpy.typing as npt

CAMERA_BITS = (10, 12, 14)
"""Bits of cameras that give 16-bit images without filling their range."""

_DARK = 255
"""Brightest value up to which a 16-bit image says nothing about the camera's bits."""

_PNG, _PNG_DEPTH, _PNG_COLORS, _GREY = b"\x89PNG\r\n\x1a\n", 24, 25, 0

_PNM = re.compile(rb"P([2356])(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,5})\s")
"""PGM and PPM, as text (2, 3) or binary (5, 6): width, height, and the value of white."""

_PNM_HEADER = 4096
"""Bytes in which the numbers of a PGM or PPM are looked for; comments may be long."""


def white_of(brightest: int) -> int | None:
    """Return white of a camera with fewer than 16 bits that explains the largest value in images.

    None if these fill the range, or are too dark to decide.
    """
    white = next((2**bits - 1 for bits in CAMERA_BITS if brightest < 2**bits), None)
    return white if brightest > _DARK else None


def stated_white(content: bytes) -> int | None:
    """Return the value of white that a file states, which only PGM and PPM do; None for others."""
    found = _PNM.match(content[:_PNM_HEADER])
    return max(1, int(found[2])) if found else None


def stored_ids(ids: npt.NDArray[np.integer], content: bytes) -> npt.NDArray[np.integer]:
    """Return the ids that a file stores, given what OpenCV decodes from its `content`.

    Where values have fewer than 8 bits, it spreads them to 0..255: those of grey PNG files, and of
    PGM files that are text.
    """
    if content.startswith(_PNG) and content[_PNG_COLORS : _PNG_COLORS + 1] == bytes([_GREY]):
        bits = content[_PNG_DEPTH] % 8
        return ids // (255 // (2**bits - 1)) if bits else ids
    white = stated_white(content)
    if white is not None and white < 255 and content[1:2] == b"2":
        stored = np.zeros(256, np.uint8)
        stored[np.arange(white + 1) * 255 // white] = np.arange(white + 1)
        return np.asarray(stored[ids])
    return ids


def eight_bits(pixels: npt.NDArray[np.uint8 | np.uint16], content: bytes) -> npt.NDArray[np.uint8]:
    """Return decoded pixels with 255 as white; in files of 16 bits that state none, it is 65535."""
    white = stated_white(content)
    if pixels.dtype == np.uint8:
        if white is None or white >= 255 or content[1:2] in b"23":  # text is spread already
            return np.asarray(pixels, np.uint8)
        return np.asarray(np.minimum(pixels.astype(np.uint16) * 255 // white, 255), np.uint8)
    if white is None or white == 65535:
        return np.asarray(pixels >> 8, np.uint8)
    return np.asarray(np.minimum(pixels.astype(np.uint32) * 255 // white, 255), np.uint8)
