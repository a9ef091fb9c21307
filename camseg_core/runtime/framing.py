"""How a camera frame is fitted to the network, and the network's answer fitted back to the camera's pixels."""

from __future__ import annotations  # cv2.typing came with OpenCV 4.8; Ubuntu 24.04 has 4.6

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED

if TYPE_CHECKING:
    from cv2.typing import MatLike


@dataclass(frozen=True)
class View:
    """From the camera's pixels to the mask's: `left` and `top` are cut off, in the camera's pixels, then each axis is scaled.

    Whole coordinates are the centres of pixels, 0 being the first, as in ROS' CameraInfo. So a camera matrix holds for the mask with its
    focal lengths times the scales, and its principal point put through `to_mask`. The default is the camera's own picture.
    """

    left: int = 0
    top: int = 0
    scale_x: float = 1.0
    scale_y: float = 1.0

    def to_mask(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the camera's picture lies in the mask; outside it, if that part is cut off."""
        return (x + 0.5 - self.left) * self.scale_x - 0.5, (y + 0.5 - self.top) * self.scale_y - 0.5

    def to_camera(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the mask lies in the camera's picture."""
        return (x + 0.5) / self.scale_x - 0.5 + self.left, (y + 0.5) / self.scale_y - 0.5 + self.top

    def picture(self, rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """What the mask, of this (height, width), shows of the camera's RGB `(H, W, 3)`, at its size: to draw the mask over."""
        below, right = (
            self.top + round(size[0] / self.scale_y),
            self.left + round(size[1] / self.scale_x),
        )
        return np.asarray(scaled_picture(rgb[self.top : below, self.left : right], size), np.uint8)


Size = tuple[int, int]
"""Height and width in pixels."""


def scaled_picture(picture: MatLike, size: Size) -> MatLike:
    """The picture at another size: averaged along an axis that shrinks, interpolated along one that grows."""
    smaller = min(size[0], picture.shape[0]), min(size[1], picture.shape[1])
    # one after the other: where not both axes shrink, OpenCV's INTER_AREA takes single pixels from beside where they belong
    if smaller != picture.shape[:2]:
        picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
    return (
        picture
        if smaller == size
        else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    )


def scaled_ids(ids: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
    """The ids `(h, w)` at another size: each pixel gets the id of the pixel in which its centre lies.

    Exactly so, at any size; INTER_NEAREST_EXACT of OpenCV 4 rounds its steps, and so drifts along a frame.
    """
    rows, columns = (_centres(there, here) for there, here in zip(size, ids.shape, strict=True))
    return ids.take(columns, axis=1).take(rows, axis=0)


def _centres(there: int, here: int) -> npt.NDArray[np.intp]:
    """Of `there` pixels side by side: in which of the `here` pixels of the same length in all their centres lie, `(there,)`."""
    return (2 * np.arange(there) + 1) * here // (2 * there)


_Number = TypeVar("_Number", np.uint8, np.float32)

MODES = ("letterbox", "stretch", "crop")
"""How a frame is brought to the network's size, see `Fit`."""

OUTPUTS = ("camera", "network")
"""At which size masks are given, see `Fit`."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The region of interest that is the whole frame."""


@dataclass(frozen=True)
class Fit:
    """How frames are fitted to the network, and at which size their masks are given.

    Attributes:
        mode: `letterbox` scales down, never up, keeps the aspect and pads to the right and below by repeating the last pixels; `stretch`
            scales each axis on its own, so that there is no padding; `crop` takes the region of interest alone, as a letterbox.
        roi: the region of interest of `crop`: left, top, right and bottom as shares of width and height, 0 to 1. It is rounded to whole
            pixels, one at least.
        output: `camera` gives masks at the camera's size, unlabelled with confidence 0 outside the region; `network` as the network saw
            the frame or the region, without the padding, which is cheaper: `Segmentation.view` says where that lies in the camera's.

    Raises:
        ConfigError: the mode or the output is unknown, the region is none, or it is given with another mode than `crop`.
    """

    mode: str = "letterbox"
    roi: tuple[float, float, float, float] = WHOLE
    output: str = "camera"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(
                f"unknown resize mode {self.mode!r}; choose one of {', '.join(MODES)}"
            )
        if self.output not in OUTPUTS:
            raise ConfigError(f"unknown output {self.output!r}; choose one of {', '.join(OUTPUTS)}")
        if len(self.roi) != 4 or not (
            0 <= self.roi[0] < self.roi[2] <= 1 and 0 <= self.roi[1] < self.roi[3] <= 1
        ):
            raise ConfigError(
                f"roi is {', '.join(map(str, self.roi)) or 'empty'}; it is left, top, right, bottom as shares of the frame, "
                "0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            )
        if self.roi != WHOLE and self.mode != "crop":
            raise ConfigError(f"roi needs mode crop, not {self.mode}")


@dataclass(frozen=True)
class Framing:
    """A `Fit` of frames of one size. Sizes are (height, width) in pixels.

    `camera` is the frame's size; `corner` (top, left) and `region` are what is shown to the network of it, `scaled` is the size of that as
    the network sees it, and `padded` with what is added to the right and below.
    """

    camera: Size
    corner: tuple[int, int]
    region: Size
    scaled: Size
    padded: Size
    output: str

    @staticmethod
    def fit(height: int, width: int, area: int, multiple: int, fit: Fit = Fit()) -> Framing:
        """Fit a frame into about `area` pixels, padded to multiples of `multiple`; the padded area stays bounded for any aspect.

        Stretched frames have `area` pixels at most (but one square of `multiple`), and the aspect that multiples come nearest to below it.
        """
        left, right = _pixels(fit.roi[0], fit.roi[2], width)
        top, bottom = _pixels(fit.roi[1], fit.roi[3], height)
        region = bottom - top, right - left
        longest = area / multiple  # of a frame so narrow that padding makes it `multiple` wide
        scale = min(1.0, math.sqrt(area / (region[0] * region[1])), longest / max(region))
        if fit.mode == "stretch":
            # a little more, as the product of a side and a scale may be a little less than the multiple that it is meant to be
            rows, columns = (max(1, math.floor(side * scale / multiple + 1e-6)) for side in region)
            scaled = padded = rows * multiple, columns * multiple
        else:
            scaled = max(1, round(region[0] * scale)), max(1, round(region[1] * scale))
            padded = (
                math.ceil(scaled[0] / multiple) * multiple,
                math.ceil(scaled[1] / multiple) * multiple,
            )
        return Framing((height, width), (top, left), region, scaled, padded, fit.output)

    @property
    def view(self) -> View:
        """Where the pixels of the mask that is given lie in the camera's picture."""
        if self.output == "camera":
            return View()
        return View(
            self.corner[1],
            self.corner[0],
            self.scaled[1] / self.region[1],
            self.scaled[0] / self.region[0],
        )

    def to_network(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The camera's RGB `(H, W, 3)` to the network's `(h, w, 3)`."""
        (top, left), (height, width) = self.corner, self.region
        picture = scaled_picture(rgb[top : top + height, left : left + width], self.scaled)
        below, right = self.padded[0] - self.scaled[0], self.padded[1] - self.scaled[1]
        if below or right:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(picture, np.uint8)

    def mask_out(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The network's class ids `(h, w)` to the mask that is given: each pixel has the class of the network's that it lies in."""
        visible = mask[: self.scaled[0], : self.scaled[1]]
        if self.output == "network":
            return np.ascontiguousarray(visible)
        return self._in_camera(
            visible if self.scaled == self.region else scaled_ids(visible, self.region), UNLABELLED
        )

    def confidence_out(self, confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The network's confidence `(h, w)` to that which is given, interpolated."""
        visible = confidence[: self.scaled[0], : self.scaled[1]]
        if self.output == "network":
            return np.ascontiguousarray(visible)
        if self.scaled != self.region:
            visible = np.asarray(
                cv2.resize(visible, self.region[::-1], interpolation=cv2.INTER_LINEAR), np.float32
            )
        return self._in_camera(visible, 0.0)

    def _in_camera(self, region: npt.NDArray[_Number], outside: float) -> npt.NDArray[_Number]:
        """The region's plane in the frame's, filled with `outside` around it."""
        if self.region == self.camera:
            return np.ascontiguousarray(region)
        plane = np.full(self.camera, outside, region.dtype)
        (top, left), (height, width) = self.corner, self.region
        plane[top : top + height, left : left + width] = region
        return plane


def _pixels(start: float, end: float, length: int) -> tuple[int, int]:
    """The pixels from one share of a side to another, as (first, last + 1): one at least, all of them inside."""
    first = min(round(start * length), length - 1)
    return first, max(first + 1, round(end * length))
