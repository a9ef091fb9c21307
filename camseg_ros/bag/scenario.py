"""Scenarios: limits that a drive must keep, read from YAML, for evaluations and replays alike."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import ConfigError
from camseg_core.evaluation.intervals import beyond_limit
from camseg_ros.bag.read import TimeRange

MIOU, P95_MS, DROPS = "miou", "p95_ms", "drops"
"""Keys of the measurements that `Scenario.check` compares with the limits."""


@dataclass(frozen=True)
class Scenario:
    """Limits, each of them optional, and the time range they apply to.

    Attributes:
        start_s, end_s: the range in s after the bag's first message; `end_s` is excluded.
        min_miou: mean IoU over the classes, 0 to 1.
        min_iou: IoU of single classes by name, 0 to 1.
        max_p95_ms: 95th percentile of the latency, in ms.
        max_drops: frames lost: not segmented or, in a bag, not decodable.

    Raises:
        ConfigError: a limit is out of range.
    """

    start_s: float | None = None
    end_s: float | None = None
    min_miou: float | None = None
    min_iou: Mapping[str, float] = field(default_factory=dict)
    max_p95_ms: float | None = None
    max_drops: int | None = None

    def __post_init__(self) -> None:
        per_class = {f"min_iou.{name}": value for name, value in self.min_iou.items()}
        for name, share in {"min_miou": self.min_miou, **per_class}.items():
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{name} must be in 0..1, got {share}")
        for name in ("start_s", "max_p95_ms", "max_drops"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be >= 0, got {value}")
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise ConfigError(f"end_s must be > start_s ({self.start_s or 0}), got {self.end_s}")

    @property
    def within(self) -> TimeRange:
        """The time range."""
        return TimeRange(self.start_s, self.end_s)

    @staticmethod
    def read(path: Path) -> "Scenario":
        """Read the scenario from a YAML file.

        Raises:
            ConfigError: the file cannot be read, is not YAML, or has an entry that is unknown (the
                closest known one is named), of the wrong type or out of range.
        """
        return load_yaml(path, Scenario)

    def check(self, measured: Mapping[str, float], classes: Mapping[str, float]) -> list[str]:
        """Return a line for each limit that failed; an unmeasured metric fails its limit.

        Args:
            measured: by `MIOU`, `P95_MS` and `DROPS`; missing or NaN if not measured.
            classes: IoU by class name, NaN for a class that did not occur.

        Raises:
            ConfigError: `classes` is not empty and lacks a class that has a limit.
        """
        lines = []
        for name, limit, key in (
            ("min_miou", self.min_miou, MIOU),
            ("max_p95_ms", self.max_p95_ms, P95_MS),
            ("max_drops", self.max_drops, DROPS),
        ):
            if limit is not None:
                lines += beyond_limit(name, limit, measured.get(key, math.nan))
        for name, limit in self.min_iou.items():
            if classes and name not in classes:
                close = difflib.get_close_matches(name, classes, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ConfigError(
                    f"min_iou has a limit for the unknown class {name!r}: {hint}"
                    f"choose from {', '.join(classes)}"
                )
            lines += beyond_limit(f"min_iou of {name}", limit, classes.get(name, math.nan))
        return lines
