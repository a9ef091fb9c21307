"""What the node publishes as `sensor_msgs/CompressedImage`, labelled so that image_transport's subscriber decodes it.

The `format` strings are those of `compressed_publisher.cpp` in image_transport_plugins: the encoding of the pixels, then
`; png compressed ` or `; jpeg compressed `, then, for colour, the order in which the file holds it. The subscriber turns
bgr8 back into the encoding named first. Foxglove goes by the file's own first bytes.
"""

from typing import Literal

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from camseg_core.errors import ConfigError, ImageError
from camseg_ros.image_conversion import Pixels

JPEG_QUALITY = 90
"""For people's eyes: 1 MB and 8 ms at 1080p, where image_transport's 95 takes 1.4 MB and 10 ms."""

# PNG gets no options at all. Left alone, OpenCV tunes for speed: compression level 1, one filter (the difference to the
# pixel before) and run lengths. Naming any level, even 1, makes libpng try every filter on every row. 1080p, one core of
# the test machine: ids 13 ms (level 1: 22, level 3: 38), confidence 17 ms (29, 46), colours 29 ms (50, 59). The files are
# at most a tenth smaller for it, except the colours: 1.4 MB against 0.7.
OPTIONS: dict[str, list[int]] = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]}


def compressed_message(
    pixels: Pixels, encoding: Literal["mono8", "rgb8"], header: Header, kind: Literal["png", "jpeg"]
) -> CompressedImage:
    """`pixels`, `(H, W)` uint8 for mono8 or `(H, W, 3)` for rgb8, as a PNG or JPEG file with the stamp and frame of `header`.

    PNG gives back every byte. JPEG changes values, which an overlay bears and ids do not.

    Raises:
        ConfigError: mono8 as JPEG, or a kind that is neither.
        ImageError: OpenCV cannot encode the pixels (more than 65500 a side as JPEG).
    """
    if kind not in OPTIONS:
        raise ConfigError(f"an image is compressed as png or jpeg, not as {kind!r}")
    if encoding == "mono8" and kind == "jpeg":
        raise ConfigError("mono8 holds ids or confidence, whose values JPEG would change; use png")
    message = CompressedImage(
        header=header,
        format=f"{encoding}; {kind} compressed {'bgr8' if encoding == 'rgb8' else ''}",
    )
    stored = pixels if encoding == "mono8" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(f".{kind}", stored, OPTIONS[kind])
    except cv2.error as error:
        raise ImageError(
            f"cannot compress pixels {pixels.shape} as {kind}: {' '.join(str(error).split())}"
        ) from error
    if not done:
        raise ImageError(f"cannot compress pixels {pixels.shape} as {kind}")
    message.data.frombytes(np.ascontiguousarray(data).data)
    return message
