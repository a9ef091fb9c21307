"""Custom class tables (`labels.yaml`), and data sets mapped to another table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group, distinguished
from camseg_core.labels import (
    CITYSCAPES,
    UNLABELLED,
    UNLABELLED_NAME,
    Label,
    is_train_class,
    plain_name,
)

LABEL_TABLE = "labels.yaml"
"""Name of the class table that is found by itself, beside the mapping file."""

MOST_CLASSES = FIRST_GROUP
"""Class ids are below this number; groups have the ids from here on."""


@dataclass(frozen=True)
class OwnClass:
    """A class of a custom table.

    `was` names the classes of other tables that it comes from, by default the class of its name:
    `[car, truck]` merges two, a class named by two others is split, and `[]` is new even if another
    table has the name, see `related`.
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
        if self.name != self.name.strip():
            raise ConfigError(f"name must not begin or end with a blank, got {self.name!r}")
        if ":" in self.name or self.name.startswith("#") or len(self.name.splitlines()) > 1:
            raise ConfigError(
                f"name must be one line without ':' and not begin with '#', got {self.name!r}"
            )
        if plain_name(self.name) in (UNLABELLED_NAME, "unlabeled"):
            raise ConfigError(
                f"name must not be {self.name} (id {self.id}): pixels without a class have "
                f"{UNLABELLED} and need no entry; remove it, and list other values that mean it "
                f"under {UNLABELLED_NAME} in mapping.yaml"
            )
        if not all(0 <= each <= 255 for each in self.color):
            raise ConfigError(f"color must be RGB, 0 to 255 each, got {list(self.color)}")
        if len({*map(plain_name, self.was or ())}) < len(self.was or ()):
            raise ConfigError(f"was must name each class once, got {list(self.was or ())}")


