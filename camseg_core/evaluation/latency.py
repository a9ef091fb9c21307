"""How long frames take, as percentiles."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Median, 95th and 99th percentile, in ms."""

    p50: float
    p95: float
    p99: float


class Latency:
    """Collects the timings of frames, `Segmentation.timings`: ms per stage."""

    def __init__(self) -> None:
        self._stages: dict[str, list[float]] = {}
        self.frames_ms: list[float] = []
        """Of every frame, the sum of its stages."""

    def add(self, timings: Mapping[str, float]) -> None:
        """Count one frame."""
        self.frames_ms.append(sum(timings.values()))
        for stage, ms in timings.items():
            self._stages.setdefault(stage, []).append(ms)

    def total(self) -> Percentiles:
        """Of the whole frame; there must be one."""
        return _percentiles(self.frames_ms)

    def stages(self) -> dict[str, Percentiles]:
        """Of every stage, in the order in which a frame passes them."""
        return {stage: _percentiles(values) for stage, values in self._stages.items()}


def _percentiles(values: list[float]) -> Percentiles:
    return Percentiles(*map(float, np.percentile(values, (50, 95, 99))))
