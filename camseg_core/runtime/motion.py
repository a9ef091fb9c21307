"""Where the things in a picture were one frame earlier, by optical flow between small grey pictures."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SIZE = 192, 240
"""Rows and columns of a thumbnail. One size for all cameras: the flow then takes 1 to 2 ms for any, and has the size that it needs."""

_GREY_TOLERANCE = 15.0
"""A difference in grey value (0 to 255) that leaves 1/e of the trust: above sensor noise and flow that is off by a fraction of a pixel."""


def thumbnail(rgb: Ids) -> Ids:
    """A picture `(H, W, 3)` of any size, small and grey: `(192, 240)` uint8."""
    return np.asarray(cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), _SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Motion:
    """What happened between two thumbnails.

    `flow` `(192, 240, 2)` float32 says how far right and below of it each pixel was before, in pixels; `trust` `(192, 240)`
    float32, 0 to 1, how much alike the two are: 1 where the same grey is found there.
    """

    flow: Floats
    trust: Floats

    @staticmethod
    def between(now: Ids, before: Ids) -> "Motion":
        """By dense inverse search (DIS, arXiv 1603.03590), OpenCV's fastest flow."""
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        still = np.zeros((*_SIZE, 2), np.float32)  # where the search starts
        flow = np.asarray(search.calc(now, before, still), np.float32)
        difference = now.astype(np.float32) - _moved(before, flow)
        return Motion(flow, np.exp(-np.square(difference / _GREY_TOLERANCE)))

    @property
    def recognised(self) -> float:
        """The share of the picture that was there before, 0 to 1: the mean trust."""
        return float(self.trust.mean())

    def mix(self, now: Floats, before: Floats, share: float) -> Floats:
        """Planes `(..., h, w)` of the picture now, mixed with those before, each from where its thing was.

        The part of those before is `share` where the trust is 1, and falls with it.
        """
        height, width = now.shape[-2:]
        scale = np.array([width / _SIZE[1], height / _SIZE[0]], np.float32)
        flow = np.asarray(_resized(self.flow, height, width), np.float32) * scale
        weight = share * _resized(self.trust, height, width)
        moved = [_moved(plane, flow) for plane in before.reshape(-1, height, width)]
        mixed: Floats = now + weight * (np.stack(moved).reshape(now.shape) - now)
        return mixed


def _resized(array: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _moved(plane: Ids | Floats, flow: Floats) -> Floats:
    """What of a plane `(h, w)` the flow `(h, w, 2)` points to, interpolated; what lies outside is like the edge."""
    rows, columns = np.indices(plane.shape, np.float32)
    there = columns + flow[..., 0], rows + flow[..., 1]
    return np.asarray(cv2.remap(plane, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
