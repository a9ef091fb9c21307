"""Differences between two models on the same frames, with bootstrap intervals; and limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap resamples for an interval."""

LEAST_FRAMES = 5
"""Fewest frames, or pairs of times, from which an interval is estimated.

From 5 to 40 frames, intervals of no difference exclude 0 in 5 to 7 of 100 simulations.
"""

_NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""

_AT_A_TIME = 100
"""Resamples that are held in memory together."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with the bounds of its 95 % interval, NaN with too few pairs."""

    value: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """Divide the median of `times` by that of `base`, measured in pairs; bootstrap the interval.

    Percentile method on whole pairs: a disturbance that slows both of a pair does not widen the
    interval. Unlike that of a mean, it is not too narrow for few pairs: in simulations of equal
    times, 4 to 6 of 100 exclude 1, from 5 to 40 pairs. It assumes independent pairs; with drift,
    the true interval is wider.

    Raises:
        DataError: there are no pairs, or the numbers of times differ.
    """
    if len(times) != len(base) or not times:
        raise DataError(
            f"a ratio needs equally many times of both, got {len(times)} and {len(base)}"
        )
    pairs = np.array([times, base])
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(0, RESAMPLES, _AT_A_TIME):
        draws = generator.integers(0, len(times), (_AT_A_TIME, len(times)))
        drawn.append(np.median(pairs[:, draws], axis=2))
    medians = np.concatenate(drawn, axis=1)  # (2, resamples)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    if len(times) < LEAST_FRAMES:
        low = high = np.nan
    return Ratio(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """A score of the new model minus that of the old model, with the bounds of its 95 % interval.

    All are NaN where the frames do not define them, and the bounds where fewer than `LEAST_FRAMES`
    frames have such labels: draws from a single one are all the same, which is no certainty.
    """

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def differences(
    counts: npt.NDArray[np.int64], seed: int = 0
) -> tuple[list[Difference], Difference]:
    """Return the gain of each class's IoU and of the mean IoU, with bootstrap intervals.

    Means are over the classes that are labelled, which are the same for both models: a class that
    only one of them predicts, in a single pixel, would move its mean as much as a class in all.

    Percentile method over whole frames, drawn with replacement, the same frames for both models,
    and widened for few frames with the class, see `_bounds`. It assumes independent frames: where
    neighbours look alike, as in a drive, the true interval is wider. Draws in which a class is not
    labelled do not count for it.

    Args:
        counts: `(frames, 2, 3, classes)`: hits, union and labelled pixels, by model (old, new).
        seed: of the draws.
    """
    frames = len(counts)
    flat = counts.reshape(frames, -1).astype(np.float64)
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(0, RESAMPLES, _AT_A_TIME):
        times = generator.multinomial(frames, np.full(frames, 1 / frames), _AT_A_TIME)
        drawn.append(_gains((times @ flat).reshape(_AT_A_TIME, *counts.shape[1:])))
    resampled, measured = np.concatenate(drawn), _gains(counts.sum(0, keepdims=True))[0]
    shown = counts[:, 1, 2] > 0  # the labels, which are the same for both models
    independent = [*shown.sum(0).tolist(), int(shown.any(1).sum())]
    found = [
        _difference(*column) for column in zip(measured, resampled.T, independent, strict=True)
    ]
    return found[:-1], found[-1]


def _gains(counts: npt.NDArray[np.generic]) -> Floats:
    """Return the gains of each class and of the mean, `(N, classes + 1)`; NaN if undefined."""
    hits, union, labelled = (np.asarray(counts[:, :, part], np.float64) for part in range(3))
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=labelled > 0)
    there = ~np.isnan(iou)
    number = there.sum(2)
    summed = np.where(there, iou, 0).sum(2)
    means = np.divide(summed, number, out=np.full(summed.shape, np.nan), where=number > 0)
    return np.concatenate([iou[:, 1] - iou[:, 0], (means[:, 1] - means[:, 0])[:, None]], axis=1)


def _difference(value: float, drawn: Floats, frames: int) -> Difference:
    known = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not known.size:
        return Difference(math.nan, math.nan, math.nan)
    return Difference(float(value), *_bounds(float(value), known, frames))


def _bounds(value: float, drawn: Floats, number: int) -> tuple[float, float]:
    """Return the bounds of a 95 % interval from draws of `number` independent frames.

    Their percentiles, moved away from the value by `_widening`; NaN below `LEAST_FRAMES`.
    """
    if number < LEAST_FRAMES:
        return math.nan, math.nan
    low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
    factor = _widening(number)
    return value + factor * (low - value), value + factor * (high - value)


def _widening(number: int) -> float:
    """Return by which factor a percentile interval from few values is too narrow; above 1.

    The variance of draws is too small by (n - 1) / n, and percentiles ignore that it is estimated,
    as Student's distribution does not. Hesterberg, "What Teachers Should Know About the Bootstrap",
    2015 (arXiv 1411.5279), corrects both by taking percentiles further out; of few values these are
    too coarse, so the bounds are moved instead.
    """
    return student_t(number - 1) / _NORMAL * math.sqrt(number / (number - 1))


def student_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution, to 0.5 % from 4 degrees of freedom.

    By its expansion about the normal distribution: Abramowitz and Stegun 1964, 26.7.5.
    """
    z = _NORMAL
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def beyond_limit(name: str, limit: float, value: float) -> list[str]:
    """Return a line if `value` is above a limit, or below it if `name` begins with min.

    An unmeasured value, NaN, is beyond every limit.
    """
    if math.isnan(value):
        return [f"{name}: nothing was measured, the limit is {limit:g}"]
    if name.startswith("min"):
        return [f"{name}: {value:.4g} is below the limit of {limit:g}"] if value < limit else []
    return [f"{name}: {value:.4g} is above the limit of {limit:g}"] if value > limit else []
