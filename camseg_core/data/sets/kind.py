"""What a kind of data set declares: its classes, its layout, and how its files are found."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from camseg_core.data import Samples
from camseg_core.data.file_set import FileSet, PairedFiles
from camseg_core.errors import ConfigError
from camseg_core.labels import CITYSCAPES, Label

ALL = "all"
"""The split of sets that have no splits."""

JOIN = "+"
"""Joins splits: `val+val_ref` are the frames of the first, then those of the second."""


@dataclass(frozen=True)
class OwnLabels:
    """Options for sets of your own: the labels' root, if it is another, and the mapping file."""

    root: Path | None = None
    mapping: Path | None = None


NONE = OwnLabels()


class SetKind(ABC):
    """A kind of data set.

    `labels` are the classes to score and `named_splits` the splits that it always has (empty:
    those that are found). `layout` describes it to users, with paths from the root on; its first
    line is the usual layout. `takes_own_labels`: `OwnLabels` apply. `detectable`: `--dataset auto`
    may choose it.
    """

    title: str
    labels: tuple[Label, ...] = CITYSCAPES
    named_splits: tuple[str, ...] = ()
    layout: tuple[str, ...]
    takes_own_labels: bool = False
    detectable: bool = True

    @abstractmethod
    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        """Find the files of a split.

        Raises:
            DataError: the split or its images are missing.
            ConfigError: the mapping file cannot be used.
        """

    @abstractmethod
    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        """The splits with labels in `root`."""

    @abstractmethod
    def detect(self, root: Path) -> bool:
        """Whether `root` has this layout."""

    @property
    def expected(self) -> str:
        """For errors: what was looked for."""
        return f"expected in ROOT {self.layout[0]}; camseg data list has all layouts"

    def files(self, root: Path, split: str, own: OwnLabels = NONE) -> list[FileSet]:
        """Find the files of a split, or of several with `+` between.

        Raises:
            DataError: see `scan`.
            ConfigError: see `scan`, or `own` is given for a set whose labels are known.
        """
        if own != NONE and not self.takes_own_labels:
            raise ConfigError(
                f"the labels of {self.title} are known: --mapping and --labels are for sets of "
                "your own (--dataset folder or list)"
            )
        return [self.scan(root, each, own) for each in split.split(JOIN)]

    def open(self, root: Path, split: str, own: OwnLabels = NONE) -> Samples:
        """The samples of a split, or of several with `+` between; files are read on demand.

        Raises:
            DataError: the split is missing, empty or incomplete; one line that names the file.
            ConfigError: see `files`.
        """
        return PairedFiles(*self.files(root, split, own))

    def default_split(self, root: Path, own: OwnLabels = NONE) -> str:
        """The split to evaluate a model on: `val` where there is one."""
        there = self.splits(root, own)
        return "val" if "val" in (*self.named_splits, *there) or not there else there[0]
