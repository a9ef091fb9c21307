"""Class tables of your own (`labels.yaml`), and data sets renumbered to another table by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group
from camseg_core.labels import TRAIN_ID, UNLABELLED, Label

LABEL_TABLE = "labels.yaml"
"""Name of the class table that is read without being named, beside the mapping file."""

MOST_CLASSES = FIRST_GROUP
"""Ids of classes are below; those from here on are for groups."""


@dataclass(frozen=True)
class OwnClass:
    """A class of your own.

    `was` names the classes of other tables that it comes from, by default the one of its name:
    `[car, truck]` merges two, a class that two others come from is split, and `[]` is new even if
    another table has the name.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    was: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.id < MOST_CLASSES:
            raise ConfigError(f"id must be 0 to {MOST_CLASSES - 1}, got {self.id}")
        if not self.name.strip():
            raise ConfigError(f"name must not be empty (id {self.id})")
        if not all(0 <= each <= 255 for each in self.color):
            raise ConfigError(f"color must be RGB, 0 to 255 each, got {list(self.color)}")


@dataclass(frozen=True)
class LabelTable:
    """The classes of a data set or a model, in the order of the model's outputs.

    Raises:
        ConfigError: there are no classes, or an id or a name is given twice.
    """

    classes: tuple[OwnClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError("classes must list at least one class with id, name and color")
        for key in ("id", "name"):
            values = [getattr(each, key) for each in self.classes]
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ConfigError(f"each {key} must be given once, got {twice[0]!r} twice")

    @staticmethod
    def of(labels: Sequence[Label]) -> "LabelTable":
        """Return the table of a model's or a data set's classes."""
        return LabelTable(tuple(OwnClass(each.id, each.name, each.color) for each in labels))

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The classes."""
        return tuple(Label(each.id, each.name, each.color) for each in self.classes)

    @cached_property
    def origins(self) -> dict[str, tuple[str, ...]]:
        """The names in other tables that each class comes from, by name."""
        return {each.name: (each.name,) if each.was is None else each.was for each in self.classes}

    def coming_from(self, name: str) -> tuple[Label, ...]:
        """Return the classes that another table's class `name` became."""
        return tuple(each for each in self.labels if name in self.origins[each.name])


def read_label_table(path: Path) -> LabelTable:
    """Read `labels.yaml`: a list of classes, or the same under `classes:`.

    Raises:
        ConfigError: the file cannot be read, or is not a class table.
    """
    # imported here because machines that only segment have no yaml package
    from camseg_core.config.yaml_file import load_yaml

    return load_yaml(path, LabelTable, of_list="classes")


@dataclass(frozen=True, eq=False)
class Translation:
    """Ids of one table to those of another, with the groups that this needs.

    Attributes:
        ids: the new id by old id, `(256,)` uint8; 255 without a class in the new table.
        labels: the classes of the new table that stand alone in the data set.
        groups: the groups of the new table.
    """

    ids: npt.NDArray[np.uint8]
    labels: tuple[Label, ...]
    groups: tuple[Group, ...]


def translation(
    labels: Sequence[Label],
    groups: Sequence[Group],
    vocabulary: Sequence[Label],
    table: LabelTable,
) -> Translation:
    """Return what renumbers a data set with `labels` and `groups` to `table`, by name.

    `vocabulary` are all classes of the set's own table. A class that was split becomes a group of
    its parts; one that `table` lacks has no class.

    Raises:
        ConfigError: classes and groups are too many for one byte a pixel.
    """
    names = {label.id: label.name for label in vocabulary}
    members: dict[int, tuple[int, ...]] = {label.id: (label.id,) for label in labels}
    members |= {group.id: group.train_ids for group in groups}
    ids, alone = np.full(256, UNLABELLED, np.uint8), set()
    made: dict[tuple[Label, ...], Group] = {}
    for old, train_ids in members.items():
        targets = {new for each in train_ids for new in table.coming_from(names[each])}
        ordered = tuple(label for label in table.labels if label in targets)
        if len(ordered) == 1:
            alone.add(ordered[0])
            ids[old] = ordered[0].id
        elif ordered:
            number = FIRST_GROUP + len(made)
            if ordered not in made and number >= UNLABELLED:
                raise ConfigError(f"a data set must have at most {UNLABELLED - FIRST_GROUP} groups")
            ids[old] = made.setdefault(ordered, Group.of(number, ordered)).id
    return Translation(
        ids, tuple(label for label in table.labels if label in alone), tuple(made.values())
    )


class Renumbered(Samples):
    """Samples whose labels are renumbered when they are read."""

    def __init__(self, samples: Samples, translation: Translation) -> None:
        self._samples, self._translation = samples, translation

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._renumbered(self._samples[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._renumbered, self._samples)

    def _renumbered(self, sample: Sample) -> Sample:
        label = np.asarray(cv2.LUT(sample.label, self._translation.ids), np.uint8)
        return replace(sample, label=label, groups=self._translation.groups)


def joined_table(labels: Sequence[Label], more: Sequence[Label]) -> LabelTable:
    """Return a table of `labels`, and of those of `more` with other names under free ids.

    Raises:
        ConfigError: they are too many.
    """
    names, used = {each.name for each in labels}, {each.id for each in labels}
    found = list(labels)
    for each in more:
        if each.name in names:
            continue
        free = [each.id, *range(MOST_CLASSES)]
        number = next((i for i in free if i not in used and i < MOST_CLASSES), None)
        if number is None:
            raise ConfigError(f"model and data set must have at most {MOST_CLASSES} classes")
        used.add(number)
        found.append(Label(number, each.name, each.color))
    return LabelTable.of(found)


def is_cityscapes(labels: Sequence[Label]) -> bool:
    """Return whether all classes, without groups, are Cityscapes' own, with its train ids."""
    return all(TRAIN_ID.get(each.name) == each.id for each in labels if each.id < FIRST_GROUP)


def same_ids(one: Sequence[Label], other: Sequence[Label]) -> bool:
    """Return whether an id means the same class in both, and a name has the same id."""
    names, ids = {each.name: each.id for each in one}, {each.id: each.name for each in one}
    return all(
        names.get(each.name, each.id) == each.id and ids.get(each.id, each.name) == each.name
        for each in other
    )
