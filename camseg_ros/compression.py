"""Compressed forms of the outputs: PNG and JPEG for image_transport, run lengths for Autoware.

The `format` strings are those of `compressed_publisher.cpp` in image_transport_plugins: the pixel
encoding, then `; png compressed ` or `; jpeg compressed `, then, for colour, the channel order in
the file. image_transport's subscriber converts bgr8 back to the encoding named first. Foxglove
looks at the first bytes of the file.

The run-length format is that of `run_length_encoder.cpp` in Autoware's `perception_utils`, as
published by `tensorrt_yolox`: an image labelled mono8 with the mask's height, width and step, whose
data are runs. A run is one byte of id and an int32 length, and continues over row ends. Autoware
copies the int as it lies in memory, which is little-endian on the x86 and ARM machines it runs on.
"""

from typing import Literal

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.errors import ConfigError, ImageError
from camseg_ros.image_conversion import Pixels

JPEG_QUALITY = 90
"""Enough for viewing: 1 MB and 8 ms at 1080p; image_transport's 95 takes 1.4 MB and 10 ms."""

# PNG gets no options. By default OpenCV optimises for speed: level 1, one filter (difference to the
# previous pixel), run lengths. Any explicit level, even 1, makes libpng try every filter on every
# row. 1080p on one core: ids 13 ms (level 1: 22, level 3: 38), confidence 17 ms (29, 46), colours
# 29 ms (50, 59). That saves at most a tenth of the file size, except for colours: 0.7 MB in place
# of 1.4.
OPTIONS: dict[str, list[int]] = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]}

RUN = np.dtype([("id", "u1"), ("length", "<i4")])
"""One run: 5 bytes, without padding."""


def compressed_message(
    pixels: Pixels, encoding: Literal["mono8", "rgb8"], header: Header, kind: Literal["png", "jpeg"]
) -> CompressedImage:
    """Encode `pixels`, `(H, W)` uint8 for mono8 or `(H, W, 3)` for rgb8, as PNG (lossless) or JPEG.

    Raises:
        ConfigError: mono8 as JPEG, which would change the values, or an unknown kind.
        ImageError: OpenCV cannot encode the pixels (JPEG: more than 65500 a side).
    """
    if kind not in OPTIONS:
        raise ConfigError(f"kind must be png or jpeg, got {kind!r}")
    if encoding == "mono8" and kind == "jpeg":
        raise ConfigError("mono8 holds ids or confidence, whose values JPEG would change; use png")
    order = "bgr8" if encoding == "rgb8" else ""
    message = CompressedImage(header=header, format=f"{encoding}; {kind} compressed {order}")
    stored = pixels if encoding == "mono8" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(f".{kind}", stored, OPTIONS[kind])
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"cannot compress pixels {pixels.shape} as {kind}: {reason}") from error
    if not done:
        raise ImageError(f"cannot compress pixels {pixels.shape} as {kind}")
    message.data.frombytes(np.ascontiguousarray(data).data)
    return message


def run_lengths(mask: Pixels) -> Pixels:
    """Return the runs of `mask` `(H, W)` uint8 as bytes `(5 * runs,)` uint8.

    A driving scene has a few thousand runs; pure noise takes five times the bytes of the mask.
    """
    ids = np.ascontiguousarray(mask).reshape(-1)
    starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    edges = np.concatenate([[0], starts, [ids.size]])
    runs = np.empty(len(edges) - 1, RUN)
    runs["id"] = ids[edges[:-1]]
    runs["length"] = np.diff(edges)
    return runs.view(np.uint8)


def run_length_message(mask: Pixels, header: Header) -> Image:
    """Return `mask` `(H, W)` uint8 as Autoware's run-length image with the stamp and frame of
    `header`.

    Only nodes that know the format can read it: it claims to be mono8, but its data have another
    size.
    """
    height, width = mask.shape
    message = Image(header=header, height=height, width=width, encoding="mono8", step=width)
    message.data.frombytes(run_lengths(mask).data)
    return message
