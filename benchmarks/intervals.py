"""Means with 95 % intervals: over seeds, and of paired leads over seeds and frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.intervals import student_t
from camseg_core.evaluation.metrics import mean

Scores = npt.NDArray[np.float64]

Counts = npt.NDArray[np.int64]
"""Pixels per class, `(…, 3, K)`: those right, those with it as label, those with it as mask."""

STUDENT_T = (12.706, 4.303, 3.182)
"""Two-sided 95 % quantiles for 1 to 3 degrees of freedom; from 4 on, see `student_t`."""

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
    reach = _quantile(n) * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(middle, middle - reach, middle + reach, n)


def _quantile(seeds: int) -> float:
    freedom = seeds - 1
    return STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else student_t(freedom)


def mean_iou(counts: Counts) -> float:
    """Return the mean IoU of counts `(3, K)` over the labelled classes.

    The classes depend on the labels alone: both sides of a comparison have the same.
    """
    return mean(_iou(counts))


def average_precision(counts: Counts) -> float:
    """Return the AP of counts `(3, K)` over the labelled classes; one never predicted counts 0."""
    return mean(_precision(counts))


def _iou(counts: Counts) -> Scores:
    hits, labelled, predicted = counts
    nothing = np.full(hits.shape, np.nan)
    return np.divide(hits, labelled + predicted - hits, out=nothing, where=labelled > 0)


def _precision(counts: Counts) -> Scores:
    hits, labelled, predicted = counts
    nothing = np.where(labelled > 0, 0.0, np.nan)
    return np.divide(hits, predicted, out=nothing, where=(predicted > 0) & (labelled > 0))


def kept(counts: Counts, reference: Counts) -> float:
    """Return the mean IoU as a share of that of the reference; NaN if that is 0.

    Both are over the classes that are labelled in both: those of another view may be others.
    """
    return _share(_iou(counts), _iou(reference))


def kept_precision(counts: Counts, reference: Counts) -> float:
    """Return the AP as a share of that of the reference, see `kept`."""
    return _share(_precision(counts), _precision(reference))


def _share(scores: Scores, reference: Scores) -> float:
    both = ~np.isnan(scores) & ~np.isnan(reference)
    return mean(scores[both]) / (mean(reference[both]) or np.nan)


def paired_lead(
    ours: Sequence[Sequence[Counts]],
    theirs: Sequence[Sequence[Counts]],
    score: Callable[..., float],
) -> Estimate:
    """Return the lead of `ours` over `theirs` on the same frames, with its interval.

    By seed, each has one or several counts `(frames, 3, K)` of the same frames; `score` gets their
    sums over frames, `(3, K)` each.

    With several seeds, the interval joins two sources of chance, as the root of the sum of squares:
    Student's reach of the leads of the seeds, and the normal reach of the mean lead under a
    bootstrap over frames (1000 draws from a fixed seed, the same for both sides). A percentile
    bootstrap over three seeds would be too narrow by half. With one seed, it is the percentile
    bootstrap over frames.
    """
    if not ours:
        return NOT_RUN
    random, frames = np.random.default_rng(0), len(ours[0][0])

    def leads(weights: npt.NDArray[np.int64]) -> list[float]:
        def values(side: Sequence[Sequence[Counts]]) -> list[float]:
            return [
                score(*(np.tensordot(weights, each, axes=1) for each in of_seed))
                for of_seed in side
            ]

        return [our - other for our, other in zip(values(ours), values(theirs), strict=True)]

    drawn = [
        float(np.mean(leads(np.bincount(random.integers(frames, size=frames), minlength=frames))))
        for _ in range(RESAMPLES)
    ]
    seeds = over_seeds(leads(np.ones(frames, np.int64)))
    if seeds.n == 1:
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        return Estimate(seeds.mean, float(low), float(high), 1)
    reach = float(np.hypot(seeds.high - seeds.mean, 1.96 * np.nanstd(drawn)))
    return Estimate(seeds.mean, seeds.mean - reach, seeds.mean + reach, seeds.n)
