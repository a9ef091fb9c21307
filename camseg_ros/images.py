"""`sensor_msgs` images, of a topic or of a bag, to numpy arrays. Everything a message claims is checked before it is believed.

Needs no ROS: only the fields of a message are read, so those that `rosbags` reads from a bag will do.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_ros.compressed_size import compressed_size
from camseg_ros.image_conversion import PLANAR, Converter, Pixels

Reason = Literal["header", "encoding", "size", "step", "truncated", "too large", "corrupt"]

BYTES_PER_RGB_PIXEL = 3
SHOWN = 60
"""Of a text in a message, so much is told: it may have any length."""

RAISE_LIMIT = "raise the parameter max_image_bytes if such images are meant to come"


class BadImage(ImageError):
    """A message that does not hold the picture it claims to; `reason` is the kind, for counting."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Encoding:
    """How the pixels of one encoding lie in memory."""

    converted_as: str
    """The encoding that converters know the same layout by."""
    pixel_bytes: int
    even_width: bool = False
    even_height: bool = False
    smallest: int = 1
    """Least width and height that can be converted (a Bayer mosaic needs neighbours on all sides)."""
    sixteen_bit: bool = False


def _bayer(name: str) -> dict[str, Encoding]:
    return {name: Encoding(name, 1, smallest=3)}


ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("rgb8", 3),
    "bgr8": Encoding("bgr8", 3),
    "8UC3": Encoding("bgr8", 3),
    "rgba8": Encoding("rgba8", 4),
    "bgra8": Encoding("bgra8", 4),
    "mono8": Encoding("mono8", 1),
    "8UC1": Encoding("mono8", 1),
    "mono16": Encoding("mono8", 2, sixteen_bit=True),
    "16UC1": Encoding("mono8", 2, sixteen_bit=True),
    **_bayer("bayer_rggb8"),
    **_bayer("bayer_bggr8"),
    **_bayer("bayer_gbrg8"),
    **_bayer("bayer_grbg8"),
    "yuv422": Encoding("yuv422", 2, even_width=True),
    "uyvy": Encoding("yuv422", 2, even_width=True),
    "yuv422_yuy2": Encoding("yuv422_yuy2", 2, even_width=True),
    "yuyv": Encoding("yuv422_yuy2", 2, even_width=True),
    "nv12": Encoding("nv12", 1, even_width=True, even_height=True),
    "nv21": Encoding("nv21", 1, even_width=True, even_height=True),
}
"""Every encoding that is understood. 16-bit grey is scaled from its whole range 0..65535, so a 12-bit camera that does
not fill the range looks dark and should be scaled by its driver."""


class ImageFields(Protocol):
    """The fields of `sensor_msgs/Image` that are read here; bag messages have them as well."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]


class CompressedFields(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that are read here."""

    format: str
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]


