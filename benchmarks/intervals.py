"""Means with 95 % intervals: over seeds, and of paired leads over seeds and frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.metrics import mean

Counts = npt.NDArray[np.int64]
"""Pixels per class, `(…, 3, K)`: those right, those with it as label, those with it as mask."""

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles for 1, 2, … degrees of freedom."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % interval, NaN where one cannot be had."""

    mean: float
    low: float
    high: float
    n: int

    def text(self, of: int, factor: float = 1.0, digits: int = 3, sign: str = "") -> str:
        """Return mean and interval as text; says if there are less than `of` seeds."""
        if not self.n:
            return "not run"
        if np.isnan(self.mean):
            return "–"
        mean, low, high = (
            f"{factor * value:{sign}.{digits}f}" for value in (self.mean, self.low, self.high)
        )
        interval = "" if np.isnan(self.low) else f" ({low} to {high})"
        return mean + interval + (f", {self.n} of {of} seeds" if self.n < of else "")

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0, which that of a single seed cannot say."""
        return self.n > 1 and (self.low > 0 or self.high < 0)


NOT_RUN = Estimate(np.nan, np.nan, np.nan, 0)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean with Student's interval; `values` are those of the seeds that were run."""
    if not values:
        return NOT_RUN
    middle, n = float(np.mean(values)), len(values)
    if n == 1:
        return Estimate(middle, np.nan, np.nan, 1)
    quantile = STUDENT_T[n - 2] if n - 2 < len(STUDENT_T) else 1.96
    reach = quantile * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(middle, middle - reach, middle + reach, n)


def mean_iou(counts: Counts) -> float:
    """Return the mean IoU of counts `(3, K)` over the classes that occur."""
    hits, labelled, predicted = counts
    union = labelled + predicted - hits
    return mean(np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0))


def average_precision(counts: Counts) -> float:
    """Return the AP of counts `(3, K)`, see `camseg_core/evaluation/evaluate.py`."""
    hits, labelled, predicted = counts
    ratio = np.divide(hits, predicted, out=np.full(hits.shape, np.nan), where=predicted > 0)
    return mean(np.where((predicted == 0) & (labelled > 0), 0.0, ratio))


def kept(counts: Counts, reference: Counts) -> float:
    """Return the mean IoU as a share of that of the reference; NaN if that is 0."""
    return mean_iou(counts) / (mean_iou(reference) or np.nan)


def kept_precision(counts: Counts, reference: Counts) -> float:
    """Return the AP as a share of that of the reference; NaN if that is 0."""
    return average_precision(counts) / (average_precision(reference) or np.nan)


def paired_lead(
    ours: Sequence[Sequence[Counts]],
    theirs: Sequence[Sequence[Counts]],
    score: Callable[..., float],
) -> Estimate:
    """Return the lead of `ours` over `theirs` with its bootstrap interval over seeds and frames.

    By seed, each has one or several counts `(frames, 3, K)` of the same frames; `score` gets their
    sums over frames, `(3, K)` each. Seeds and frames are drawn with replacement, the same for both
    sides (Efron's percentile bootstrap, 1000 draws from a fixed seed). With one seed, frames alone
    are drawn. With few seeds the interval is somewhat narrow.
    """
    if not ours:
        return NOT_RUN
    random, seeds, frames = np.random.default_rng(0), len(ours), len(ours[0][0])

    def lead(chosen: npt.NDArray[np.intp], weights: npt.NDArray[np.int64]) -> float:
        def value(side: Sequence[Sequence[Counts]]) -> float:
            scores = [
                score(*(np.tensordot(weights, each, axes=1) for each in side[seed]))
                for seed in chosen
            ]
            return float(np.mean(scores))

        return value(ours) - value(theirs)

    drawn = [
        lead(
            random.integers(seeds, size=seeds),
            np.bincount(random.integers(frames, size=frames), minlength=frames),
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    middle = lead(np.arange(seeds), np.ones(frames, np.int64))
    return Estimate(middle, float(low), float(high), seeds)
