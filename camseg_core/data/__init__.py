"""Data sets, augmentation and corruptions; `Sample` is what every data set yields."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.groups import Group


@dataclass(frozen=True)
class Sample:
    """One labelled frame.

    `image` is RGB `(H, W, 3)` uint8, `label` class ids `(H, W)` uint8 (Cityscapes train ids, or
    those of the set's class table), 255 for unlabelled, and `name` identifies the frame within its
    data set. Pixels that have one of several classes hold the id of one of the `groups`; code that
    ignores groups treats them as unlabelled.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    name: str
    groups: tuple[Group, ...] = ()


class Samples(Protocol):
    """A data set, or a part of it: samples by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def __iter__(self) -> Iterator[Sample]: ...


class SamplesOf(Samples):
    """Some of the samples of another data set, by number."""

    def __init__(self, samples: Samples, numbers: Sequence[int]) -> None:
        self.samples, self.numbers = samples, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[self.numbers[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self.samples[number] for number in self.numbers)


def evenly_spread(samples: Samples, count: int | None) -> list[Sample]:
    """Return `count` of the samples, evenly spread; all if there are fewer, or if it is None."""
    return [samples[number] for number in spread_numbers(len(samples), count)]


def spread_numbers(total: int, count: int | None) -> list[int]:
    """Return `count` of the numbers below `total`, evenly spread; all if it is None or larger."""
    count = min(count or total, total)
    return [place * total // count for place in range(count)]
