"""Custom class tables (`labels.yaml`), and data sets mapped to another table by class name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group, ScoredLabels
from camseg_core.labels import TRAIN_ID, UNLABELLED, Label

LABEL_TABLE = "labels.yaml"
"""Name of the class table that is found by itself, beside the mapping file."""

MOST_CLASSES = FIRST_GROUP
"""Class ids are below this number; groups have the ids from here on."""


@dataclass(frozen=True)
class OwnClass:
    """A class of a custom table.

    `was` names the classes of other tables that it comes from, by default the class of its name:
    `[car, truck]` merges two, a class named by two others is split, and `[]` is new even if another
    table has the name.
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
        if len({*(self.was or ())}) < len(self.was or ()):
            raise ConfigError(f"was must name each class once, got {list(self.was or ())}")


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
    """Return the translation of a data set with `labels` and `groups` to `table`, by name.

    `vocabulary` are all classes of the set's own table. A class that was split becomes a group of
    its parts; a class that `table` lacks becomes unlabelled.

    Raises:
        ConfigError: there are too many classes and groups for one byte a pixel.
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
    """Return a table of `labels` and, under free ids, of those in `more` with other names.

    Raises:
        ConfigError: there are too many.
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
    """Return whether ids that occur in both mean the same class, and names have the same id."""
    names, ids = {each.name: each.id for each in one}, {each.id: each.name for each in one}
    return all(
        names.get(each.name, each.id) == each.id and ids.get(each.id, each.name) == each.name
        for each in other
    )


def shared_labels(
    own: ScoredLabels, table: LabelTable, models: Mapping[str, Sequence[Label]]
) -> tuple[list[ScoredLabels], list[str]]:
    """Return the labels that all models distinguish, for the masks of each, and what is missing.

    Classes are matched by name and by origin (`was`). A label for which a model has no class is
    left out. Labels for which a model has a single class become a group.

    Args:
        own: the labels of a data set.
        table: the set's class table, whose ids they hold.
        models: the classes of each model by the name to use in messages.

    Returns:
        The same labels for each model, with the ids that stand for each, and a line for each label
        that is left out or became part of a group.

    Raises:
        ConfigError: no label is left.
    """
    names = {label.id: label.name for label in table.labels}
    members = [{names[id] for id in classes} for classes in own.classes]
    kept, missing = list[int](), dict[str, list[str]]()
    meant = {model: _meant(labels, table) for model, labels in models.items()}
    for place, label in enumerate(own.labels):
        lacking = [
            model
            for model, classes in meant.items()
            if not any(each & members[place] for each in classes.values())
        ]
        if lacking:
            missing.setdefault(" and ".join(lacking), []).append(label.name)
        else:
            kept.append(place)
    if not kept:
        known = ", ".join(label.name for label in own.labels)
        raise ConfigError(
            f"{' and '.join(models)} must share a class with the labels ({known}): list in "
            "labels.yaml what each class was, or choose other models"
        )
    lines = [f"not scored, missing in {of}: {', '.join(left)}" for of, left in missing.items()]
    joined = _joined(kept, members, [each for one in meant.values() for each in one.values()])
    truth = np.full(256, len(joined), np.uint8)
    labels: list[Label] = []
    for number, places in enumerate(joined):
        truth[np.isin(own.truth, places)] = number
        first = own.labels[places[0]]
        if len(places) > 1:
            parts = [own.labels[place] for place in places]
            lines.append(f"{' and '.join(each.name for each in parts)} count as one class")
            first = Group.of(first.id, parts)
        labels.append(first)
    wanted = [{name for place in places for name in members[place]} for places in joined]
    return [
        ScoredLabels(
            tuple(labels),
            tuple(tuple(id for id, each in classes.items() if each & names) for names in wanted),
            truth,
            own.own,
        )
        for classes in meant.values()
    ], lines


def _meant(labels: Sequence[Label], table: LabelTable) -> dict[int, set[str]]:
    """Return the classes of `table` that each class of a model stands for, by its id."""
    if {(each.id, each.name) for each in labels} <= {(each.id, each.name) for each in table.labels}:
        return {each.id: {each.name} for each in labels}
    found: dict[int, set[str]] = {each.id: set() for each in labels}
    for each in labels:
        for own in table.classes:
            if each.name in table.origins[own.name] or (each.name == own.name and own.was != ()):
                found[each.id].add(own.name)
    return found


def _joined(
    kept: Sequence[int], members: Sequence[set[str]], meant: Sequence[set[str]]
) -> list[list[int]]:
    """Return the places `kept`, joined where a model has a single class for them."""
    groups = [[place] for place in kept]
    for classes in meant:
        alike = [group for group in groups if all(members[place] <= classes for place in group)]
        if len(classes) > 1 and len(alike) > 1:
            groups = [each for each in groups if each not in alike]
            groups.append(sorted(place for group in alike for place in group))
    return sorted(groups)
