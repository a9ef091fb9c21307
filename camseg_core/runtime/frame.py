"""What the segmenter returns for a frame."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.runtime.geometry import View

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Segmentation:
    """A segmented frame.

    Attributes:
        mask: train ids `(H, W)` uint8, 255 where unlabelled, at the size the `Fit` asks for.
        confidence: of the chosen class, `(H, W)` float32 in 0..1.
        timings: milliseconds per stage, in order. Frames that went through the network together all
            have the time the batch took: each had to wait for it.
        view: where the mask's pixels lie in the frame.
    """

    mask: Ids
    confidence: Floats
    timings: dict[str, float]
    view: View = View()  # noqa: RUF009  # immutable


class StageTimer:
    """Measures stages that follow each other; a stage that comes again adds to its time."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage, which began where the last one ended."""
        now = time.perf_counter()
        spent = (now - self._last) * 1000
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + spent
        self._last = now
