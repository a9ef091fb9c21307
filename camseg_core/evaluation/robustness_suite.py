"""What a robustness suite consists of: series of conditions, and the pictures of each condition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from camseg_core.data.corruptions import COMMON
from camseg_core.data.disturbances import PAPER, Disturbance
from camseg_core.data.sample import Sample, Samples
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.evaluate import check_sizes

FAMILIES: dict[str, str] = {
    "paper": "The paper's disturbances",
    "common": "Common corruptions",
    "weather": "Weather on the synthetic drive",
}
"""Families of series, and their titles."""

WEATHER_LEVELS = (0.25, 0.5, 0.75, 1.0)

DRIVE_FPS = 1.0
"""Frames of the synthetic drive are a second apart, 8 m, so that few of them show much street."""


@dataclass(frozen=True)
class Condition:
    """What pictures go through: a series at a level, or one of the references, `clean` and `clear`, at level 0."""

    series: str
    level: float

    @property
    def key(self) -> str:
        """A text that no other condition has, fit for a file's name."""
        return f"{self.series.replace('/', '-')}-{self.level:g}"


CLEAN, CLEAR = Condition("clean", 0.0), Condition("clear", 0.0)
"""What the others are compared with: the data's frames as they are, and the synthetic drive in clear weather."""

REFERENCES = {CLEAN: "the frames as they are", CLEAR: "the synthetic drive in clear weather"}


@dataclass(frozen=True)
class Series:
    """One disturbance of the data's frames, or, where `disturbance` is None, one weather of the synthetic drive, over its levels.

    `clean` is the level at which the pictures are those of the `reference`; the other fields are as in `Disturbance`.
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
        """What its conditions are compared with."""
        return CLEAR if self.disturbance is None else CLEAN

    def conditions(self) -> list[Condition]:
        """One for each level."""
        return [Condition(self.key, level) for level in self.levels]


def _disturbing(family: str, each: Disturbance) -> Series:
    return Series(
        family,
        each.name,
        each.title,
        each.unit,
        each.does,
        each.levels,
        each.clean,
        each.shown,
        each,
    )


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
"""Everything: 31 series."""


def selected(names: Sequence[str]) -> tuple[Series, ...]:
    """The series with these names, in the order of `SUITE`: a family's name stands for all of it, `paper/hue` for one series, and `fog`
    for those of that name in every family.

    Raises:
        ConfigError: there is none of a name; the message lists them.
    """
    chosen = set()
    for name in names:
        found = {series.key for series in SUITE if name in (series.family, series.name, series.key)}
        if not found:
            raise ConfigError(
                f"no disturbance is called {name!r}: choose from {', '.join([*FAMILIES, *(each.key for each in SUITE)])}"
            )
        chosen |= found
    return tuple(series for series in SUITE if series.key in chosen)


class Pictures:
    """The labelled pictures of every condition, made when they are asked for.

    Args:
        samples: the data; `count` of its frames are used, evenly spread over it, or all of them. The synthetic drive has as many.
        count: how many.
        suite: the series.
        seed: of everything random in the disturbances, and of the synthetic drive.

    Raises:
        DataError: there are no samples.
    """

    def __init__(
        self, samples: Samples, count: int | None, suite: Sequence[Series], seed: int
    ) -> None:
        available = len(samples)
        if not available:
            raise DataError("the data set has no frames: there is nothing to evaluate")
        count = min(count or available, available)
        self._samples, self._seed = samples, seed
        self._indices = [index * available // count for index in range(count)]
        self._series = {series.key: series for series in suite}
        height, width = samples[0].image.shape[:2]
        self._drive = SyntheticDrive(count, height, width, seed, DRIVE_FPS)

    def __len__(self) -> int:
        """How many pictures a condition has."""
        return len(self._indices)

    def at(self, condition: Condition, number: int) -> Sample:
        """Picture `number` of a condition; the same bytes whenever it is asked for.

        Raises:
            DataError: the frame cannot be read, or its label's size is not its image's; the message names it.
        """
        series = self._series.get(condition.series)
        if condition == CLEAR:
            return self._drive[number]
        if series is not None and series.disturbance is None:
            return replace(self._drive, weather=series.name, severity=condition.level)[number]
        sample = self._samples[self._indices[number]]
        check_sizes(sample)
        if series is None or series.disturbance is None:
            return sample
        image = series.disturbance(
            sample.image, condition.level, seed=self._seed, frame=sample.name
        )
        return Sample(image, sample.label, sample.name)


def references_of(suite: Sequence[Series]) -> list[Condition]:
    """The references that the series need."""
    return [
        reference
        for reference in REFERENCES
        if any(series.reference == reference for series in suite)
    ]


def conditions_of(suite: Sequence[Series]) -> Iterator[Condition]:
    """The references first, then every condition of every series."""
    yield from references_of(suite)
    for series in suite:
        yield from series.conditions()


SOURCE = "arXiv 2503.15617, on Cityscapes"

CLEAN_AP = 0.702

AP: dict[str, dict[float, float]] = {
    "paper/gaussian_noise": {5: 0.691, 100: 0.691},
    "paper/gaussian_blur": {25: 0.648},
    "paper/motion_blur": {9: 0.684, 21: 0.664, 105: 0.587, 221: 0.307},
    "paper/salt_and_pepper": {10: 0.624, 50: 0.539, 80: 0.051},
    "paper/brightness": {0.5: 0.695},
    "paper/contrast": {0.5: 0.693},
    "paper/saturation": {0: 0.612},
    "paper/hue": {-0.2: 0.589, 0.2: 0.625},
}


def kept(series: str, level: float) -> float | None:
    """The share of the clean AP that the paper's model keeps; None where the paper does not say."""
    value = AP.get(series, {}).get(level)
    return None if value is None else value / CLEAN_AP
