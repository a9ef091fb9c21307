"""Axes of the charts in the project's pages: round steps, and the texts beside them."""

import math


def tick_step(largest: float) -> float:
    """A round step (1, 2 or 5 times a power of ten) that divides 0..largest into about five."""
    magnitude = 1e-3
    while True:
        for factor in (1, 2, 5):
            if factor * magnitude * 5.5 >= largest:
                return factor * magnitude
        magnitude *= 10


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, about five."""
    step = tick_step(high - low)
    return [round(i * step, 6) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def elapsed(seconds: float) -> str:
    """A time since the start for people: `8.4 s`, `2:05 min`, `1:02:05 h`."""
    if abs(seconds) < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    sign = "−" if seconds < 0 else ""
    return f"{sign}{hours}:{minutes:02}:{rest:02} h" if hours else f"{sign}{minutes}:{rest:02} min"