@dataclass(frozen=True)
class LabelTable:
    """The classes of a data set or a model, in the order of the model's outputs.

    Raises:
        ConfigError: there are no classes, or an id or a name (see `plain_name`) is given twice.
    """

    classes: tuple[OwnClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError("classes must list at least one class with id, name and color")
        owner: dict[int | str, OwnClass] = {}
        for each in self.classes:
            for key in (each.id, plain_name(each.name)):
                other = owner.setdefault(key, each)
                if other is each:
                    continue
                if key == each.id:
                    both = f"{other.name} and {each.name}"
                    raise ConfigError(f"each id must be given once, got {each.id} for {both}")
                both = "twice" if other.name == each.name else f"and {each.name!r}"
                raise ConfigError(
                    f"each name must be given once, got {other.name!r} {both}: names that differ "
                    "in case, blanks, _ or - are the same"
                )

    @staticmethod
    def of(labels: Sequence[Label]) -> "LabelTable":
        """Return the table of a model's or a data set's classes."""
        return LabelTable(
            tuple(OwnClass(each.id, each.name, each.color, each.was) for each in labels)
        )

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The classes."""
        return tuple(Label(each.id, each.name, each.color, was=each.was) for each in self.classes)


def read_label_table(path: Path) -> LabelTable:
    """Read `labels.yaml`: a list of classes, or the same under `classes:`.

    Raises:
        ConfigError: the file cannot be read, or is not a class table.
    """
    # imported here because machines that only segment have no yaml package
    from camseg_core.config.yaml_file import load_yaml

    return load_yaml(path, LabelTable, of_list="classes")


def is_label_table(path: Path) -> bool:
    """Whether a file looks like a class table rather than a mapping file."""
    from camseg_core.config.yaml_file import is_list

    return is_list(path, "classes")


def related(old: Sequence[Label], new: Sequence[Label]) -> tuple[tuple[int, ...], ...]:
    """Return for each of the classes `new` the places in `old` of the classes that it comes from.

    The class of the same name is the first of them, then they are in the order of `was`. Names are
    compared as `plain_name` writes them. The rules, each for what those before it left:

    1. A class with the same name that states the same origins in both is the same, nothing else.
    2. A class that states no origins is the one of its name. Cityscapes' classes state their names.
    3. A class that keeps its name and an origin is itself, and what its other origins name.
    4. A class comes from those that its origins name, or whose origins it has in common.
    5. A class without any comes from that of its name, unless one of the two is new (`was: []`).
    """
    names, others = ([plain_name(each.name) for each in labels] for labels in (new, old))
    was, were = _origins(new), _origins(old)
    by_name = {name: j for j, name in enumerate(others)}
    found: list[list[int]] = [[] for _ in new]
    claimed, closed = set[int](), set[int]()
    # origins that are not accounted for yet, of both sides
    rest, left = ([{*(each or ())} for each in sides] for sides in (was, were))
    for i, j in ((i, by_name[name]) for i, name in enumerate(names) if name in by_name):
        mine, theirs = was[i], were[j]
        if mine is None:
            left[j] -= {*by_name}
        elif mine == theirs == () or {*mine} & {*(theirs or ())}:
            rest[i] -= {*(theirs or ())}
            left[j] -= {*mine}
        else:
            continue
        found[i].append(j)
        claimed.add(j)
        stated = new[i].was is not None and old[j].was is not None
        if stated and {*(mine or ())} == {*(theirs or ())}:
            closed.add(i)
    for i in (i for i in range(len(new)) if i not in closed and was[i] != ()):
        mine = (names[i],) if was[i] is None else was[i] or ()
        named = [by_name[name] for name in mine if name in rest[i] and name in by_name]
        named = [j for j in named if others[j] != names[i] or were[j] != ()]
        common = [
            j
            for j in range(len(old))
            if {*mine, names[i]} & left[j]
            or (were[j] is None and j not in claimed and others[j] in mine)
        ]
        found[i] += [j for j in dict.fromkeys((*named, *common)) if j not in found[i]]
    claimed = {j for each in found for j in each}
    for i, j in ((i, by_name[name]) for i, name in enumerate(names) if name in by_name):
        if not found[i] and j not in claimed and () not in (was[i], were[j]):
            found[i].append(j)
    return tuple(map(tuple, found))


def _origins(labels: Sequence[Label]) -> list[tuple[str, ...] | None]:
    """Return what each class states, with plain names; those of Cityscapes state their own."""
    own = (lambda label: (plain_name(label.name),)) if is_cityscapes(labels) else (lambda _: None)
    return [own(each) if each.was is None else tuple(map(plain_name, each.was)) for each in labels]


@dataclass(frozen=True, eq=False)
class Translation:
    """Ids of one table to those of another, with the groups that this needs.

    Attributes:
        ids: the new id by old id, `(256,)` uint8; 255 without a class in the new table.
        labels: the classes of the new table that stand alone in the data set.
        groups: the groups of the new table.
        lost: the classes and groups of the data set that become unlabelled.
    """

    ids: npt.NDArray[np.uint8]
    labels: tuple[Label, ...]
    groups: tuple[Group, ...]
    lost: tuple[Label, ...] = ()


def translation(
    labels: Sequence[Label],
    groups: Sequence[Group],
    vocabulary: Sequence[Label],
    table: LabelTable,
) -> Translation:
    """Return the translation of a data set with `labels` and `groups` to `table`, see `related`.

    `vocabulary` are all classes of the set's own table. A class that was split becomes a group of
    its parts; a class that `table` lacks becomes unlabelled.

    Raises:
        ConfigError: there are too many classes and groups for one byte a pixel.
    """
    becomes: dict[int, set[Label]] = {label.id: set() for label in vocabulary}
    for label, places in zip(table.labels, related(vocabulary, table.labels), strict=True):
        for place in places:
            becomes[vocabulary[place].id].add(label)
    members: dict[int, tuple[int, ...]] = {label.id: (label.id,) for label in labels}
    members |= {group.id: group.train_ids for group in groups}
    ids, alone = np.full(256, UNLABELLED, np.uint8), set()
    made: dict[tuple[Label, ...], Group] = {}
    for old, train_ids in members.items():
        targets = {new for each in train_ids for new in becomes[each]}
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
        ids,
        tuple(label for label in table.labels if label in alone),
        tuple(made.values()),
        tuple(each for each in distinguished(labels, groups) if ids[each.id] == UNLABELLED),
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


def from_cityscapes(samples: Samples, table: LabelTable | None) -> Samples:
    """Return samples of Cityscapes ids with those of `table`; None leaves them as they are.

    Pixels of a class that was split in the table become unlabelled.
    """
    if table is None:
        return samples
    found = translation(CITYSCAPES, (), CITYSCAPES, table)
    alone = np.where(found.ids < FIRST_GROUP, found.ids, np.uint8(UNLABELLED))
    return Renumbered(samples, replace(found, ids=alone, groups=()))


def is_cityscapes(labels: Sequence[Label]) -> bool:
    """Return whether all classes, without groups, are Cityscapes' own, with its train ids."""
    return all(is_train_class(each) for each in labels if each.id < FIRST_GROUP)


def same_ids(one: Sequence[Label], other: Sequence[Label]) -> bool:
    """Return whether ids that occur in both mean the same class, and names have the same id."""
    names, ids = {each.name: each.id for each in one}, {each.id: each.name for each in one}
    return all(
        names.get(each.name, each.id) == each.id and ids.get(each.id, each.name) == each.name
        for each in other
    )


def require_same_ids(models: Mapping[str, Sequence[Label]]) -> None:
    """Check that models give each class the same id.

    Raises:
        ConfigError: two do not.
    """
    (first, labels), *others = models.items()
    for name, each in others:
        if not same_ids(labels, each):
            raise ConfigError(
                f"{first} and {name} must give each class the same id: compare models with one "
                "class table, or use camseg compare"
            )
