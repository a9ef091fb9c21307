"""Masks as runs of equal ids, in the form that Autoware's segmentation point-cloud fusion reads.

The format is that of `run_length_encoder.cpp` in Autoware's `perception_utils`, as `tensorrt_yolox` publishes it: an image
labelled mono8 whose height, width and step are those of the mask, and whose data are the runs instead of the pixels. A run
is one byte of id and an int32 of length; runs go on from one row to the next. Autoware copies the int as it lies in memory,
which is little-endian on the x86 and ARM machines that it runs on.
"""

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from camseg_core.errors import ImageError

RUN = np.dtype([("id", "u1"), ("length", "<i4")])
"""One run: 5 bytes, without padding."""

MAX_PIXELS = 100_000_000
"""What `decode` makes at most unless told otherwise: 5 bytes can claim 2 GB."""


def encode(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The runs of `mask` `(H, W)` uint8 as bytes `(5 * runs,)` uint8.

    A driving scene has some thousand runs; pure noise takes five times the bytes of the mask itself.
    """
    ids = np.ascontiguousarray(mask).reshape(-1)
    starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    edges = np.concatenate([[0], starts, [ids.size]])
    runs = np.empty(len(edges) - 1, RUN)
    runs["id"] = ids[edges[:-1]]
    runs["length"] = np.diff(edges)
    return runs.view(np.uint8)


def decode(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8],
    height: int,
    width: int,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """The mask `(height, width)` uint8 of the runs in `data`, such as an `Image`'s `data`, `height` and `width`.

    Raises:
        ImageError: `data` do not hold whole runs of at least one pixel that fill the mask exactly, or it has more than `max_pixels`.
    """
    what = f"run-length mask of {width}x{height} pixels"
    if width < 1 or height < 1:
        raise ImageError(f"{what} has no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{what} is over the limit of {max_pixels} pixels")
    octets = np.frombuffer(data, np.uint8)
    if octets.size % RUN.itemsize:
        raise ImageError(
            f"{what} has {octets.size} bytes, which is not a whole number of runs of {RUN.itemsize}"
        )
    runs = octets.view(RUN)
    lengths = runs["length"].astype(np.int64)
    if (lengths < 1).any():
        raise ImageError(f"{what} has a run of {lengths.min()} pixels; each has at least one")
    if lengths.sum() != width * height:
        raise ImageError(f"{what} has runs for {lengths.sum()} pixels, needs {width * height}")
    return np.repeat(runs["id"], lengths).reshape(height, width)


def run_length_message(mask: npt.NDArray[np.uint8], header: Header) -> Image:
    """`mask` `(H, W)` uint8 as Autoware's run-length image, with the stamp and frame of `header`.

    Only nodes that know the format can read it: by its label it is a mono8 image whose data have the wrong size.
    """
    height, width = mask.shape
    message = Image(
        header=header, height=height, width=width, encoding="mono8", is_bigendian=0, step=width
    )
    message.data.frombytes(encode(mask).data)
    return message
