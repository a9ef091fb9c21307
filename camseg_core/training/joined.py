"""Several labelled data sets joined for training: their settings, classes, groups and frames."""

import hashlib
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from camseg_core.data import Sample, Samples, evenly_spread
from camseg_core.data.label_table import LabelTable
from camseg_core.data.sets import AUTO, SETS, LabelledSet, open_for_training
from camseg_core.data.sets.kind import OwnLabels
from camseg_core.errors import ConfigError, DataError
from camseg_core.groups import Group, ScoredLabels, frame_table, joint_groups
from camseg_core.labels import Label, cityscapes_labels, train_id_table
from camseg_core.training.frames import HELD_BYTES, Frames, HeldFrames, Part
from camseg_core.training.settings import check_setting

LEAST_SHARE = 0.002
"""Smallest share of the samples for a set with a weight above 0."""


@dataclass(frozen=True)
class SetConfig:
    """One of the data sets of a training.

    Attributes:
        name: for logs, scores and reports.
        kind: of the data set, or `auto` to recognise its layout.
        root: its folder, relative to `--data`.
        weight: its share of the samples, relative to the other sets; with 0 it is only validated.
        mapping: file with the classes of the label values, relative to the configuration.
        labels: folder of the labels, relative to `--data`; by default within `root`.
        train: split, or several joined with `+`, to train on.
        val: the same to validate on.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str
    kind: str = AUTO
    root: str = "."
    weight: float = 1.0
    mapping: str | None = None
    labels: str | None = None
    train: str = "train"
    val: str = "val"

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"\w[\w.-]*", self.name) is not None
        check_setting("name", repr(self.name), plain, "letters, digits and ._-, to name files")
        check_setting("weight", self.weight, self.weight >= 0, ">= 0")
        if self.kind != AUTO and self.kind not in SETS:
            raise ConfigError(
                f"data set must be one of {AUTO}, {', '.join(SETS)}, got {self.kind!r}"
            )

    def open(self, data: Path, split: str) -> LabelledSet:
        """Open a split of the set below the folder `data`; `root` may also be absolute.

        Raises:
            ConfigError: the mapping cannot be used.
            DataError: see `open_for_training`.
        """
        own = OwnLabels(
            None if self.labels is None else data / self.labels,
            None if self.mapping is None else Path(self.mapping),
        )
        try:
            return open_for_training(self.kind, data / self.root, split, own)
        except (ConfigError, DataError) as error:
            raise type(error)(f"data set {self.name}: {error}") from error


Data = str | tuple[SetConfig, ...]
"""The entry `data` of a configuration: the kind of the one set in `--data`, or several sets."""


def check_data(data: Data) -> None:
    """Check the entry `data` of a configuration.

    Raises:
        ConfigError: a list has no set to train on, a name twice, or a share that is too small.
    """
    if isinstance(data, str):
        return
    names = [each.name for each in data]
    check_setting("the names in data", names, len({*names}) == len(names), "all different")
    total = sum(each.weight for each in data)
    check_setting("the sum of the weights in data", total, total > 0, "> 0")
    for each in data:
        share = each.weight / total
        check_setting(
            f"data: weight of {each.name}",
            each.weight,
            share == 0 or share >= LEAST_SHARE,
            f"0, or at least {LEAST_SHARE:g} of the sum {total:g}",
        )


def located(data: Data, folder: Path) -> Data:
    """Return `data` with mapping files that are relative to `folder` as absolute paths."""
    if isinstance(data, str):
        return data
    return tuple(
        each
        if each.mapping is None
        else replace(each, mapping=os.path.realpath(folder / each.mapping))
        for each in data
    )


class OpenedSet(NamedTuple):
    """A split of one of the sets of a training."""

    name: str
    found: LabelledSet
    weight: float = 1.0


def open_data(data: Data, root: Path, split: str) -> list[OpenedSet]:
    """Open the splits for `train` or `val` of `data`; for `train`, sets of weight 0 are left out.

    Raises:
        ConfigError: there is no such kind of data set, or a mapping cannot be used.
        DataError: a split is missing or cannot be used.
    """
    if isinstance(data, str):
        found = open_for_training(data, root, split)
        return [OpenedSet(found.kind, found)]
    if split == "train":
        return [
            OpenedSet(each.name, each.open(root, each.train), each.weight)
            for each in data
            if each.weight
        ]
    return [OpenedSet(each.name, each.open(root, each.val), each.weight) for each in data]


def table_of(data: Data, sets: Sequence[OpenedSet]) -> LabelTable:
    """Return the classes of a model that learns from `sets`.

    If a set has a class table of its own, these are its classes. Otherwise, they are the classes of
    all sets and their groups, in Cityscapes' order; a single set named by its kind keeps its own
    classes and order, if these cover its groups.

    Raises:
        ConfigError: sets have different tables.
    """
    own = [each for each in sets if each.found.table is not None]
    for each in own:
        if each.found.table != own[0].found.table:
            raise ConfigError(
                f"the data sets {own[0].name} and {each.name} must have the same class table "
                "(labels.yaml): give both one file with table: in their mappings"
            )
    if own:
        assert own[0].found.table is not None
        return own[0].found.table
    train_ids = {label.id for each in sets for label in each.found.labels}
    groups = [group for each in sets for group in each.found.groups]
    if isinstance(data, str) and all(train_ids & {*group.train_ids} for group in groups):
        return LabelTable.of(sets[0].found.labels)
    members = train_ids.union(*(group.train_ids for group in groups))
    return LabelTable.of(cityscapes_labels(sorted(members)))


def labels_of(data: Data, root: Path) -> tuple[Label, ...]:
    """Return the classes of the sets of `data`, see `table_of`; no frame is read."""
    sets = [each for split in ("train", "val") for each in open_data(data, root, split)]
    return table_of(data, sets).labels


class JoinedFrames(Frames):
    """The frames of several sets, one set after the other; all have the same labels and groups.

    Samples are drawn from the sets in proportion to their weights.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._ends = [*accumulate(len(part.frames) for part in parts)]
        self.labels, self.groups = parts[0].frames.labels, parts[0].frames.groups

    def parts(self) -> tuple[Part, ...]:
        return self._parts

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        part, place = _located(self._ends, index)
        return self._parts[part].frames[place]

    def every(self, n: int) -> "JoinedFrames":
        """Return every n-th frame of each set."""
        return JoinedFrames([part._replace(frames=part.frames.every(n)) for part in self._parts])

    def labelled_every(self, n: int) -> "JoinedFrames":
        """Return every n-th of the frames of each set with a pixel of a class or group.

        Raises:
            DataError: a set has none.
        """
        parts = [part._replace(frames=part.frames.labelled_every(n)) for part in self._parts]
        return JoinedFrames(parts)

    def chosen(self, numbers: Sequence[int]) -> "JoinedFrames":
        places = [_located(self._ends, number) for number in numbers]
        parts = [
            part._replace(frames=part.frames.chosen([place for at, place in places if at == i]))
            for i, part in enumerate(self._parts)
            if any(at == i for at, _ in places)
        ]
        return JoinedFrames(parts)

    def pixels_by_frame(self) -> npt.NDArray[np.int64]:
        return np.concatenate([part.frames.pixels_by_frame() for part in self._parts])

    def pixel_counts(self) -> npt.NDArray[np.int64]:
        """Count pixels by class index, `(256,)`, each set's in proportion to its weight."""
        total = sum(part.weight for part in self._parts)
        counts = [
            part.frames.pixel_counts() * (part.weight / total * len(self) / len(part.frames))
            for part in self._parts
        ]
        return np.ceil(np.sum(counts, axis=0)).astype(np.int64)

    def sizes(self) -> set[tuple[int, int]]:
        return {size for part in self._parts for size in part.frames.sizes()}

    def fingerprint(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for part in self._parts:
            digest.update(f"{part.name}\n".encode() + part.frames.fingerprint())
        return digest.digest()


class JoinedSamples(Samples):
    """The samples of several sets, one set after the other, for a model with `labels`.

    With more than one set, labels use the joint groups of all, see `joint_groups`.
    """

    def __init__(self, sets: Sequence[OpenedSet], labels: tuple[Label, ...]) -> None:
        self._found, self._labels = [each.found for each in sets], labels
        self._ends = [*accumulate(len(each.samples) for each in self._found)]
        self._groups = joint_groups(labels, *(each.groups for each in self._found))

    def scored(self) -> ScoredLabels:
        """Return the labels to score: those of the only set, or classes and groups of all sets.

        A prediction counts as its class even in frames of sets that only label a group with it:
        right or wrong, but no basis for IoU, precision or boundaries of the class.
        """
        if len(self._found) == 1:
            return self._found[0].scored()
        return ScoredLabels.of(self._labels, self._groups)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        part, place = _located(self._ends, index)
        return self._joined(self._found[part].samples[place])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def spread(self, count: int) -> list[Sample]:
        """Return about `count` samples, equally many of each set, evenly spread over it."""
        each = math.ceil(count / len(self._found))
        return [
            self._joined(sample)
            for one in self._found
            for sample in evenly_spread(one.samples, each)
        ]

    def _joined(self, sample: Sample) -> Sample:
        if len(self._found) == 1:
            return sample
        table = frame_table(self._labels, self._groups, sample.groups)
        ids = train_id_table((*self._labels, *self._groups))[table]
        return replace(sample, label=ids[sample.label], groups=self._groups)


def _located(ends: Sequence[int], index: int) -> tuple[int, int]:
    """Return the part that holds item `index`, and its place there; part i ends before `ends[i]`.

    Raises:
        IndexError: there are fewer items.
    """
    part = bisect_right(ends, index)
    return part, index - (ends[part - 1] if part else 0)


def load_frames(
    sets: Sequence[OpenedSet],
    labels: tuple[Label, ...],
    groups: tuple[Group, ...],
    held_bytes: int = HELD_BYTES,
) -> Frames:
    """Load `sets` as one; `held_bytes` limits all of them together.

    Raises:
        DataError: see `Frames.load`.
    """
    parts = []
    for name, found, weight in sets:
        frames = Frames.load(found.samples, labels, groups, held_bytes)
        if isinstance(frames, HeldFrames):
            held_bytes -= frames.images.nbytes + frames.indices.nbytes
        parts.append(Part(name, frames, weight))
    return parts[0].frames if len(parts) == 1 else JoinedFrames(parts)
