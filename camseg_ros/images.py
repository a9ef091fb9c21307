"""`sensor_msgs` images, from a topic or a bag, to numpy arrays. Every field is checked before it is
used.

Needs no ROS: only the fields of a message are read, so messages that `rosbags` reads from a bag
work as well.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.bit_depth import white_of
from camseg_core.errors import ImageError
from camseg_ros.image_conversion import PLANAR, Converter, Pixels

Reason = Literal["header", "encoding", "size", "step", "truncated", "too large", "corrupt"]

BYTES_PER_RGB_PIXEL = 3
MAX_SHOWN = 60
"""Longest part of a message's text that an error repeats; it may have any length."""

RAISE_LIMIT = "raise the parameter max_image_bytes if you need larger images"


class BadImage(ImageError):
    """A message that does not hold the image it claims to hold; `reason` is counted."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Encoding:
    """Memory layout of one encoding."""

    converted_as: str
    """The encoding under which converters know this layout."""
    pixel_bytes: int
    even_width: bool = False
    even_height: bool = False
    min_side: int = 1
    """Smallest width and height; a Bayer mosaic needs neighbours on all sides."""
    sixteen_bit: bool = False


ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("rgb8", 3),
    "bgr8": Encoding("bgr8", 3),
    "8UC3": Encoding("bgr8", 3),
    "rgba8": Encoding("rgba8", 4),
    "bgra8": Encoding("bgra8", 4),
    "8UC4": Encoding("bgra8", 4),
    "mono8": Encoding("mono8", 1),
    "8UC1": Encoding("mono8", 1),
    "rgb16": Encoding("rgb8", 6, sixteen_bit=True),
    "bgr16": Encoding("bgr8", 6, sixteen_bit=True),
    "16UC3": Encoding("bgr8", 6, sixteen_bit=True),
    "rgba16": Encoding("rgba8", 8, sixteen_bit=True),
    "bgra16": Encoding("bgra8", 8, sixteen_bit=True),
    "16UC4": Encoding("bgra8", 8, sixteen_bit=True),
    "mono16": Encoding("mono8", 2, sixteen_bit=True),
    "16UC1": Encoding("mono8", 2, sixteen_bit=True),
    **{
        f"bayer_{cell}{bits}": Encoding(
            f"bayer_{cell}8", bits // 8, min_side=3, sixteen_bit=bits == 16
        )
        for bits in (8, 16)
        for cell in ("rggb", "bggr", "gbrg", "grbg")
    },
    "yuv422": Encoding("yuv422", 2, even_width=True),
    "uyvy": Encoding("yuv422", 2, even_width=True),
    "yuv422_yuy2": Encoding("yuv422_yuy2", 2, even_width=True),
    "yuyv": Encoding("yuv422_yuy2", 2, even_width=True),
    "nv12": Encoding("nv12", 1, even_width=True, even_height=True),
    "nv21": Encoding("nv21", 1, even_width=True, even_height=True),
}
"""All supported encodings."""

SIXTEEN_BIT = frozenset(name for name, each in ENCODINGS.items() if each.sixteen_bit)

WHITE_16 = 65535
"""White in images of 16 bits unless another value is given."""

DEPTH_ENCODING = "16UC1"
"""The encoding of depth images in whole millimetres (REP 118)."""

DEPTH = "holds depth, not colours; subscribe to the colour image"


class ImageFields(Protocol):
    """The fields of `sensor_msgs/Image` used here; bag messages have them as well."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]


def image_to_rgb(
    message: ImageFields, converter: Converter, max_bytes: int, white: int = 0
) -> Pixels:
    """Return the image in `message` as RGB `(height, width, 3)` uint8; rgb8 may share memory with
    the message.

    Args:
        message: a `sensor_msgs/Image`; rows may be padded.
        converter: from `choose_converter`.
        max_bytes: size limit of the message and of the RGB image.
        white: value of white in an image of 16 bits, up to 65535, which 0 stands for.

    Raises:
        BadImage: the message does not hold the image it claims to hold, or holds depth.
        ConfigError: no installed converter supports this encoding.
    """
    encoding = ENCODINGS.get(message.encoding)
    if message.encoding == "32FC1":  # REP 118
        raise BadImage("encoding", f"an image in 32FC1 {DEPTH}")
    if encoding is None:
        found, known = message.encoding[:MAX_SHOWN], ", ".join(ENCODINGS)
        raise BadImage("encoding", f"unknown image encoding {found!r}; known are {known}")
    rows = _tight_rows(message, encoding, max_bytes)
    if encoding.sixteen_bit:
        rows = to_eight_bits(_samples(rows, message), white)
    if encoding.converted_as == "rgb8":
        return rows.reshape(message.height, message.width, 3)
    return converter.to_rgb(rows, encoding.converted_as, message.width, message.height)


