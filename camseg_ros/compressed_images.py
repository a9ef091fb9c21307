"""`sensor_msgs/CompressedImage`, from a topic or a bag, to numpy arrays: JPEG, PNG and WebP.

What a message claims is checked before it is decoded. Needs no ROS, like `camseg_ros.images`.
"""

import re
import struct
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.bit_depth import stored_ids
from camseg_core.jpeg import simplejpeg
from camseg_ros.image_conversion import Converter, Pixels
from camseg_ros.images import (
    BYTES_PER_RGB_PIXEL,
    DEPTH,
    DEPTH_ENCODING,
    ENCODINGS,
    MAX_SHOWN,
    RAISE_LIMIT,
    BadImage,
    dark_range,
    depth_range,
    to_eight_bits,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_SCAN_START = 0xDA
JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})

NO_VIDEO = (
    "holds video, not an image; let the driver publish jpeg or png, or decode it with "
    "image_transport's republish"
)
VIDEO_FORMATS = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg4")
VIDEO_STARTS = (b"\0\0\0\1", b"\0\0\1")  # H.264 and H.265, Annex B

JPEG_DAMAGE = re.compile(
    r"Premature end|Corrupt JPEG data: (?!(?:[0-9]|1[0-6]) extraneous bytes before marker)"
)
"""libjpeg's warnings of pixels that are lost. The few bytes that some webcams write before a marker
cost none; after damage, there are usually more."""

UNSEEN_DAMAGE = (
    "damage within JPEG images is not noticed: the package simplejpeg is missing "
    "(pip install simplejpeg)"
)
"""What the node logs without the package."""


class CompressedFields(Protocol):
    """The fields of `sensor_msgs/CompressedImage` used here."""

    format: str
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Decoded:
    """A decoded message, not yet converted.

    Attributes:
        pixels: BGR `(H, W, 3)` or a Bayer mosaic `(H, W)`; uint8, or uint16 if the file has 16
            bits.
        encoding: of the image before it was compressed, as far as the message states it.
    """

    pixels: npt.NDArray[np.uint8 | np.uint16]
    encoding: str

    def to_rgb(self, converter: Converter, white: int = 0) -> Pixels:
        """Return RGB `(H, W, 3)` uint8.

        Args:
            converter: from `choose_converter`; for mosaics.
            white: value of white in 16 bits, up to 65535, which 0 stands for.

        Raises:
            ConfigError: no installed converter supports mosaics.
        """
        pixels: Pixels
        if self.pixels.dtype == np.uint16:
            pixels = to_eight_bits(np.asarray(self.pixels, np.uint16), white)
        else:
            pixels = np.asarray(self.pixels, np.uint8)
        if pixels.ndim == 2:
            height, width = pixels.shape
            return converter.to_rgb(pixels, ENCODINGS[self.encoding].converted_as, width, height)
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)

    def range_problem(self, brightest: int) -> tuple[str, int]:
        """Return the same as `images.range_problem`."""
        if self.pixels.dtype != np.uint16:
            return "", brightest
        if self.encoding == DEPTH_ENCODING:
            return depth_range(), brightest
        return dark_range("16-bit PNG", max(brightest, int(self.pixels.max())))