def image_to_rgb(message: ImageFields, converter: Converter, max_bytes: int) -> Pixels:
    """The picture in `message` as RGB, `(height, width, 3)` uint8; it may share memory with the message.

    Args:
        message: a `sensor_msgs/Image`; rows may be padded.
        converter: from `choose_converter`.
        max_bytes: the most bytes that the message, or the RGB made of it, may have.

    Raises:
        BadImage: the message is not the picture it claims to be; the text says what is wrong and what to do.
        ConfigError: nothing installed here converts this encoding.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise BadImage(
            "encoding",
            f"unknown image encoding {message.encoding[:SHOWN]!r}; known are {', '.join(ENCODINGS)}",
        )
    rows = _tight_rows(message, encoding, max_bytes)
    if encoding.sixteen_bit:
        samples = rows.view(">u2" if message.is_bigendian else "<u2")
        # 65535 / 257 = 255; in the machine's own byte order, which is all that OpenCV knows.
        rows = np.asarray(
            cv2.convertScaleAbs(samples.astype(np.uint16, copy=False), alpha=1 / 257), np.uint8
        )
    return converter.to_rgb(rows, encoding.converted_as, message.width, message.height)


def _tight_rows(message: ImageFields, encoding: Encoding, max_bytes: int) -> Pixels:
    """The checked bytes of `message` without row padding: `(row count, bytes per row)`, C-contiguous."""
    width, height, step, size = message.width, message.height, message.step, len(message.data)
    what = f"{width}x{height} {message.encoding} image"
    if width < 1 or height < 1:
        raise BadImage("size", f"{what} has no pixels; the publisher must set width and height")
    if min(width, height) < encoding.smallest:
        raise BadImage(
            "size",
            f"{what} is too small to convert: {message.encoding} needs at least {encoding.smallest} pixels each way",
        )
    if (encoding.even_width and width % 2) or (encoding.even_height and height % 2):
        sides = "width and height" if encoding.even_height else "width"
        raise BadImage(
            "size",
            f"{what}: {message.encoding} shares colour between neighbours and needs an even {sides}",
        )
    largest = max(size, width * height * BYTES_PER_RGB_PIXEL)
    if largest > max_bytes:
        raise BadImage(
            "too large",
            f"{what} takes {largest} bytes, over the limit of {max_bytes}; {RAISE_LIMIT}",
        )
    row_bytes = width * encoding.pixel_bytes
    if step < row_bytes:
        needed = f"{width} x {encoding.pixel_bytes} = {row_bytes}"
        raise BadImage(
            "step",
            f"{what} has step {step}, but a row needs {needed} bytes; the publisher must set step to a row's length",
        )
    row_count = height + height // 2 if encoding.converted_as in PLANAR else height
    # The padding of the last row may be missing: some drivers cut it off, and no pixel is lost by it.
    if size < step * (row_count - 1) + row_bytes:
        raise BadImage(
            "truncated",
            f"{what} with step {step} needs {step * row_count} bytes, has {size}; the message was cut short",
        )
    rows = np.ndarray((row_count, row_bytes), np.uint8, buffer=message.data, strides=(step, 1))
    return np.ascontiguousarray(rows)


def compressed_to_rgb(message: CompressedFields, max_bytes: int) -> Pixels:
    """Decode a JPEG or PNG message into RGB, `(H, W, 3)` uint8, as stored: an orientation tag does not turn it.

    Raises:
        BadImage: neither JPEG nor PNG, damaged, cut short, or larger than `max_bytes` when decoded.
    """
    data = np.frombuffer(message.data, np.uint8)
    if data.size > max_bytes:
        raise BadImage(
            "too large",
            f"compressed image of {data.size} bytes is over the limit of {max_bytes}; {RAISE_LIMIT}",
        )
    what = f"compressed image ({message.format[:SHOWN] or 'no format given'}, {data.size} bytes)"
    found = compressed_size(data.tobytes())
    if found is None:
        raise BadImage(
            "corrupt",
            f"{what} is neither JPEG nor PNG, or its header is damaged; publish jpeg or png",
        )
    width, height, complete = found
    decoded = width * height * BYTES_PER_RGB_PIXEL
    if decoded > max_bytes:
        text = f"{what} holds {width}x{height} pixels, {decoded} bytes when decoded, over the limit of {max_bytes}; {RAISE_LIMIT}"
        raise BadImage("too large", text)
    if width < 1 or height < 1:
        raise BadImage("size", f"{what} has no pixels ({width}x{height})")
    if not complete:
        raise BadImage(
            "truncated", f"{what} ends before the end of its picture; the message was cut short"
        )
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadImage(
            "corrupt", f"{what} cannot be decoded: {' '.join(str(error).split())}"
        ) from error
    if bgr is None:
        raise BadImage("corrupt", f"{what} cannot be decoded; its data are damaged")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def image_to_ids(message: ImageFields, max_bytes: int) -> Pixels:
    """The class ids in a mono8 `sensor_msgs/Image`, `(height, width)` uint8.

    Raises:
        BadImage: it has another encoding, or is not the picture it claims to be.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise BadImage("encoding", f"labels are class ids in mono8 images, not {message.encoding}")
    return _tight_rows(message, ENCODINGS["mono8"], max_bytes)


def compressed_to_ids(message: CompressedFields, max_bytes: int) -> Pixels:
    """The class ids in a grey PNG, `(H, W)` uint8.

    Raises:
        BadImage: it is no PNG of one 8-bit channel, damaged, cut short, or larger than `max_bytes`.
    """
    data = np.frombuffer(message.data, np.uint8)
    what = f"compressed label ({message.format[:SHOWN] or 'no format given'}, {data.size} bytes)"
    if not data[:4].tobytes() == b"\x89PNG":
        raise BadImage("encoding", f"{what} is no PNG; JPEG would not keep class ids")
    found = compressed_size(data.tobytes())
    if found is None or not found[2]:
        raise BadImage("truncated", f"{what} is damaged or cut short")
    if found[0] * found[1] > max_bytes:
        raise BadImage(
            "too large",
            f"{what} holds {found[0]}x{found[1]} pixels, over the limit of {max_bytes} bytes; {RAISE_LIMIT}",
        )
    ids = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if ids is None:
        raise BadImage("corrupt", f"{what} cannot be decoded; its data are damaged")
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise BadImage(
            "encoding",
            f"{what} has {'colours' if ids.ndim > 2 else ids.dtype}; labels are class ids in one 8-bit channel",
        )
    return np.asarray(ids, np.uint8)
