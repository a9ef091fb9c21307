"""Whether a model is right as often as its confidence says."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The labelled pixels with a confidence in `(low, high]`: how many, their mean confidence and the share that is right.

    The last two are NaN for an empty bin.
    """

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


class Calibration:
    """Expected calibration error, Guo et al., "On calibration of modern neural networks", ICML 2017, over pixels.

    Confidences fall into bins of equal width over 0..1; the error is the mean over pixels of the distance between a bin's mean
    confidence and its accuracy.
    """

    def __init__(self, bins: int = CALIBRATION_BINS) -> None:
        self._pixels, self._hits = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
        self._confidence = np.zeros(bins)

    def add(self, confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> None:
        """Count the labelled pixels of one frame: two arrays `(N,)`, of the predicted class's confidence and whether it is right."""
        bins, values = len(self._pixels), confidence.astype(np.float64)
        index = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
        self._pixels += np.bincount(index, minlength=bins)
        self._hits += np.bincount(index[correct], minlength=bins)
        self._confidence += np.bincount(index, weights=values, minlength=bins)

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The reliability diagram, from low confidence to high."""
        count = len(self._pixels)
        filled = np.maximum(self._pixels, 1)
        confidence, accuracy = (np.where(self._pixels > 0, sums / filled, np.nan) for sums in (self._confidence, self._hits))
        return tuple(
            ReliabilityBin(i / count, (i + 1) / count, int(self._pixels[i]), float(confidence[i]), float(accuracy[i])) for i in range(count)
        )

    def error(self) -> float:
        """Expected calibration error, 0..1; NaN before the first pixel."""
        pixels = self._pixels.sum()
        return float(np.abs(self._hits - self._confidence).sum() / pixels) if pixels else float("nan")
