"""What one camera's video remembers from frame to frame, so that its masks flicker less."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError
from camseg_core.runtime.motion import Motion, thumbnail

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

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
        if self._memory is not None and (reason := self._outdated(self._memory, latents.shape, time)):
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
