"""The mapping file of a set of your own: what its labels hold, and how wide its pixels are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from camseg_core.data.file_set import FileSet, Found
from camseg_core.data.image_files import Color, ColorLabels, IdLabels, LabelDecoder
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group
from camseg_core.labels import (
    CITYSCAPES,
    STORED_TRAIN_IDS,
    TRAIN_ID,
    UNLABELLED,
    Label,
    cityscapes_labels,
)

MAPPING = "mapping.yaml"
"""Name of the mapping file that is read without being named, in the set's root."""

UNLABELLED_NAME = "unlabelled"


@dataclass(frozen=True)
class GroupMapping:
    """Values of label files, `ids` or `colors`, that stand for one of several `classes`."""

    classes: tuple[str, ...]
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()

    @property
    def name(self) -> str:
        """The group's name: its classes."""
        return " or ".join(self.classes)


@dataclass(frozen=True)
class ClassMapping:
    """What label files hold: `ids` or `colors` (RGB) by Cityscapes class, or by `unlabelled`.

    `others` decides about values that are not listed: the file is an error (`refused`), or their
    pixels have no class (`unlabelled`). `stretch` widens image and label when they are read: the
    width of a pixel divided by its height, for frames that are stored squeezed. With `stretch`
    alone, labels hold Cityscapes train ids. `groups` are values that stand for one of several
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

    def __post_init__(self) -> None:
        if not 0 < self.stretch < float("inf"):
            raise ConfigError(f"stretch must be above 0, got {self.stretch:g}")
        if self._is_train_ids():
            return
        if (self.ids is None) == (self.colors is None):
            raise ConfigError(
                "a mapping must have either ids: or colors:, each a list by class, "
                "as in ids: {road: [7], car: [26, 27]}"
            )
        owner: dict[object, str] = {}
        for name in self._values():
            if name not in TRAIN_ID and name != UNLABELLED_NAME:
                known = ", ".join([*TRAIN_ID, UNLABELLED_NAME])
                raise ConfigError(f"unknown class {name!r}: choose from {known}")
        self._check_groups()
        for name, _, values in self._meanings():
            for value in values:
                numbers, most = (value, 255) if isinstance(value, tuple) else ((value,), 65535)
                if not all(0 <= number <= most for number in numbers):
                    raise ConfigError(
                        f"{_text(value)} of {name} is out of range: it must be 0 to {most}"
                    )
                if owner.setdefault(value, name) != name:
                    raise ConfigError(
                        f"{_text(value)} is listed for {owner[value]} and for {name}: "
                        "list each value once"
                    )

    def _is_train_ids(self) -> bool:
        others = self.stretch != 1 or bool(self.image_suffix or self.label_suffix)
        return self.ids is None and self.colors is None and not self.groups and others

    def _check_groups(self) -> None:
        kind = "ids" if self.ids is not None else "colors"
        if len(self.groups) > UNLABELLED - 1 - FIRST_GROUP:
            raise ConfigError(f"groups must be at most {UNLABELLED - 1 - FIRST_GROUP}")
        for group in self.groups:
            unknown = [name for name in group.classes if name not in TRAIN_ID]
            if unknown:
                known = ", ".join(TRAIN_ID)
                raise ConfigError(f"unknown class {unknown[0]!r} in a group: choose from {known}")
            if len({*group.classes}) < 2:
                raise ConfigError(
                    f"a group must have at least two classes, got {list(group.classes)}"
                )
            if bool(group.ids) != (kind == "ids") or bool(group.colors) != (kind == "colors"):
                raise ConfigError(f"the group {group.name} must have {kind}:, as the classes have")

    def _meanings(self) -> list[tuple[str, int, tuple[int | Color, ...]]]:
        """Name, id in labels, and values in files of all classes, `unlabelled` and groups."""
        classes = self._values().items()
        return [
            *((name, TRAIN_ID.get(name, UNLABELLED), values) for name, values in classes),
            *(
                (group.name, FIRST_GROUP + i, group.ids or group.colors)
                for i, group in enumerate(self.groups)
            ),
        ]

    def group_labels(self) -> tuple[Group, ...]:
        """The groups, each in the mean colour of its classes."""
        return tuple(
            Group.of(
                FIRST_GROUP + i,
                cityscapes_labels([TRAIN_ID[name] for name in dict.fromkeys(each.classes)]),
            )
            for i, each in enumerate(self.groups)
        )

    def _values(self) -> Mapping[str, tuple[int | Color, ...]]:
        return self.ids if self.ids is not None else self.colors or {}

    def labels(self) -> tuple[Label, ...]:
        """The classes in the mapping, by train id."""
        if self._is_train_ids():
            return CITYSCAPES
        names = (name for name in self._values() if name != UNLABELLED_NAME)
        return cityscapes_labels(sorted(TRAIN_ID[name] for name in names))

    def decoder(self, source: str) -> LabelDecoder:
        """A decoder of such labels; its errors name `source`."""
        others = UNLABELLED if self.others == "unlabelled" else None
        if self._is_train_ids():
            return _train_ids(source, others)
        ids: dict[int, int] = {}
        colors: dict[Color, int] = {}
        for _, train_id, values in self._meanings():
            for value in values:
                if isinstance(value, int):
                    ids[value] = train_id
                else:
                    colors[value] = train_id
        if self.ids is not None:
            return IdLabels(ids, source, ", ".join(map(str, sorted(ids))), others)
        return ColorLabels(colors, source, others)


class Meaning(NamedTuple):
    """What the files of a set mean: classes, decoder, factor and groups, see `FileSet`.

    The names of images and labels end with the suffixes, before the dot.
    """

    labels: tuple[Label, ...]
    decode: LabelDecoder
    stretch: float = 1.0
    groups: tuple[Group, ...] = ()
    image_suffix: str = ""
    label_suffix: str = ""

    def files(self, found: Found, **more: Any) -> FileSet:
        """The found files with this meaning; `more` are further fields of the set."""
        return FileSet(found, self.labels, self.decode, self.stretch, self.groups, **more)


def meaning(mapping: Path | None, default: Path) -> Meaning:
    """Read a mapping file: `mapping`, or `default` if that exists.

    Without a file, labels hold Cityscapes train ids.

    Raises:
        ConfigError: the file cannot be read, or is not a mapping.
    """
    path = mapping if mapping is not None or not default.is_file() else default
    if path is None:
        return Meaning(CITYSCAPES, _train_ids("a set of Cityscapes train ids", None, assumed=True))
    # imported here because machines that only segment have no yaml package
    from camseg_core.config.yaml_file import load_yaml

    read = load_yaml(path, ClassMapping)
    return Meaning(
        read.labels(),
        read.decoder(str(path)),
        read.stretch,
        read.group_labels(),
        read.image_suffix,
        read.label_suffix,
    )


def _train_ids(source: str, others: int | None, assumed: bool = False) -> LabelDecoder:
    ids = (
        f"0 to {len(CITYSCAPES) - 1}, and {UNLABELLED} for unlabelled; "
        "for other ids, or colours, give --mapping FILE"
    )
    return IdLabels(STORED_TRAIN_IDS, source, ids, others, assumed)


def _text(value: int | Color) -> str:
    return str(value) if isinstance(value, int) else f"the colour {value}"
