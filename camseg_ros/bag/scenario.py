"""A scenario: what a drive must reach, read from YAML, for the evaluation of a bag and for a bag replayed into a node alike."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import ConfigError

MIOU, P95_MS, DROPS = "miou", "p95_ms", "drops"
"""The names by which `Scenario.check` is told what was measured."""


@dataclass(frozen=True)
class Scenario:
    """Limits, each of which may be left out, and the stretch of time that they are for.

    Attributes:
        start_s, end_s: seconds after the bag's first message; what was recorded before and from then on is left out.
        min_miou: mean IoU over the classes, 0 to 1.
        min_iou: IoU of single classes by name, 0 to 1.
        max_p95_ms: 95th percentile of the latency.
        max_drops: frames that were lost: not segmented, or (in a bag) no pictures.

    Raises:
        ConfigError: a limit makes no sense.
    """

    start_s: float | None = None
    end_s: float | None = None
    min_miou: float | None = None
    min_iou: Mapping[str, float] = field(default_factory=dict)
    max_p95_ms: float | None = None
    max_drops: int | None = None

    def __post_init__(self) -> None:
        shares = {
            "min_miou": self.min_miou,
            **{f"min_iou.{name}": value for name, value in self.min_iou.items()},
        }
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; it must lie in 0..1")
        for name, value in {
            "start_s": self.start_s,
            "max_p95_ms": self.max_p95_ms,
            "max_drops": self.max_drops,
        }.items():
            if value is not None and value < 0:
                raise ConfigError(f"{name} is {value}; it must be at least 0")
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise ConfigError(
                f"end_s is {self.end_s}; it must be after start_s, {self.start_s or 0}"
            )

    @staticmethod
    def read(path: Path) -> "Scenario":
        """The scenario in the YAML file.

        Raises:
            ConfigError: it cannot be read, is not YAML, or has an entry that is unknown (the nearest known one is named), of the wrong
                type or out of range.
        """
        return load_yaml(path, Scenario)

    def check(self, measured: Mapping[str, float], classes: Mapping[str, float]) -> list[str]:
        """The limits that are not kept, a line each; none where all are. What was not measured keeps no limit.

        Args:
            measured: by `MIOU`, `P95_MS` and `DROPS`; what was not measured is missing or NaN.
            classes: IoU by the name of the class, NaN for one that did not occur.

        Raises:
            ConfigError: a class with a limit is not among `classes`, though these are not empty.
        """
        lines = []
        for name, limit, key in (
            ("min_miou", self.min_miou, MIOU),
            ("max_p95_ms", self.max_p95_ms, P95_MS),
            ("max_drops", self.max_drops, DROPS),
        ):
            if limit is not None:
                lines += _check(name, limit, measured.get(key, float("nan")))
        for name, limit in self.min_iou.items():
            if classes and name not in classes:
                close = difflib.get_close_matches(name, classes, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ConfigError(
                    f"min_iou has a limit for the unknown class {name!r}: {hint}choose from {', '.join(classes)}"
                )
            lines += _check(f"min_iou of {name}", limit, classes.get(name, float("nan")))
        return lines


def _check(name: str, limit: float, value: float) -> list[str]:
    if value != value:
        return [f"{name}: nothing was measured, the limit is {limit:g}"]
    kept = value >= limit if name.startswith("min") else value <= limit
    return (
        []
        if kept
        else [
            f"{name}: {value:.4g} is {'below' if name.startswith('min') else 'above'} the limit of {limit:g}"
        ]
    )
