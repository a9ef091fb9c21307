"""Labels that stand for one of several classes, such as "person or rider", and their scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED, Label, index_table, train_id_table

FIRST_GROUP = 128
"""The id of the first group of a mapping file, in labels."""

Booleans = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Group(Label):
    """A label that stands for one of several classes.

    `id` marks its pixels: `FIRST_GROUP` or above, or the train id of the class whose name a set
    uses for the whole group. `train_ids` are the classes that they may have.
    """

    train_ids: tuple[int, ...] = ()

    @staticmethod
    def of(id: int, members: Sequence[Label]) -> "Group":
        """Return the group of these classes, in their mean colour, named after all of them."""
        red, green, blue = (
            sum(label.color[channel] for label in members) // len(members) for channel in range(3)
        )
        name = " or ".join(label.name for label in members)
        return Group(id, name, (red, green, blue), tuple(sorted(label.id for label in members)))


def distinguished(labels: Sequence[Label], groups: Sequence[Group]) -> tuple[Label, ...]:
    """Return what a data set distinguishes: its classes, then groups not named after a class."""
    names = {label.id for label in labels}
    return (*labels, *(group for group in groups if group.id not in names))


def possible_classes(labels: Sequence[Label], groups: Sequence[Group] = ()) -> Booleans:
    """Return which of `labels` a pixel may have, by its id in a data set's label: `(256, K)`.

    A row has one class for a train id, several for a group, and none for other ids.
    """
    table = np.zeros((256, len(labels)), np.bool_)
    for index, label in enumerate(labels):
        table[[label.id, *(each.id for each in groups if label.id in each.train_ids)], index] = True
    return table


def group_members(labels: Sequence[Label], groups: Sequence[Group]) -> Booleans:
    """Return which of `labels` belong to each group, `(G, K)`."""
    rows = [[label.id in group.train_ids for label in labels] for group in groups]
    return np.array(rows, np.bool_).reshape(len(groups), len(labels))


def missing_classes(
    counts: npt.NDArray[np.int64], labels: Sequence[Label], groups: Sequence[Group]
) -> tuple[list[str], list[str]]:
    """Return the names of classes that no pixel has, and of those that only groups may contain.

    `counts` are the pixels of each class, then of each group, as `Frames` numbers them.
    """
    classes = len(labels)
    grouped = counts[classes : classes + len(groups)] @ group_members(labels, groups)
    absent = [
        (label.name, among)
        for label, among, n in zip(labels, grouped, counts, strict=False)
        if not n
    ]
    return [name for name, among in absent if not among], [name for name, among in absent if among]


def joint_groups(labels: Sequence[Label], *sets: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups of several data sets as a model with `labels` distinguishes them.

    Only the classes in `labels` count. Equal groups become one; groups with fewer than two classes
    are left out. Ids count from `FIRST_GROUP`.

    Raises:
        ConfigError: there are too many classes and groups for one byte a pixel.
    """
    members = dict.fromkeys(
        tuple(label for label in labels if label.id in group.train_ids)
        for groups in sets
        for group in groups
    )
    found = [each for each in members if len(each) > 1]
    most = min(UNLABELLED - len(labels), UNLABELLED - FIRST_GROUP)
    if len(found) > most:
        raise ConfigError(
            f"data sets must have at most {most} different groups together, got {len(found)}"
        )
    return tuple(Group.of(FIRST_GROUP + i, each) for i, each in enumerate(found))


def frame_table(labels: Sequence[Label], groups: Sequence[Group], own: Sequence[Group]) -> Ids:
    """Return the class index by id in the labels of a set whose groups are `own`, `(256,)` uint8.

    Index k < K is a class, its place in `labels`; K + g is `groups[g]`, see `joint_groups`. It is
    255 for ids without a class in `labels`, and for groups that are not in `groups`.
    """
    number = {row.tobytes(): g for g, row in enumerate(group_members(labels, groups))}
    table = np.full(256, UNLABELLED, np.uint8)
    for id, row in enumerate(possible_classes(labels, own)):
        if row.sum() == 1:
            table[id] = row.argmax()
        elif row.tobytes() in number:
            table[id] = len(labels) + number[row.tobytes()]
    return table


