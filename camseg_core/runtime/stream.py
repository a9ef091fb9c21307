"""What one camera's video remembers from frame to frame, so that its masks flicker less."""

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SIZE = 192, 240
"""Rows and columns of a thumbnail. One size for all cameras: the flow then takes 1 to 2 ms for any, and has the size that it needs."""

_GREY_TOLERANCE = 15.0
"""A difference in grey value (0 to 255) that leaves 1/e of the trust: above sensor noise and flow that is off by a fraction of a pixel."""


def thumbnail(rgb: Ids) -> Ids:
    """A picture `(H, W, 3)` of any size, small and grey: `(192, 240)` uint8."""
    return np.asarray(
        cv2.resize(
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), _SIZE[::-1], interpolation=cv2.INTER_AREA
        ),
        np.uint8,
    )


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
    return np.asarray(
        cv2.remap(plane, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


CARRY, MAX_GAP_S = 0.7, 0.5
"""What a stream takes if not told otherwise; by measurement, see docs/results.md."""

_RECOGNISED = 0.6
"""A picture of which less is recognised shows another scene. CamVid's driving keeps above 0.7 at 5 Hz, cuts between drives below 0.5."""


@dataclass(frozen=True)
class _Memory:
    """The last frame: its latents `(S, C, h, w)`, as they went to the decoder, its thumbnail, and when it was taken, if that is known."""

    latents: Floats
    picture: Ids
    time: float | None


class Stream:
    """One camera's video: its latents are averaged over time, following what moves, where the picture is still recognised.

    The latents of a frame become `(1 - w)·(its own) + w·(the last frame's, from where the thing was then)`. The weight w is `carry` where
    optical flow finds the same grey in the last picture, and falls to 0 where it does not: what appears, or changes its light, is
    seen as in a single frame. Averages are taken over what was averaged before, so a thing that stays is averaged over some
    `1 / (1 - carry)` frames.

    It forgets by itself after a longer gap, when time goes back, when the network's picture has another size, and when the scene changes.
    A stream belongs to one camera and one setting of a segmenter; it is not for several threads at once.

    Args:
        carry: from 0 (every frame alone) up to, but not, 1.
        max_gap_s: seconds between two frames beyond which the earlier is forgotten.

    Attributes:
        resets: how often it forgot, by reason: `gap`, `back`, `size`, `scene`, or `hand` for `reset()`.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(self, carry: float = CARRY, max_gap_s: float = MAX_GAP_S) -> None:
        if not 0 <= carry < 1:
            raise ConfigError(f"carry is {carry}; it is from 0 up to, but not, 1")
        if not max_gap_s > 0:
            raise ConfigError(f"max_gap_s is {max_gap_s}; it is above 0")
        self.carry, self.max_gap_s = carry, max_gap_s
        self.resets: Counter[str] = Counter()
        self._memory: _Memory | None = None

    def reset(self) -> None:
        """Forget: the next frame is seen as the first."""
        self._forget("hand")

    def steady(self, latents: Floats, picture: Ids, time: float | None = None) -> Floats:
        """The next frame's latents `(S, C, h, w)`, steadied and remembered.

        `picture` is what the network saw, `(H, W, 3)` uint8; `time` is when it was taken, in seconds of any clock. Without times, no gap
        is noticed.
        """
        seen = thumbnail(picture)
        if self._memory is not None and (
            reason := self._outdated(self._memory, latents.shape, time)
        ):
            self._forget(reason)
        if self._memory is not None:
            motion = Motion.between(seen, self._memory.picture)
            if motion.recognised < _RECOGNISED:
                self._forget("scene")
            else:
                latents = motion.mix(latents, self._memory.latents, self.carry)
        self._memory = _Memory(latents, seen, time)
        return latents

    def _outdated(self, memory: _Memory, shape: tuple[int, ...], time: float | None) -> str:
        """Why the memory is of no use for a frame of this time and with latents of this shape; empty if it is."""
        if shape != memory.latents.shape:
            return "size"
        if time is None or memory.time is None:
            return ""
        if time < memory.time:
            return "back"
        return "gap" if time - memory.time > self.max_gap_s else ""

    def _forget(self, reason: str) -> None:
        if self._memory is not None:
            self.resets[reason] += 1
        self._memory = None
