"""The robustness suite: series of conditions, their pictures, and results kept in files."""

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from camseg_core.data import Sample, Samples, spread_numbers
from camseg_core.data.corruptions import COMMON
from camseg_core.data.disturbances import PAPER, Disturbance
from camseg_core.data.label_table import LabelTable, from_cityscapes
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.evaluate import check_sizes
from camseg_core.groups import ScoredLabels

FAMILIES: dict[str, str] = {
    "paper": "The paper's disturbances",
    "common": "Common corruptions",
    "weather": "Weather on the synthetic drive",
}
"""Titles of the families of series."""

WEATHER_LEVELS = (0.25, 0.5, 0.75, 1.0)

REVISION = 1
"""Increase this if a disturbance makes different pictures: stored results are then redone."""

DRIVE_FPS = 1.0
"""Frames of the synthetic drive are a second (8 m) apart: a few show much of the street."""


@dataclass(frozen=True)
class Condition:
    """A series at a level, or one of the references, `clean` and `clear`, at level 0."""

    series: str
    level: float

    @property
    def key(self) -> str:
        """A unique text, fit for a file name."""
        return f"{self.series.replace('/', '-')}-{self.level:g}"


CLEAN, CLEAR = Condition("clean", 0.0), Condition("clear", 0.0)
"""The references: the undisturbed frames, and the synthetic drive in clear weather."""

REFERENCES = {CLEAN: "the frames as they are", CLEAR: "the synthetic drive in clear weather"}


@dataclass(frozen=True)
class Series:
    """A disturbance over its levels; a weather of the synthetic drive if `disturbance` is None.

    `clean` is the level without effect; the other fields are as in `Disturbance`.
    """

    family: str
    name: str
    title: str
    unit: str
    does: str
    levels: tuple[float, ...]
    clean: float
    shown: float
    disturbance: Disturbance | None

    @property
    def key(self) -> str:
        """Family and name, as in `paper/hue`."""
        return f"{self.family}/{self.name}"

    @property
    def reference(self) -> Condition:
        """The reference that its conditions are compared with."""
        return CLEAR if self.disturbance is None else CLEAN

    def conditions(self) -> list[Condition]:
        """Return a condition per level."""
        return [Condition(self.key, level) for level in self.levels]


def _disturbing(family: str, each: Disturbance) -> Series:
    described = {name: value for name, value in vars(each).items() if name != "apply"}
    return Series(family, **described, disturbance=each)


def _weather(name: str, does: str) -> Series:
    return Series(
        "weather", name, name.capitalize(), "severity", does, WEATHER_LEVELS, 0, 0.75, None
    )


SUITE: tuple[Series, ...] = (
    *(_disturbing("paper", each) for each in PAPER),
    *(_disturbing("common", each) for each in COMMON),
    _weather("fog", "Fog by depth: at full severity a third of the light is left after 16 m."),
    _weather("rain", "Dim grey light, mist, reflections on the wet ground, streaks of drops."),
    _weather("snow", "Snow on the ground, less where wheels run, flakes in the air, mist."),
    _weather(
        "night",
        "The headlights' cone, and lamps, windows and lights that shine by themselves; more grain.",
    ),
)
"""All 31 series."""


def selected(names: Sequence[str]) -> tuple[Series, ...]:
    """Return the series with these names, in the order of `SUITE`.

    Args:
        names: `paper` is a whole family, `paper/hue` one series, `fog` every series of that name.

    Raises:
        ConfigError: a name is unknown; the message lists the known ones.
    """
    chosen = set()
    for name in names:
        found = {series.key for series in SUITE if name in (series.family, series.name, series.key)}
        if not found:
            raise ConfigError(
                f"no disturbance is called {name!r}: choose from "
                f"{', '.join([*FAMILIES, *(each.key for each in SUITE)])}"
            )
        chosen |= found
    return tuple(series for series in SUITE if series.key in chosen)


def listing() -> list[str]:
    """Return all series with their levels, by family, as lines of text."""
    width, lines = max(len(series.key) for series in SUITE), []
    for family, title in FAMILIES.items():
        lines.append(title)
        for series in SUITE:
            if series.family == family:
                levels = " ".join(f"{level:g}" for level in series.levels)
                unit = f"({series.unit}, clean at {series.clean:g})"
                lines.append(f"  {series.key:<{width}}  {levels}  {unit}")
    return lines


