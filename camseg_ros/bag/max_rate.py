"""The search for the highest rate that a node keeps up with: a bracket by doubling or halving, then bisection. Deterministic."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LOWEST_HZ = 0.5
"""The search gives up below this rate."""

HIGHEST_HZ = 1000.0

PRECISION = 1.05
"""The search ends where the lowest rate that failed is at most this many times the highest that passed."""

Verdict = Literal["passed", "dropped", "player"]
"""Of one trial; "player": the player itself could not keep the rate, so nothing is known of the node."""


@dataclass(frozen=True)
class Found:
    """The highest rate that passed in Hz, None where none did, and why there is no higher one."""

    rate_hz: float | None
    limited_by: Literal["the node", "the player", "the highest rate allowed"]


def find_max_rate(
    measure: Callable[[float], Verdict],
    start: float,
    low: float = LOWEST_HZ,
    high: float = HIGHEST_HZ,
    precision: float = PRECISION,
) -> Found:
    """Search the highest rate from `low` to `high` that passes.

    Args:
        measure: tries a rate.
        start: the first rate tried; taken into the range.
        low: the lowest rate tried.
        high: the highest rate tried.
        precision: of the result, as a ratio above 1.
    """
    good: float | None = None
    bad: tuple[float, Verdict] | None = None
    rate = min(max(start, low), high)
    while True:
        verdict = measure(rate)
        if verdict == "passed":
            good = rate
            if rate >= high:
                return Found(rate, "the highest rate allowed")
        else:
            bad = rate, verdict
            if rate <= low:
                return Found(None, _limit(verdict))
        if bad is None:
            rate = min(2 * rate, high)
        elif good is None:
            rate = max(rate / 2, low)
        elif bad[0] <= good * precision:
            return Found(good, _limit(bad[1]))
        else:
            rate = math.sqrt(good * bad[0])


def _limit(verdict: Verdict) -> Literal["the node", "the player"]:
    return "the player" if verdict == "player" else "the node"