def decode_compressed(message: CompressedFields, max_bytes: int) -> Decoded:
    """Decode a JPEG, PNG or WebP message; an orientation tag is ignored.

    Args:
        message: a `sensor_msgs/CompressedImage`.
        max_bytes: size limit of the message and of the RGB image.

    Raises:
        BadImage: none of these, depth, damaged, cut short, or larger than `max_bytes` when decoded.
            Most damage within a JPEG, which has no checksum, is noticed if `simplejpeg` is
            installed; damage within a WebP is not.
    """
    data = np.frombuffer(message.data, np.uint8)
    if data.size > max_bytes:
        over = f"is over the limit of {max_bytes}"
        raise BadImage("too large", f"compressed image of {data.size} bytes {over}; {RAISE_LIMIT}")
    what = (
        f"compressed image ({message.format[:MAX_SHOWN] or 'no format given'}, {data.size} bytes)"
    )
    content, form = data.tobytes(), message.format.lower()
    if "compresseddepth" in form:
        raise BadImage("encoding", f"{what} {DEPTH}")
    if content.startswith(VIDEO_STARTS) or any(name in form for name in VIDEO_FORMATS):
        raise BadImage("encoding", f"{what} {NO_VIDEO}")
    found = compressed_size(content)
    if found is None:
        problem = "is neither JPEG, PNG nor WebP, or its header is damaged"
        raise BadImage("corrupt", f"{what} {problem}; publish jpeg or png")
    width, height, complete = found
    decoded = width * height * BYTES_PER_RGB_PIXEL
    if decoded > max_bytes:
        holds = f"holds {width}x{height} pixels, {decoded} bytes when decoded"
        raise BadImage("too large", f"{what} {holds}, over the limit of {max_bytes}; {RAISE_LIMIT}")
    if width < 1 or height < 1:
        raise BadImage("size", f"{what} has no pixels ({width}x{height})")
    if not complete:
        problem = "ends before the end of the image; the message was cut short"
        raise BadImage("truncated", f"{what} {problem}")
    # image_transport: "<encoding>; <codec> compressed <encoding in the file>", the last often empty
    encoding, _, rest = message.format.partition(";")
    encoding, stored = encoding.strip(), rest.partition("compressed")[2].strip()
    mosaic = encoding.startswith("bayer_") and stored in ("", encoding) and encoding in ENCODINGS
    if mosaic and min(width, height) < (side := ENCODINGS[encoding].min_side):
        needed = f"{encoding} needs at least {side} pixels each way"
        raise BadImage("size", f"{what} is too small to convert, {width}x{height}: {needed}")
    try:
        pixels = _pixels(content, mosaic)
    except (cv2.error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadImage("corrupt", f"{what} cannot be decoded: {reason}") from error
    if pixels is None:
        raise BadImage("corrupt", f"{what} cannot be decoded; its data are damaged")
    return Decoded(pixels, encoding)


def _pixels(content: bytes, mosaic: bool) -> npt.NDArray[np.uint8 | np.uint16] | None:
    """Decode into BGR `(H, W, 3)` or, for a grey image that holds a `mosaic`, `(H, W)`.

    None, cv2.error and ValueError stand for damaged data.
    """
    turbo, color = simplejpeg() if content.startswith(JPEG_START) else None, ""
    if turbo is not None:
        color = turbo.decode_jpeg_header(content)[2]
    if turbo is None or color == "CMYK":  # which libjpeg does not convert
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED if mosaic else flags
        )
        return None if pixels is None else np.asarray(pixels)
    order = "GRAY" if mosaic and color.lower() == "gray" else "BGR"
    try:
        pixels = turbo.decode_jpeg(content, colorspace=order, strict=True)
    except ValueError as error:
        if JPEG_DAMAGE.search(str(error)):
            raise
        pixels = turbo.decode_jpeg(content, colorspace=order, strict=False)
    return np.asarray(pixels[..., 0] if order == "GRAY" else pixels)


def compressed_to_ids(message: CompressedFields, max_bytes: int) -> Pixels:
    """Decode the class ids in a grey PNG, `(H, W)` uint8.

    Raises:
        BadImage: not a PNG with one 8-bit channel, damaged, cut short, or larger than `max_bytes`.
    """
    data = np.frombuffer(message.data, np.uint8)
    what = (
        f"compressed label ({message.format[:MAX_SHOWN] or 'no format given'}, {data.size} bytes)"
    )
    if data[:4].tobytes() != b"\x89PNG":
        raise BadImage("encoding", f"{what} is not a PNG; JPEG would change class ids")
    found = compressed_size(data.tobytes())
    if found is None or not found[2]:
        raise BadImage("truncated", f"{what} is damaged or cut short")
    if found[0] * found[1] > max_bytes:
        holds = f"holds {found[0]}x{found[1]} pixels, over the limit of {max_bytes} bytes"
        raise BadImage("too large", f"{what} {holds}; {RAISE_LIMIT}")
    ids = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if ids is None:
        raise BadImage("corrupt", f"{what} cannot be decoded; its data are damaged")
    if ids.ndim != 2 or ids.dtype != np.uint8:
        kind = "colours" if ids.ndim > 2 else ids.dtype
        needed = "labels must be class ids in one 8-bit channel"
        raise BadImage("encoding", f"{what} has {kind}; {needed}")
    return np.asarray(stored_ids(np.asarray(ids, np.uint8), data.tobytes()), np.uint8)


def compressed_size(data: bytes) -> tuple[int, int, bool] | None:
    """Return width and height in pixels of a JPEG, PNG or WebP, and whether its end is present.

    Reads only the header, so that a small message cannot cause a huge allocation. None if `data` is
    neither, or its header is damaged.
    """
    if data.startswith(PNG_SIGNATURE):
        if len(data) < 24 or data[12:16] != b"IHDR":
            return None
        width, height = struct.unpack(">II", data[16:24])
        return width, height, b"IEND" in data[-32:]
    if data.startswith(JPEG_START):
        return _jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    return None


def _webp_size(data: bytes) -> tuple[int, int, bool] | None:
    """Read the first chunk of a WebP: canvas (VP8X), lossless (VP8L) or lossy (VP8) image."""
    if len(data) < 25:
        return None
    complete = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and len(data) >= 30 and data[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return None
    return width, height, complete


def _jpeg_size(data: bytes) -> tuple[int, int, bool] | None:
    """Walk the segments of a JPEG up to its frame header, which holds the size."""
    position = len(JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in JPEG_WITHOUT_LENGTH:
            position += 2
        elif marker in JPEG_FRAME_HEADERS:
            if position + 9 > len(data):
                return None
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            # some cameras pad the buffer after the image, so search for the end
            return width, height, data.rfind(JPEG_END) > position
        elif marker == JPEG_SCAN_START:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