class Pictures:
    """The labelled pictures of every condition, made on demand.

    Args:
        samples: the data. The synthetic drive has as many frames as are used of the data.
        count: how many frames to use, evenly spread; None uses all.
        suite: the series.
        seed: seed of the disturbances and of the synthetic drive.
        table: the class table of the samples' ids, None for Cityscapes'. Classes of the synthetic
            drive that were split in it are unlabelled there.

    Raises:
        DataError: there are no samples.
    """

    def __init__(
        self,
        samples: Samples,
        count: int | None,
        suite: Sequence[Series],
        seed: int,
        table: LabelTable | None = None,
    ) -> None:
        available = len(samples)
        if not available:
            raise DataError("the data set has no frames: there is nothing to evaluate")
        self._samples, self._seed = samples, seed
        self._indices = spread_numbers(available, count)
        self._series = {series.key: series for series in suite}
        self._table = table

    @functools.cached_property
    def _drive(self) -> SyntheticDrive:
        """The synthetic drive, of the size of the data's first frame."""
        first = self._samples[0]
        height, width = first.image.shape[:2]
        try:
            return SyntheticDrive(len(self), height, width, self._seed, DRIVE_FPS)
        except ConfigError as error:
            raise DataError(
                f"the synthetic drive, on which weather is measured, has the size of the first "
                f"frame, {first.name}: {error}; leave weather out with --only paper,common"
            ) from error

    def __len__(self) -> int:
        """Return the number of pictures of a condition."""
        return len(self._indices)

    def at(self, condition: Condition, number: int) -> Sample:
        """Return picture `number` of a condition: the same bytes at every call.

        Raises:
            DataError: the frame cannot be read, or its label differs in size from its image.
        """
        series = self._series.get(condition.series)
        if condition == CLEAR:
            return from_cityscapes(self._drive, self._table)[number]
        if series is not None and series.disturbance is None:
            drive = replace(self._drive, weather=series.name, severity=condition.level)
            return from_cityscapes(drive, self._table)[number]
        sample = self._samples[self._indices[number]]
        check_sizes(sample)
        if series is None or series.disturbance is None:
            return sample
        image = series.disturbance(
            sample.image, condition.level, seed=self._seed, frame=sample.name
        )
        return Sample(image, sample.label, sample.name)

    def require_drive(self, scored: ScoredLabels) -> None:
        """Check that the synthetic drive has a class to score.

        Raises:
            DataError: it has none; the message says how to leave weather out.
        """
        first = self.at(CLEAR, 0).label
        if not (scored.truth_of(first) < len(scored.labels)).any():
            names = ", ".join(label.name for label in scored.labels)
            raise DataError(
                f"the synthetic drive, on which weather is measured, shows none of the classes to "
                f"score ({names}): leave weather out with --only paper,common"
            )

    def survey(self, scored: ScoredLabels) -> tuple[dict[str, Any], int]:
        """Return everything that determines the results, and how many frames can be scored.

        Those are the data's frames with a pixel to score; every frame is read.
        """
        digest, with_labels = hashlib.sha256(), 0
        for number in range(len(self)):
            sample = self.at(CLEAN, number)
            with_labels += bool((scored.truth_of(sample.label) < len(scored.labels)).any())
            digest.update(
                os.fsencode(sample.name) + sample.image.tobytes() + sample.label.tobytes()
            )
        key = {
            "revision": REVISION,
            "frames": len(self),
            "data": digest.hexdigest(),
            "labels": [label.id for label in scored.labels],
            **(
                {"classes": [*map(list, scored.classes)], "truth": scored.truth.tolist()}
                if scored.has_groups()
                else {}
            ),
            **({} if self._table is None else {"table": [*map(asdict, self._table.classes)]}),
            "seed": self._seed,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        }
        return key, with_labels


def references_of(suite: Sequence[Series]) -> list[Condition]:
    """Return the references that the series need."""
    return [
        reference
        for reference in REFERENCES
        if any(series.reference == reference for series in suite)
    ]


def conditions_of(suite: Sequence[Series]) -> Iterator[Condition]:
    """Yield the references, then every condition of every series."""
    yield from references_of(suite)
    for series in suite:
        yield from series.conditions()
