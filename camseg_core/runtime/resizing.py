"""Pictures and masks at another size, with the edges of both sizes kept in line."""

from __future__ import annotations  # cv2.typing came with OpenCV 4.8; Ubuntu 24.04 has 4.6

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cv2.typing import MatLike

Size = tuple[int, int]
"""Height and width in pixels."""


def scaled_picture(picture: MatLike, size: Size) -> MatLike:
    """The picture at another size: averaged along an axis that shrinks, interpolated along one that grows."""
    smaller = min(size[0], picture.shape[0]), min(size[1], picture.shape[1])
    # one after the other: where not both axes shrink, OpenCV's INTER_AREA takes single pixels from beside where they belong
    if smaller != picture.shape[:2]:
        picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
    return picture if smaller == size else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)


def scaled_ids(ids: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
    """The ids `(h, w)` at another size: each pixel gets the id of the pixel in which its centre lies.

    Exactly so, at any size; INTER_NEAREST_EXACT of OpenCV 4 rounds its steps, and so drifts along a frame.
    """
    rows, columns = (_centres(there, here) for there, here in zip(size, ids.shape, strict=True))
    return ids.take(columns, axis=1).take(rows, axis=0)


def _centres(there: int, here: int) -> npt.NDArray[np.intp]:
    """Of `there` pixels side by side: in which of the `here` pixels of the same length in all their centres lie, `(there,)`."""
    return (2 * np.arange(there) + 1) * here // (2 * there)