@dataclass(frozen=True, eq=False)
class ScoredLabels:
    """The C labels that masks are scored against; each stands for one class or several.

    A predicted class counts as the label that stands for it. If several do, it counts as the
    pixel's own label if that is among them, else as the label with the fewest classes.

    Attributes:
        labels: the C labels.
        classes: the train ids that each stands for.
        truth: place among the labels by id in the data set's label, `(256,)`; C if not scored.
        own: what the data set distinguishes, by id.
    """

    labels: tuple[Label, ...]
    classes: tuple[tuple[int, ...], ...]
    truth: Ids
    own: dict[int, Label]

    @staticmethod
    def of(labels: Sequence[Label], groups: Sequence[Group] = ()) -> "ScoredLabels":
        """Return the labels of a data set with these classes and groups.

        Pixels of other sets that have a class of a group count as the group.
        """
        found = distinguished(labels, groups)
        members = {group.id: group.train_ids for group in groups}
        classes = tuple(members.get(label.id, (label.id,)) for label in found)
        truth = np.full(256, len(found), np.uint8)
        for place in sorted(range(len(found)), key=lambda i: -len(classes[i])):
            if len(classes[place]) > 1:
                truth[list(classes[place])] = place
        truth[[label.id for label in found]] = range(len(found))
        return ScoredLabels(found, classes, truth, {label.id: label for label in found})

    def over(self, other: "ScoredLabels") -> "ScoredLabels":
        """Return the labels of `other` for this data set.

        A label of this set counts as the label of `other` that stands for all of its classes (if
        several do, the one with the fewest). If none does, its pixels are not scored.
        """
        places = np.full(len(self.labels) + 1, len(other.labels), np.uint8)
        for place, classes in enumerate(self.classes):
            fitting = [i for i, each in enumerate(other.classes) if {*classes} <= {*each}]
            if fitting and classes:
                places[place] = min(fitting, key=lambda i: len(other.classes[i]))
        return ScoredLabels(other.labels, other.classes, places[self.truth], self.own)

    @cached_property
    def predicted(self) -> Ids:
        """Place among the labels by predicted train id, `(256,)` uint8; C if none stands for it."""
        table = np.full(256, len(self.labels), np.uint8)
        for place in sorted(range(len(self.labels)), key=lambda i: (-len(self.classes[i]), -i)):
            table[list(self.classes[place])] = place
        return table

    @cached_property
    def recall_only(self) -> Booleans:
        """Whether a label is only predicted where it is right, `(C,)`.

        That is so if labels with fewer classes stand for each of its own: no prediction can count
        as it elsewhere, so only its recall is meaningful. A label without classes has an IoU of 0.
        """
        stand = np.array([bool(each) for each in self.classes], np.bool_)
        return stand & ~np.isin(np.arange(len(self.labels)), self.predicted)

    def recall_only_pixels(self, labelled: npt.NDArray[np.int64]) -> dict[str, int]:
        """Return the `recall_only` labels that occur, with their pixels; `labelled` `(C,)`."""
        pixels = labelled * self.recall_only
        return {self.labels[i].name: int(pixels[i]) for i in np.flatnonzero(pixels)}

    @cached_property
    def _allowed(self) -> Booleans | None:
        """Whether a label stands for a train id, `(256, C + 1)`; None if no two share a class."""
        table = np.zeros((256, len(self.labels) + 1), np.bool_)
        for place, classes in enumerate(self.classes):
            table[list(classes), place] = True
        return table if (table.sum(1) > 1).any() else None

    def to_json(self) -> dict[str, Any]:
        """Return the content for `from_json`."""
        rows = [
            [label.id, label.name, label.color, classes]
            for label, classes in zip(self.labels, self.classes, strict=True)
        ]
        own = [[label.id, label.name, label.color] for label in self.own.values()]
        return {"labels": rows, "truth": self.truth.tolist(), "own": own}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "ScoredLabels":
        """Return the labels from the content that `to_json` returned."""
        labels = tuple(Label(id, name, tuple(color)) for id, name, color, _ in content["labels"])
        classes = tuple(tuple(each[3]) for each in content["labels"])
        own = {id: Label(id, name, tuple(color)) for id, name, color in content["own"]}
        return ScoredLabels(labels, classes, np.array(content["truth"], np.uint8), own)

    def truth_of(self, label: Ids) -> Ids:
        """Return the places of a data set's label `(H, W)`; C where it is not scored."""
        return np.asarray(cv2.LUT(label, self.truth), np.uint8)

    def predicted_of(self, mask: Ids, truth: Ids | None = None) -> Ids:
        """Return the places of a mask of train ids `(H, W)`, given those of the label if known."""
        found = np.asarray(cv2.LUT(mask, self.predicted), np.uint8)
        if truth is None or self._allowed is None:
            return found
        return np.where(self._allowed[mask, truth], truth, found)

    def shown(self, label: Ids, mask: Ids) -> tuple[Ids, Ids]:
        """Return label and mask as ids of the labels that count, both `(H, W)`, to draw them.

        The label is 255 where it is not scored. Classes that no label stands for stay in the mask.
        """
        ids = train_id_table(self.labels)
        truth = self.truth_of(label)
        found = self.predicted_of(mask, truth)
        return ids[truth], np.where(found < len(self.labels), ids[found], mask)

    def merged(self, known: Sequence[Label]) -> dict[str, list[str]]:
        """Return the classes of a model with the classes `known` that count as one, by label."""
        names = {label.id: label.name for label in known}
        found = {
            label.name: [names[i] for i in classes if i in names]
            for label, classes in zip(self.labels, self.classes, strict=True)
        }
        return {name: members for name, members in found.items() if len(members) > 1}

    def has_groups(self) -> bool:
        """Return whether a label stands for several classes, or belongs to another set."""
        plain = index_table(self.labels, other=len(self.labels))
        return any(len(each) > 1 for each in self.classes) or bool((plain != self.truth).any())


def as_scored(labels: "Sequence[Label] | ScoredLabels") -> ScoredLabels:
    """Return classes as labels to score; each stands for itself."""
    return labels if isinstance(labels, ScoredLabels) else ScoredLabels.of(labels)
