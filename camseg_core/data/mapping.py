"""The mapping file of a set of your own: what its labels hold, and how wide its pixels are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from camseg_core.data.file_set import FileSet, Found
from camseg_core.data.label_decoders import Color, ColorLabels, IdLabels, LabelDecoder, table_ids
from camseg_core.data.label_table import (
    LABEL_TABLE,
    LabelTable,
    is_label_table,
    read_label_table,
)
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group, ScoredLabels
from camseg_core.labels import CITYSCAPES, UNLABELLED, UNLABELLED_NAME, Label, plain_name

MAPPING = "mapping.yaml"
"""Name of the mapping file that is read without being named, in the set's root."""

MOST_STRETCH = 16
"""The largest `stretch` that is taken; no camera's frames are stored that narrow."""

Value = int | Color | str
"""What stands for a class in a file: an id, a colour, or a name."""


@dataclass(frozen=True)
class GroupMapping:
    """Values of label files, or names of a tool, that stand for one of several `classes`."""

    classes: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The group's name: its classes."""
        return " or ".join(self.classes)

    @property
    def values(self) -> tuple[Value, ...]:
        """What stands for the group in files; names as `plain_name` writes them."""
        return self.ids or self.colors or tuple(map(plain_name, self.names))


@dataclass(frozen=True)
class ClassMapping:
    """What label files hold: `ids` or `colors` (RGB) by class name, or by `unlabelled`.

    The classes are those of the class table `table` (a file, relative to this one), or
    Cityscapes'. Exports of annotation tools have `names` instead, see `ClassNames`.

    `others` decides about values that are not listed: the file is an error (`refused`), or their
    pixels have no class (`unlabelled`). `stretch` widens image and label when they are read: the
    width of a pixel divided by its height, for frames that are stored squeezed. With `stretch`
    alone, labels hold the ids of the table. `groups` are values that stand for one of several
    classes; they are ids or colours, as the classes' are. `image_suffix` and `label_suffix` end the
    names of images and labels before the dot, such as `_image` and `_label`; they alone are enough
    too.
    """

    ids: Mapping[str, tuple[int, ...]] | None = None
    colors: Mapping[str, tuple[Color, ...]] | None = None
    others: Literal["refused", "unlabelled"] = "refused"
    stretch: float = 1.0
    groups: tuple[GroupMapping, ...] = ()
    image_suffix: str = ""
    label_suffix: str = ""
    table: str | None = None
    names: Mapping[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.stretch < float("inf"):
            raise ConfigError(f"stretch must be above 0, got {self.stretch:g}")
        if self.stretch > MOST_STRETCH:
            raise ConfigError(f"stretch must be <= {MOST_STRETCH}, got {self.stretch:g}")
        if self._holds_ids():
            return
        if sum(each is not None for each in (self.ids, self.colors, self.names)) != 1:
            raise ConfigError(
                "a mapping must have either ids: or colors: or, for exports of annotation tools, "
                "names:, each a list by class, as in ids: {road: [7], car: [26, 27]}"
            )
        owner: dict[object, str] = {}
        self._check_groups()
        for name, values in (
            *self._values().items(),
            *((group.name, group.values) for group in self.groups),
        ):
            for value in values:
                _check_range(value, name)
                if owner.setdefault(value, name) != name:
                    raise ConfigError(
                        f"{_text(value)} is listed for {owner[value]} and for {name}: "
                        "list each value once"
                    )

    def check_names(self, vocabulary: Sequence[Label]) -> None:
        """Check that all names are classes in `vocabulary`.

        Raises:
            ConfigError: one is not; the message names it.
        """
        known = [label.name for label in vocabulary]
        for name in self._values():
            if name not in known and name != UNLABELLED_NAME:
                choice = ", ".join([*known, UNLABELLED_NAME])
                raise ConfigError(f"unknown class {name!r}: choose from {choice}")
        for name in (name for group in self.groups for name in group.classes):
            if name not in known:
                choice = ", ".join(known)
                raise ConfigError(f"unknown class {name!r} in a group: choose from {choice}")

    def _holds_ids(self) -> bool:
        others = self.stretch != 1 or bool(self.image_suffix or self.label_suffix or self.table)
        listed = self.ids is None and self.colors is None and self.names is None
        return listed and not self.groups and others

    def _check_groups(self) -> None:
        kinds = ("ids", "colors", "names")
        kind = next(each for each in kinds if getattr(self, each) is not None)
        if len(self.groups) > UNLABELLED - 1 - FIRST_GROUP:
            raise ConfigError(f"groups must be at most {UNLABELLED - 1 - FIRST_GROUP}")
        names: dict[frozenset[str], str] = {}
        for group in self.groups:
            classes = frozenset(group.classes)
            if classes in names:
                raise ConfigError(
                    f"two groups must not stand for the same classes, got {names[classes]} and "
                    f"{group.name}: list the values of both in one"
                )
            names[classes] = group.name
            if len(classes) < 2:
                raise ConfigError(
                    f"a group must have at least two classes, got {list(group.classes)}"
                )
            if any(bool(getattr(group, each)) != (each == kind) for each in kinds):
                raise ConfigError(f"the group {group.name} must have {kind}:, as the classes have")

    def _values(self) -> Mapping[str, tuple[Value, ...]]:
        """Values in files by class; names as `plain_name` writes them."""
        if self.names is not None:
            return {name: tuple(map(plain_name, values)) for name, values in self.names.items()}
        return self.ids if self.ids is not None else self.colors or {}

    def group_labels(self, vocabulary: Sequence[Label]) -> tuple[Group, ...]:
        """The groups, each in the mean colour of its classes."""
        by_name = {label.name: label for label in vocabulary}
        return tuple(
            Group.of(FIRST_GROUP + i, [by_name[name] for name in dict.fromkeys(each.classes)])
            for i, each in enumerate(self.groups)
        )

    def labels(self, vocabulary: Sequence[Label]) -> tuple[Label, ...]:
        """Return the classes in the mapping, in the order of `vocabulary`."""
        if self._holds_ids():
            return tuple(vocabulary)
        return tuple(label for label in vocabulary if label.name in self._values())

    def id_of(self, vocabulary: Sequence[Label]) -> dict[Value, int]:
        """Return the id in labels by value in files."""
        known = {label.name: label.id for label in vocabulary}
        meant = [
            *((known.get(name, UNLABELLED), values) for name, values in self._values().items()),
            *((FIRST_GROUP + i, each.values) for i, each in enumerate(self.groups)),
        ]
        return {value: id for id, values in meant for value in values}

    def decoder(self, source: str, vocabulary: Sequence[Label]) -> LabelDecoder | None:
        """Return a decoder of such labels, None for names; its errors name `source`."""
        others = UNLABELLED if self.others == "unlabelled" else None
        if self._holds_ids():
            return table_ids(source, vocabulary, others)
        if self.names is not None:
            return None
        meant = self.id_of(vocabulary)
        if self.colors is not None:
            colors = {value: id for value, id in meant.items() if isinstance(value, tuple)}
            return ColorLabels(colors, source, others)
        ids = {value: id for value, id in meant.items() if isinstance(value, int)}
        return IdLabels(ids, source, ", ".join(map(str, sorted(ids))), others)


class Meaning(NamedTuple):
    """The meaning of a set's files: classes, decoder, stretch and groups, see `FileSet`.

    `decode` is None if a mapping lists names. Names of images and labels end with the suffixes
    before the dot. `table` is the set's own class table, None for Cityscapes'.
    """

    labels: tuple[Label, ...]
    decode: LabelDecoder | None
    stretch: float = 1.0
    groups: tuple[Group, ...] = ()
    image_suffix: str = ""
    label_suffix: str = ""
    table: LabelTable | None = None

    def files(self, found: Found, **more: Any) -> FileSet:
        """Return the found label pictures with this meaning; `more` are further fields of the set.

        Raises:
            ConfigError: the mapping lists names.
        """
        if self.decode is None:
            raise ConfigError(
                "a mapping with names: is for exports of annotation tools (--dataset voc, coco or "
                "labelme): labels in image files need ids: or colors:"
            )
        more["table"] = self.table
        return FileSet(found, self.labels, self.decode, self.stretch, self.groups, **more)


class ReadMapping(NamedTuple):
    """A mapping file and a set's own class table, None if there is none, and their paths."""

    mapping: ClassMapping | None
    table: LabelTable | None
    path: Path
    table_path: Path | None

    @property
    def vocabulary(self) -> tuple[Label, ...]:
        """The classes that a mapping may name."""
        return CITYSCAPES if self.table is None else self.table.labels


def read_mapping(mapping: Path | None, default: Path) -> ReadMapping:
    """Read a mapping file: `mapping`, or `default` if that exists; and its class table.

    Without an entry `table`, the table is `labels.yaml` beside `mapping` or `default` if that
    exists, else Cityscapes'.

    Raises:
        ConfigError: a file cannot be read, or is not a mapping or a class table.
    """
    path = mapping if mapping is not None or not default.is_file() else default
    places = dict.fromkeys(((path or default).parent, default.parent))
    beside = next(
        (place / LABEL_TABLE for place in places if (place / LABEL_TABLE).is_file()), None
    )
    if path is None:
        return ReadMapping(None, read_label_table(beside) if beside else None, default, beside)
    # imported here because machines that only segment have no yaml package
    from camseg_core.config.yaml_file import load_yaml

    read = load_yaml(path, ClassMapping)
    if read.table is not None:
        beside = path.parent / read.table
    found = ReadMapping(read, read_label_table(beside) if beside else None, path, beside)
    try:
        read.check_names(found.vocabulary)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return found


def meaning(mapping: Path | None, default: Path) -> Meaning:
    """Return the meaning of labels by mapping file and class table, see `read_mapping`.

    Without a mapping file, labels hold the ids of the table.

    Raises:
        ConfigError: see `read_mapping`.
    """
    read, table, path, table_path = found = read_mapping(mapping, default)
    if read is None and table is None:
        return Meaning(CITYSCAPES, _train_ids)
    if read is None:
        source = f"a set with the class table {table_path}"
        decode = table_ids(source, found.vocabulary, None)
        return Meaning(found.vocabulary, decode, table=table)
    return Meaning(
        read.labels(found.vocabulary),
        read.decoder(str(path), found.vocabulary),
        read.stretch,
        read.group_labels(found.vocabulary),
        read.image_suffix,
        read.label_suffix,
        table,
    )


def stated_meaning(path: Path) -> Meaning:
    """Return the meaning of labels by a mapping file or a class table (see `read_label_table`).

    Raises:
        ConfigError: the file cannot be read, or is neither.
    """
    if not is_label_table(path):
        return meaning(path, path)
    table = read_label_table(path)
    decode = table_ids(f"a set with the class table {path}", table.labels, None)
    return Meaning(table.labels, decode, table=table)


def scored_over(path: Path) -> ScoredLabels:
    """Return the classes and groups of `stated_meaning`, for scoring labels in its table's ids.

    Ids from `FIRST_GROUP` on are the file's groups, in its order.

    Raises:
        ConfigError: see `stated_meaning`.
    """
    read = stated_meaning(path)
    vocabulary = CITYSCAPES if read.table is None else read.table.labels
    own = ScoredLabels.of(vocabulary, read.groups)
    return own.over(ScoredLabels.of(read.labels, read.groups))


_train_ids = table_ids("a set of Cityscapes train ids", CITYSCAPES, None, assumed=True)


def _check_range(value: Value, name: str) -> None:
    if isinstance(value, str):
        return
    numbers, most = (value, 255) if isinstance(value, tuple) else ((value,), 65535)
    if not all(0 <= number <= most for number in numbers):
        raise ConfigError(f"values of {name} must be 0 to {most}, got {_text(value)}")


def _text(value: Value) -> str:
    return f"the colour {value}" if isinstance(value, tuple) else str(value)
