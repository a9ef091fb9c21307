"""The meaning of annotation tools' class names, by a mapping file or a class table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from camseg_core.data.file_set import FileSet, Found
from camseg_core.data.label_decoders import LabelDecoder
from camseg_core.data.label_table import LABEL_TABLE, LabelTable
from camseg_core.data.mapping import MAPPING, read_mapping
from camseg_core.errors import ConfigError
from camseg_core.groups import Group
from camseg_core.labels import CITYSCAPES, CITYSCAPES_LABEL_IDS, UNLABELLED, Label, plain_name

_UNLABELLED_NAMES = ("background", "unlabelled", "unlabeled", "void", "ignore")


@dataclass(frozen=True)
class ClassNames:
    """The meaning of class names.

    A name that no mapping lists means the table's class of that name (Cityscapes' labels, unless
    the set has its own table), or an unlabelled pixel, as `background` does. Case is ignored; `_`
    and `-` count as spaces.

    Attributes:
        listed: id in labels by name, from a mapping.
        groups: the groups of the mapping.
        unlabelled: whether all other names mean unlabelled pixels.
        stretch: see `FileSet`.
        table: the set's own class table, None for Cityscapes'.
    """

    listed: Mapping[str, int]
    groups: tuple[Group, ...] = ()
    unlabelled: bool = False
    stretch: float = 1.0
    table: LabelTable | None = None

    @staticmethod
    def read(mapping: Path | None, default: Path, suffixes: bool = False) -> "ClassNames":
        """Read the names of a mapping file, see `read_mapping`.

        `suffixes` says whether the kind of data set has names that may end with one.

        Raises:
            ConfigError: see `read_mapping`; or the file lists ids or colours, or has suffixes.
        """
        found = read_mapping(mapping, default)
        read = found.mapping
        if read is None:
            return ClassNames({}, table=found.table)
        if read.ids is not None or read.colors is not None:
            raise ConfigError(
                f"{found.path} lists ids or colours, but this export has class names: "
                "list names:, as in names: {road: [lane, asphalt]}"
            )
        if not suffixes and (read.image_suffix or read.label_suffix):
            raise ConfigError(
                f"{found.path} has image_suffix or label_suffix, which are for labels that are "
                "pictures: this export names the files itself, so leave them out"
            )
        meant = read.id_of(found.vocabulary).items()
        listed = {name: id for name, id in meant if isinstance(name, str)}
        groups, others = read.group_labels(found.vocabulary), read.others == "unlabelled"
        return ClassNames(listed, groups, others, read.stretch, found.table)

    @property
    def _vocabulary(self) -> tuple[Label, ...]:
        return CITYSCAPES if self.table is None else self.table.labels

    def id_of(self, name: str) -> int | None:
        """Return the id in labels of a name; None if nothing says what it means."""
        known = dict.fromkeys(_UNLABELLED_NAMES, UNLABELLED)
        if self.table is None:
            known |= {label.name: label.train_id for label in CITYSCAPES_LABEL_IDS}
        known |= {plain_name(label.name): label.id for label in self._vocabulary}
        others = UNLABELLED if self.unlabelled else None
        return self.listed.get(plain_name(name), known.get(plain_name(name), others))

    def unknown(self, name: str, where: str) -> str:
        """Return an error message on a name without a meaning, found in `where`."""
        whose = "Cityscapes: " if self.table is None else f"{LABEL_TABLE}: add it there, or "
        return (
            f"{where} has the class {name!r}, which is not one of {whose}list it in {MAPPING} "
            f"(or --mapping FILE), as in names: {{road: [{name}]}}, or as unlabelled"
        )

    def labels(self, names: Iterable[str]) -> tuple[Label, ...]:
        """Return the classes, without groups, that these names and the listed names mean."""
        ids = {*(self.id_of(name) for name in names), *self.listed.values()}
        return tuple(label for label in self._vocabulary if label.id in ids)

    def files(
        self, found: Found, names: Iterable[str], decode: LabelDecoder | None = None, rule: str = ""
    ) -> FileSet:
        """Return a split whose annotations may have these names; without names, all classes."""
        names = list(names)
        labels = self.labels(names) if names else self._vocabulary
        rule = rule or FileSet.rule
        return FileSet(
            found, labels, decode, self.stretch, self.groups, rule=rule, table=self.table
        )
