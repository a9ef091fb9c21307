"""The reverse of the run-length mask, as a node that reads it would do it."""

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_ros.messages import RUN

MAX_PIXELS = 100_000_000
"""Default limit of the decoded mask: 5 bytes can claim 2 GB."""


def decode(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8],
    height: int,
    width: int,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Return the mask `(height, width)` uint8 of the runs in `data`, from the fields of an `Image`.

    Raises:
        ImageError: `data` are not whole runs of at least one pixel that fill the mask exactly, or
            the mask has more than `max_pixels`.
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
