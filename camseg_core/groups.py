"""Labels that stand for one of several classes, such as "person or rider"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED, Label

FIRST_GROUP = 128
"""The id of the first group of a mapping file, in labels."""

Booleans = npt.NDArray[np.bool_]


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
    """Return what a data set tells apart: its classes, then groups not named after a class."""
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


def joint_groups(labels: Sequence[Label], *sets: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups of several data sets as a model with `labels` can tell them apart.

    Only the classes in `labels` count. Equal groups become one, and one with fewer than two classes
    is none. Ids count from `FIRST_GROUP`.

    Raises:
        ConfigError: classes and groups are too many for one byte a pixel.
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


def frame_table(
    labels: Sequence[Label], groups: Sequence[Group], own: Sequence[Group]
) -> npt.NDArray[np.uint8]:
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
