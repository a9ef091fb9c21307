"""Geometry between the camera's pixels, the network's and the published mask's."""

from __future__ import annotations  # cv2.typing came with OpenCV 4.8; Ubuntu 24.04 has 4.6

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED
from camseg_core.noise_filter import without_grain, without_impulses

if TYPE_CHECKING:
    from cv2.typing import MatLike

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class View:
    """The map from the camera's pixels to the mask's: cut `left` and `top` off, scale each axis.

    `left` and `top` are in the camera's pixels. Whole coordinates are pixel centres, 0 being the
    first, as in ROS' CameraInfo: the mask's camera matrix is the camera's with the focal lengths
    scaled and the principal point mapped by `to_mask`. The default is the camera's whole image.
    """

    left: int = 0
    top: int = 0
    scale_x: float = 1.0
    scale_y: float = 1.0

    def to_mask(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the camera's image to the mask; it may lie outside."""
        return (x + 0.5 - self.left) * self.scale_x - 0.5, (y + 0.5 - self.top) * self.scale_y - 0.5

    def picture(self, rgb: Ids, size: Size) -> Ids:
        """Return the part of the camera's RGB `(H, W, 3)` under a mask, scaled to its `size`."""
        bottom = self.top + round(size[0] / self.scale_y)
        right = self.left + round(size[1] / self.scale_x)
        return np.asarray(scaled_picture(rgb[self.top : bottom, self.left : right], size), np.uint8)


def scaled_picture(picture: MatLike, size: Size) -> MatLike:
    """Scale a picture: averaged along an axis that shrinks, interpolated along one that grows."""
    smaller = min(size[0], picture.shape[0]), min(size[1], picture.shape[1])
    # in two steps: unless both axes shrink, INTER_AREA picks single pixels beside the right ones
    if smaller != picture.shape[:2]:
        picture = cv2.resize(picture, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != size:
        picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    return picture


def scaled_ids(ids: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
    """Scale ids `(h, w)`: each pixel gets the id of the source pixel that contains its centre.

    Exact at any size; OpenCV 4's INTER_NEAREST_EXACT rounds its steps and drifts along a frame.
    """
    rows, columns = (
        (2 * np.arange(there) + 1) * here // (2 * there)  # the pixels in which the centres lie
        for there, here in zip(size, ids.shape, strict=True)
    )
    return ids.take(columns, axis=1).take(rows, axis=0)


MODES = ("letterbox", "stretch", "crop")
"""How a frame is brought to the network's size, see `Fit`."""

OUTPUTS = ("camera", "network")
"""The size of the returned masks, see `Fit`."""

MAX_CACHED_SIZES = 64
"""Frame sizes whose geometry stays cached."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The region of interest that is the whole frame."""


@dataclass(frozen=True)
class Fit:
    """How frames are fitted to the network, and at which size their masks are returned.

    Attributes:
        mode: `letterbox` scales, keeps the aspect and pads right and bottom by repeating the last
            pixels; `stretch` scales each axis on its own, without padding;
            `crop` takes the region of interest alone, as a letterbox.
        roi: region of interest of `crop`: left, top, right, bottom as shares of width and height,
            0 to 1, rounded to whole pixels, at least one.
        output: `camera` returns masks at the camera's size, unlabelled with confidence 0 outside
            the region; `network` as the network saw the frame or region, without padding, which is
            cheaper: `Segmentation.view` says where that lies in the camera's image.

    Raises:
        ConfigError: mode or output is unknown, the region is invalid or given without `crop`.
    """

    mode: str = "letterbox"
    roi: tuple[float, float, float, float] = WHOLE
    output: str = "camera"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"resize mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.output not in OUTPUTS:
            raise ConfigError(f"output must be one of {', '.join(OUTPUTS)}, got {self.output!r}")
        if len(self.roi) != 4 or not (
            0 <= self.roi[0] < self.roi[2] <= 1 and 0 <= self.roi[1] < self.roi[3] <= 1
        ):
            raise ConfigError(
                "roi must be left, top, right, bottom as shares of the frame, 0 <= left < right <= "
                f"1 and 0 <= top < bottom <= 1, got {', '.join(map(str, self.roi)) or 'nothing'}"
            )
        if self.roi != WHOLE and self.mode != "crop":
            raise ConfigError(f"roi needs mode crop, not {self.mode}")


@dataclass(frozen=True)
class FrameGeometry:
    """A `Fit` worked out for frames of one size. Sizes are (height, width) in pixels.

    Attributes:
        camera: the frame's size.
        corner: top and left of the part of the frame that the network sees.
        region: the size of that part.
        scaled: its size at the network.
        padded: `scaled` with the padding at the right and bottom.
        output: as in `Fit`.
        view: where the pixels of the returned mask lie in the camera's image.
    """

    camera: Size
    corner: tuple[int, int]
    region: Size
    scaled: Size
    padded: Size
    output: str
    view: View

    @staticmethod
    @functools.lru_cache(maxsize=MAX_CACHED_SIZES)
    def fit(
        height: int,
        width: int,
        area: int,
        multiple: int,
        fit: Fit = Fit(),
        max_upscale: float = 1.0,
    ) -> FrameGeometry:
        """Fit a frame into about `area` pixels, padded to multiples of `multiple`.

        A smaller frame is enlarged up to `max_upscale` times along each axis.

        The padded area stays bounded for any aspect. Stretched frames have at most `area` pixels
        (at least one square of `multiple`), and the aspect nearest below in multiples.
        """
        # the region in whole pixels, at least one each way, all of them inside
        left = min(round(fit.roi[0] * width), width - 1)
        top = min(round(fit.roi[1] * height), height - 1)
        right = max(left + 1, round(fit.roi[2] * width))
        bottom = max(top + 1, round(fit.roi[3] * height))
        region = bottom - top, right - left
        longest = area / multiple  # of a frame so narrow that padding makes it `multiple` wide
        scale = min(max_upscale, math.sqrt(area / (region[0] * region[1])), longest / max(region))
        if fit.mode == "stretch":
            # 1e-6: a side times the scale may fall just below the multiple that it should be
            rows, columns = (max(1, math.floor(side * scale / multiple + 1e-6)) for side in region)
            scaled = padded = rows * multiple, columns * multiple
        else:
            scaled = max(1, round(region[0] * scale)), max(1, round(region[1] * scale))
            padded = -(-scaled[0] // multiple) * multiple, -(-scaled[1] // multiple) * multiple
        view = View()
        if fit.output == "network":
            view = View(left, top, scaled[1] / region[1], scaled[0] / region[0])
        camera = height, width
        return FrameGeometry(camera, (top, left), region, scaled, padded, fit.output, view)

    def to_network(self, rgb: Ids, noise_filter: bool = False) -> tuple[Ids, bool]:
        """Bring the camera's RGB `(H, W, 3)` to the network's `(h, w, 3)`.

        With `noise_filter`, strong noise is removed: impulses before any scaling, which would smear
        them, and the rest after axes shrink, which averages some of it, and before axes grow.
        Returns also whether there was any.
        """
        (top, left), (height, width) = self.corner, self.region
        region = rgb[top : top + height, left : left + width]
        intact = without_impulses(region) if noise_filter else region
        smaller = min(height, self.scaled[0]), min(width, self.scaled[1])
        shrunk = np.asarray(scaled_picture(intact, smaller), np.uint8)
        smooth = without_grain(shrunk) if noise_filter else shrunk
        noisy = intact is not region or smooth is not shrunk
        picture = np.asarray(scaled_picture(smooth, self.scaled), np.uint8)
        bottom, right = self.padded[0] - self.scaled[0], self.padded[1] - self.scaled[1]
        if bottom or right:
            bordered = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            picture = np.asarray(bordered, np.uint8)
        return np.ascontiguousarray(picture), noisy

    def from_network(self, mask: Ids, confidence: Floats) -> tuple[Ids, Floats]:
        """Bring the network's ids and confidence, `(h, w)` each, to the size `output` asks for.

        Each pixel has the class of the network's pixel it lies in; confidence is interpolated.
        """
        height, width = self.scaled
        mask, confidence = mask[:height, :width], confidence[:height, :width]
        if self.output == "camera":
            if self.scaled != self.region:
                size = self.region[::-1]
                mask = scaled_ids(mask, self.region)
                resized = cv2.resize(confidence, size, interpolation=cv2.INTER_LINEAR)
                confidence = np.asarray(resized, np.float32)
            if self.region != self.camera:
                region, (top, left), (height, width) = (mask, confidence), self.corner, self.region
                mask = np.full(self.camera, UNLABELLED, np.uint8)
                confidence = np.zeros(self.camera, np.float32)
                mask[top : top + height, left : left + width] = region[0]
                confidence[top : top + height, left : left + width] = region[1]
        return np.ascontiguousarray(mask), np.ascontiguousarray(confidence)
