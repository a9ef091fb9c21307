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

from camseg_core.bit_depth import stored_ids, white_of
from camseg_core.errors import ImageError
from camseg_ros.image_conversion import PLANAR, Converter, Pixels, compressed_size

Decoded = npt.NDArray[np.uint8 | np.uint16]

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

DEPTH = "holds depth, not a picture; subscribe to the colour image"
NO_VIDEO = (
    "holds video, not an image; let the driver publish jpeg or png, or decode it with "
    "image_transport's republish"
)
VIDEO_FORMATS = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg4")
VIDEO_STARTS = (b"\0\0\0\1", b"\0\0\1")  # H.264 and H.265, Annex B


class ImageFields(Protocol):
    """The fields of `sensor_msgs/Image` used here; bag messages have them as well."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8]


class CompressedFields(Protocol):
    """The fields of `sensor_msgs/CompressedImage` used here."""

    format: str
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
        rows = _to_eight_bits(_samples(rows, message), white)
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
    if name == "16UC1":
        text = f"{name} is the encoding of depth images (REP 118), which are no pictures"
        return f"{text}; subscribe to the colour image, or set input_range if these are", brightest
    samples = _samples(_tight_rows(message, ENCODINGS[name], max_bytes), message)
    return _dark_range(name, max(brightest, int(samples.max())))


def compressed_range_problem(bgr: Decoded, brightest: int) -> tuple[str, int]:
    """Return the same as `range_problem` of what `decode_compressed` returned."""
    if bgr.dtype != np.uint16:
        return "", brightest
    return _dark_range("16-bit PNG", max(brightest, int(bgr.max())))


def _dark_range(kind: str, brightest: int) -> tuple[str, int]:
    white = white_of(brightest)
    if white is None:
        return "", brightest
    text = f"no value of its {kind} images is above {white}, so they look dark"
    return f"{text}; set input_range: {white}, or 65535 if they are", brightest


def _samples(rows: Pixels, message: ImageFields) -> npt.NDArray[np.uint16]:
    order = ">u2" if message.is_bigendian else "<u2"
    return rows.view(order).astype(np.uint16, copy=False)


def _to_eight_bits(samples: npt.NDArray[np.uint16], white: int) -> Pixels:
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


def compressed_to_rgb(message: CompressedFields, max_bytes: int, white: int = 0) -> Pixels:
    """Decode a JPEG, PNG or WebP message into RGB `(H, W, 3)` uint8; an orientation tag is ignored.

    Args:
        message: a `sensor_msgs/CompressedImage`.
        max_bytes: size limit of the message and of the RGB image.
        white: as for `image_to_rgb`, for a PNG of 16 bits.

    Raises:
        BadImage: see `decode_compressed`.
    """
    return decoded_to_rgb(decode_compressed(message, max_bytes), white)


def decoded_to_rgb(bgr: Decoded, white: int = 0) -> Pixels:
    """Return what `decode_compressed` returned as RGB uint8; `white` is as for `image_to_rgb`."""
    if bgr.dtype == np.uint16:
        bgr = _to_eight_bits(np.asarray(bgr, np.uint16), white)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_compressed(message: CompressedFields, max_bytes: int) -> Decoded:
    """Decode a JPEG, PNG or WebP message into BGR `(H, W, 3)`, with 16 bits if the file has them.

    Raises:
        BadImage: none of these, depth, damaged, cut short, or larger than `max_bytes` when decoded.
    """
    data = np.frombuffer(message.data, np.uint8)
    if data.size > max_bytes:
        over = f"is over the limit of {max_bytes}"
        raise BadImage("too large", f"compressed image of {data.size} bytes {over}; {RAISE_LIMIT}")
    what = (
        f"compressed image ({message.format[:MAX_SHOWN] or 'no format given'}, {data.size} bytes)"
    )
    form, start = message.format.lower(), data[:4].tobytes()
    if "compresseddepth" in form:
        raise BadImage("encoding", f"{what} {DEPTH}")
    if start.startswith(VIDEO_STARTS) or any(name in form for name in VIDEO_FORMATS):
        raise BadImage("encoding", f"{what} {NO_VIDEO}")
    found = compressed_size(data.tobytes())
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
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(data, flags)
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise BadImage("corrupt", f"{what} cannot be decoded: {reason}") from error
    if bgr is None:
        raise BadImage("corrupt", f"{what} cannot be decoded; its data are damaged")
    return np.asarray(bgr)


def image_to_ids(message: ImageFields, max_bytes: int) -> Pixels:
    """Return the class ids in a mono8 `sensor_msgs/Image`, `(height, width)` uint8.

    Raises:
        BadImage: another encoding, or the message does not hold the image it claims to hold.
    """
    if message.encoding not in ("mono8", "8UC1"):
        needed = "labels must be class ids in mono8 images"
        raise BadImage("encoding", f"{needed}, got {message.encoding[:MAX_SHOWN]}")
    return _tight_rows(message, ENCODINGS["mono8"], max_bytes)


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
