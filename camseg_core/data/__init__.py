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

    `image` is RGB `(H, W, 3)` uint8, `label` Cityscapes train ids `(H, W)` uint8 with 255 for
    unlabelled, and `name` identifies the frame within its data set. Pixels that have one of several
    classes hold the id of one of the `groups`; what knows no groups treats them as unlabelled.
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
        self._samples, self._numbers = samples, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[self._numbers[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self._samples[number] for number in self._numbers)


def evenly_spread(samples: Samples, count: int | None) -> list[Sample]:
    """`count` of the samples, evenly spread; all if there are fewer, or if it is None."""
    count = min(count or len(samples), len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]
