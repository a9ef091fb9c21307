"""How many times as long one thing takes as another, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camseg_core.errors import DataError

RESAMPLES = 2000
"""How often the times are drawn anew for the interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """The median of `times` over that of `base`, which were taken in pairs, with a bootstrap interval (percentile method).

    Pairs are drawn as wholes, so what slowed both of a pair does not widen the interval. Pairs are taken for independent: drift over
    many of them makes the true interval wider than this one.

    Raises:
        DataError: there are no pairs, or the numbers of times differ.
    """
    if len(times) != len(base) or not times:
        raise DataError(f"{len(times)} and {len(base)} times make no pairs; a ratio needs as many of one as of the other")
    pairs = np.array([times, base])
    drawn = pairs[:, np.random.default_rng(seed).integers(0, len(times), (RESAMPLES, len(times)))]  # (2, resamples, pairs)
    medians = np.median(drawn, axis=2)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return Ratio(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))
