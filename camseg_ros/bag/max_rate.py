"""Searches the highest rate that a node keeps up with. Needs no node."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from camseg_ros.bag.session import Measurement

LOWEST_HZ, HIGHEST_HZ = 0.5, 1000.0
"""Bounds of the search."""

PRECISION = 1.05
"""The search ends if the lowest failed rate is at most this many times the highest passed one."""

ANSWERED_SHARE = 0.95
"""A trial passes if this share of the images is answered."""

Verdict = Literal["passed", "dropped", "player"]

VERDICTS: Mapping[Verdict, str] = {
    "passed": "kept up",
    "dropped": "too fast for the node",
    "player": "too fast for the player, so nothing is known about the node",
}


@dataclass(frozen=True)
class MaxRate:
    """The highest rate that passed in Hz, None if none did, and what limits it."""

    rate_hz: float | None
    limited_by: Literal["the node", "the player", "the highest rate allowed"]


def find_max_rate(
    measure: Callable[[float], Verdict],
    start: float,
    low: float = LOWEST_HZ,
    high: float = HIGHEST_HZ,
) -> MaxRate:
    """Search the highest rate that passes: double or halve from `start`, then bisect.

    Args:
        measure: measures a rate in Hz.
        start: the first rate.
        low: the lowest rate to try, in Hz.
        high: the highest rate to try, in Hz.
    """
    good: float | None = None
    bad: tuple[float, Verdict] | None = None
    rate = min(max(start, low), high)
    while True:
        verdict = measure(rate)
        if verdict == "passed":
            good = rate
            if rate >= high:
                return MaxRate(rate, "the highest rate allowed")
        else:
            bad = rate, verdict
            if rate <= low:
                return MaxRate(None, _limited_by(verdict))
        if bad is None:
            rate = min(2 * rate, high)
        elif good is None:
            rate = max(rate / 2, low)
        elif bad[0] <= good * PRECISION:
            return MaxRate(good, _limited_by(bad[1]))
        else:
            rate = math.sqrt(good * bad[0])


def _limited_by(verdict: Verdict) -> Literal["the node", "the player"]:
    return "the player" if verdict == "player" else "the node"


def judge(trial: Measurement) -> Verdict:
    """Judge the rate of a trial.

    It fails the node even at a lower rate than planned: the node dropped images all the same.
    """
    if trial.playback.answered_share < ANSWERED_SHARE:
        return "dropped"
    return "passed" if trial.playback.rate_kept else "player"
