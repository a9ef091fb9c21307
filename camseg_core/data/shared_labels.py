"""The labels of a data set that models distinguish, matched by name and origin."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camseg_core.data.label_table import LabelTable, related
from camseg_core.data.mapping import scored_over, stated_meaning
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group, ScoredLabels
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label


@dataclass(frozen=True)
class LeftOut:
    """A label of a data set that is not scored, its ids in labels, and the models that lack it."""

    name: str
    ids: tuple[int, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class SharedLabels:
    """What several models are scored over, see `shared_labels`.

    Attributes:
        scored: the same labels for each model, with the ids that stand for each. Their own ids are
            of the last model's classes that they stand for, or from `FIRST_GROUP` on.
        left_out: the labels that are not scored.
        joined: names of labels that count as one, as a single class of a model may be any of them.
    """

    scored: tuple[ScoredLabels, ...]
    left_out: tuple[LeftOut, ...]
    joined: tuple[tuple[str, ...], ...]

    @property
    def lines(self) -> list[str]:
        """What is left out, and what counts as one class."""
        missing: dict[tuple[str, ...], list[str]] = {}
        for each in self.left_out:
            missing.setdefault(each.lacking, []).append(each.name)
        return [
            f"not scored, missing in {' and '.join(of)}: {', '.join(names)}"
            for of, names in missing.items()
        ] + [f"{' and '.join(names)} count as one class" for names in self.joined]

    def together(self) -> ScoredLabels:
        """Return the labels for masks of any of the models, which give each class the same id."""
        classes = zip(*(each.classes for each in self.scored), strict=True)
        union = (dict.fromkeys(id for ids in each for id in ids) for each in classes)
        return replace(self.scored[-1], classes=tuple(map(tuple, union)))


def shared_labels(
    own: ScoredLabels, table: LabelTable, models: Mapping[str, Sequence[Label]]
) -> SharedLabels:
    """Return the labels that all models distinguish, for the masks of each, and what is missing.

    Classes are matched as `related` matches them. A label for which a model has no class is left
    out. Labels that a single class of a model may be become a group.

    Args:
        own: the labels of a data set.
        table: the set's class table, whose ids they hold.
        models: the classes of each model by the name to use in messages.

    Raises:
        ConfigError: no label is left.
    """
    names = {label.id: label.name for label in table.labels}
    members = [{names[id] for id in classes} for classes in own.classes]
    kept, left_out = list[int](), list[LeftOut]()
    meant = {model: _meant(labels, table) for model, labels in models.items()}
    for place, label in enumerate(own.labels):
        lacking = tuple(
            model
            for model, classes in meant.items()
            if not any(each & members[place] for each in classes.values())
        )
        if lacking:
            ids = tuple(np.flatnonzero(own.truth == place).tolist())
            left_out.append(LeftOut(label.name, ids, lacking))
        else:
            kept.append(place)
    if not kept:
        known = ", ".join(label.name for label in own.labels)
        raise ConfigError(
            f"{' and '.join(models)} must share a class with the labels ({known}): list in "
            "labels.yaml what each class was, or choose another model"
        )
    places_of = _joined(kept, members, meant.values())
    truth = np.full(256, len(places_of), np.uint8)
    for number, places in enumerate(places_of):
        truth[np.isin(own.truth, places)] = number
    wanted = [{name for place in places for name in members[place]} for places in places_of]
    ids_of = [
        tuple(tuple(id for id, each in classes.items() if each & names) for names in wanted)
        for classes in meant.values()
    ]
    labels: list[Label] = []
    free = iter(each for each in range(FIRST_GROUP, UNLABELLED) if each not in own.own)
    for places, ids in zip(places_of, ids_of[-1], strict=True):
        parts = [own.labels[place] for place in places]
        id = parts[0].id
        if id not in ids and (id < FIRST_GROUP or len(parts) > 1):
            id = ids[0] if len(ids) == 1 else next(free)  # the model may have another class there
        if id in {label.id for label in labels}:
            id = next(free)
        labels.append(replace(parts[0] if len(parts) == 1 else Group.of(id, parts), id=id))
    joined = (tuple(own.labels[place].name for place in places) for places in places_of)
    return SharedLabels(
        tuple(ScoredLabels(tuple(labels), classes, truth, own.own) for classes in ids_of),
        tuple(left_out),
        tuple(each for each in joined if len(each) > 1),
    )


def shared_over(path: Path, models: Mapping[str, Sequence[Label]]) -> SharedLabels:
    """Return the labels of a mapping file or class table, whose ids the data hold.

    See `shared_labels`.

    Raises:
        ConfigError: the file cannot be used, or no label is left.
    """
    table = stated_meaning(path).table or LabelTable.of(CITYSCAPES)
    return shared_labels(scored_over(path), table, models)


def _meant(labels: Sequence[Label], table: LabelTable) -> dict[int, set[str]]:
    """Return the classes of `table` that each class of a model stands for, by its id."""
    found: dict[int, set[str]] = {each.id: set() for each in labels}
    for own, places in zip(table.labels, related(labels, table.labels), strict=True):
        for place in places:
            found[labels[place].id].add(own.name)
    return found


def _joined(
    kept: Sequence[int], members: Sequence[set[str]], meant: Iterable[Mapping[int, set[str]]]
) -> list[list[int]]:
    """Return the places `kept`, joined where a model cannot distinguish them.

    That is so where a single class of a model may be any of them, and where the same classes of a
    model stand for each, as `car` for `car or truck` and `car or bus` if it knows no others. Labels
    that only share a class, as `car` and `car or truck`, do not join.
    """
    groups = [[place] for place in kept]

    def join(alike: list[list[int]]) -> None:
        if len(alike) > 1:
            groups[:] = [each for each in groups if each not in alike]
            groups.append(sorted(place for group in alike for place in group))

    for model in meant:
        for classes in model.values():
            if len(classes) > 1:
                join([each for each in groups if any(members[i] & classes for i in each)])
        same: dict[frozenset[int], set[int]] = {}
        for place in kept:
            ids = frozenset(id for id, each in model.items() if each & members[place])
            same.setdefault(ids, set()).add(place)
        for places in same.values():
            join([group for group in groups if places & {*group}])
    return sorted(groups)