def range_problem(message: ImageFields, max_bytes: int, brightest: int) -> tuple[str, int]:
    """Return why an image may be no picture with 65535 as white, or empty, and the largest value.

    `brightest` is the largest value of earlier images. Raises BadImage as `image_to_rgb` does.
    """
    name = message.encoding
    if name not in SIXTEEN_BIT:
        return "", brightest
    if name == DEPTH_ENCODING:
        return depth_range(), brightest
    samples = _samples(_tight_rows(message, ENCODINGS[name], max_bytes), message)
    return dark_range(name, max(brightest, int(samples.max())))


def depth_range() -> str:
    """Return why images in the encoding of depth may not be camera images."""
    text = f"{DEPTH_ENCODING} is the encoding of depth images (REP 118); subscribe to the colour"
    return f"{text} image, or set white_level (--white-level) if these are camera images"


def dark_range(kind: str, brightest: int) -> tuple[str, int]:
    white = white_of(brightest)
    if white is None:
        return "", brightest
    text = f"no value of its {kind} images is above {white}, so they look dark"
    remedy = f"set white_level (--white-level) to {white}, or to 65535 if the scene is that dark"
    return f"{text}; {remedy}", brightest


def _samples(rows: Pixels, message: ImageFields) -> npt.NDArray[np.uint16]:
    order = ">u2" if message.is_bigendian else "<u2"
    return rows.view(order).astype(np.uint16, copy=False)


def to_eight_bits(samples: npt.NDArray[np.uint16], white: int) -> Pixels:
    """Scale from 0..white to 0..255; brighter samples become 255."""
    return np.asarray(cv2.convertScaleAbs(samples, alpha=255 / (white or WHITE_16)), np.uint8)


def _tight_rows(message: ImageFields, encoding: Encoding, max_bytes: int) -> Pixels:
    """Check `message`; return its bytes without padding, `(rows, bytes per row)`, C-contiguous."""
    width, height, step, size = message.width, message.height, message.step, len(message.data)
    what = f"{width}x{height} {message.encoding} image"
    if width < 1 or height < 1:
        raise BadImage("size", f"{what} has no pixels; the publisher must set width and height")
    if min(width, height) < encoding.min_side:
        needed = f"{message.encoding} needs at least {encoding.min_side} pixels each way"
        raise BadImage("size", f"{what} is too small to convert: {needed}")
    if (encoding.even_width and width % 2) or (encoding.even_height and height % 2):
        sides = "width and height" if encoding.even_height else "width"
        needed = f"{message.encoding} shares colour between neighbours and needs an even {sides}"
        raise BadImage("size", f"{what}: {needed}")
    largest = max(size, width * height * BYTES_PER_RGB_PIXEL)
    if largest > max_bytes:
        over = f"takes {largest} bytes, over the limit of {max_bytes}"
        raise BadImage("too large", f"{what} {over}; {RAISE_LIMIT}")
    row_bytes = width * encoding.pixel_bytes
    if step < row_bytes:
        needed = f"a row needs {width} x {encoding.pixel_bytes} = {row_bytes} bytes"
        remedy = "the publisher must set step to the length of a row"
        raise BadImage("step", f"{what} has step {step}, but {needed}; {remedy}")
    row_count = height + height // 2 if encoding.converted_as in PLANAR else height
    # some drivers omit the padding of the last row, which costs no pixel
    if size < step * (row_count - 1) + row_bytes:
        needed = f"with step {step} needs {step * row_count} bytes, has {size}"
        raise BadImage("truncated", f"{what} {needed}; the message was cut short")
    rows = np.ndarray((row_count, row_bytes), np.uint8, buffer=message.data, strides=(step, 1))
    return np.ascontiguousarray(rows)


def image_to_ids(message: ImageFields, max_bytes: int) -> Pixels:
    """Return the class ids in a mono8 `sensor_msgs/Image`, `(height, width)` uint8.

    Raises:
        BadImage: another encoding, or the message does not hold the image it claims to hold.
    """
    if message.encoding not in ("mono8", "8UC1"):
        needed = "labels must be class ids in mono8 images"
        raise BadImage("encoding", f"{needed}, got {message.encoding[:MAX_SHOWN]}")
    return _tight_rows(message, ENCODINGS["mono8"], max_bytes)
