"""How a camera frame is fitted to the network, and the network's answer fitted back to the camera's pixels."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from cv2.typing import MatLike


@dataclass(frozen=True)
class Framing:
    """Sizes are (height, width) in pixels: the camera's, the scaled picture's, and that padded to what the network takes.

    The picture is scaled down, never up, keeping its aspect, and padded to the right and below by repeating its last pixels.
    """

    camera: tuple[int, int]
    scaled: tuple[int, int]
    padded: tuple[int, int]

    @staticmethod
    def fit(height: int, width: int, area: int, multiple: int) -> "Framing":
        """Fit a frame into about `area` pixels, padded to multiples of `multiple`; the padded area stays bounded for any aspect."""
        longest = area / multiple  # of a frame so narrow that padding makes it `multiple` wide
        scale = min(1.0, math.sqrt(area / (height * width)), longest / max(height, width))
        scaled = max(1, round(height * scale)), max(1, round(width * scale))
        padded = math.ceil(scaled[0] / multiple) * multiple, math.ceil(scaled[1] / multiple) * multiple
        return Framing((height, width), scaled, padded)

    def to_network(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The camera's RGB `(H, W, 3)` to the network's `(h, w, 3)`."""
        height, width = self.scaled
        picture = rgb if self.scaled == self.camera else cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        below, right = self.padded[0] - height, self.padded[1] - width
        if below or right:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(picture, np.uint8)

    def mask_to_camera(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The network's class ids `(h, w)` to the camera's pixels `(H, W)`, by nearest neighbour."""
        return np.asarray(self._to_camera(mask, cv2.INTER_NEAREST_EXACT), np.uint8)

    def confidence_to_camera(self, confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The network's confidence `(h, w)` to the camera's pixels `(H, W)`, interpolated."""
        return np.asarray(self._to_camera(confidence, cv2.INTER_LINEAR), np.float32)

    def _to_camera(self, plane: MatLike, interpolation: int) -> MatLike:
        visible = plane[: self.scaled[0], : self.scaled[1]]
        if self.scaled == self.camera:
            return np.ascontiguousarray(visible)
        return cv2.resize(visible, self.camera[::-1], interpolation=interpolation)
