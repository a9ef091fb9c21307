"""Memory of one camera's video, so that its masks flicker less."""

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SIZE = 192, 240
"""Rows and columns of a thumbnail, for any camera: optical flow at this size takes 1 to 2 ms."""

_GREY_TOLERANCE = 15.0
"""Grey difference (0 to 255) at which trust falls to 1/e, by day: above noise and flow errors.

In the dark or in haze it is less, in proportion to the contrast.
"""

_LEAST_TOLERANCE = 3.0
"""The least that it can be, above the noise of a sensor in the dark."""

_DAYLIGHT = 60.0
"""Contrast by day, as the standard deviation of an image's greys; CamVid's have 61 to 66."""


def thumbnail(rgb: Ids) -> Ids:
    """Shrink an image `(H, W, 3)` of any size to a grey one, `(192, 240)` uint8."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, _SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Motion:
    """The motion between two thumbnails.

    Attributes:
        flow: from each pixel to its earlier place, right and down in pixels, `(192, 240, 2)`.
        trust: how alike the two are, 1 for the same grey, `(192, 240)` float32.
    """

    flow: Floats
    trust: Floats

    @staticmethod
    def between(now: Ids, before: Ids) -> "Motion":
        """Estimate by dense inverse search (DIS, arXiv 1603.03590), OpenCV's fastest flow."""
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        still = np.zeros((*_SIZE, 2), np.float32)  # where the search starts
        flow = np.asarray(search.calc(now, before, still), np.float32)
        difference = now.astype(np.float32) - _moved(before, flow)
        contrast = min(now.std(), before.std()) / _DAYLIGHT
        tolerance = max(_LEAST_TOLERANCE, _GREY_TOLERANCE * min(1.0, contrast))
        return Motion(flow, np.exp(-np.square(difference / tolerance)))

    @property
    def recognised(self) -> float:
        """The share of the image that was there before, 0 to 1: the mean trust."""
        return float(self.trust.mean())

    def mix(self, now: Floats, before: Floats, share: float) -> Floats:
        """Mix planes `(..., h, w)` with the earlier ones, moved along the flow.

        The earlier planes weigh `share` where the trust is 1, less where it is lower.
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
    """Look up a plane `(h, w)` where the flow `(h, w, 2)` points, interpolated; edges extend."""
    rows, columns = np.indices(plane.shape, np.float32)
    there = columns + flow[..., 0], rows + flow[..., 1]
    return np.asarray(
        cv2.remap(plane, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


CARRY, MAX_GAP_S = 0.7, 0.5
"""Defaults of a stream, measured in docs/results.md."""

_RECOGNISED = 0.6
"""Below this share the scene has changed: CamVid's drives stay above 0.7 at 5 Hz, cuts fall
below 0.5."""


@dataclass(frozen=True)
class _Memory:
    """The last frame: its latents `(S, C, h, w)` as decoded, thumbnail and capture time."""

    latents: Floats
    picture: Ids
    time: float | None


class Stream:
    """One camera's video: averages latents over time along the optical flow.

    A frame's latents become `(1 - w)·(its own) + w·(the last frame's, moved along the flow)`. The
    weight w is `carry` where the flow finds the same grey in the last image, and falls to 0 where
    it does not: what changes its brightness, or appears with another, is seen as in a single frame;
    what appears with nearly the brightness of what it covers, over a few frames. Averaging is
    recursive, over about `1 / (1 - carry)` frames. Masks then depend on earlier frames; account for
    this in a safety case.

    The memory resets after a long gap, when time goes back, when the network's image changes its
    size, and when the scene changes. A stream belongs to one camera and one segmenter, and is not
    thread-safe.

    Args:
        carry: weight of the past, >= 0 (every frame alone) and < 1.
        max_gap_s: seconds between two frames after which the earlier is forgotten.

    Attributes:
        resets: number of resets by reason: `gap`, `back`, `size`, `scene`, or `hand` for `reset()`.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(self, carry: float = CARRY, max_gap_s: float = MAX_GAP_S) -> None:
        if not 0 <= carry < 1:
            raise ConfigError(f"carry must be >= 0 and < 1, got {carry}")
        if not max_gap_s > 0:
            raise ConfigError(f"max_gap_s must be > 0, got {max_gap_s}")
        self.carry, self.max_gap_s = carry, max_gap_s
        self.resets: Counter[str] = Counter()
        self._memory: _Memory | None = None

    def reset(self) -> None:
        """Forget the last frame."""
        self._forget("hand")

    def steady(self, latents: Floats, image: Ids, time: float | None = None) -> Floats:
        """Average the next frame's latents with the past, and remember them.

        Args:
            latents: of the frame, `(S, C, h, w)` float32.
            image: the network's input, RGB `(H, W, 3)` uint8.
            time: capture time in seconds; without it, gaps are not detected.

        Returns:
            The averaged latents, `(S, C, h, w)` float32.
        """
        seen = thumbnail(image)
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
        """Why the memory does not suit a frame of this shape and time; empty if it does."""
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
