"""The kinds of labelled data sets by name, and `open_set`, which opens a split of any of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from camseg_core.data import Samples
from camseg_core.data.file_set import PairedFiles, no_split
from camseg_core.data.mapping import MAPPING, meaning
from camseg_core.data.sets.camvid import CamVid11, CamVid32
from camseg_core.data.sets.cityscapes import CITYSCAPES_SETS
from camseg_core.data.sets.kind import NONE, Folder, ListFile, OwnLabels, SetKind
from camseg_core.errors import ConfigError, DataError
from camseg_core.groups import Group, ScoredLabels
from camseg_core.labels import Label

AUTO = "auto"

SETS: Mapping[str, SetKind] = {
    "camvid": CamVid11(),
    "camvid-32": CamVid32(),
    **CITYSCAPES_SETS,
    "folder": Folder(),
    "list": ListFile(),
}
"""By the name that `--dataset` and configurations take."""


@dataclass(frozen=True)
class LabelledSet:
    """An opened split: samples, classes to score, kind, title, name, and groups (see `Sample`)."""

    samples: Samples
    labels: tuple[Label, ...]
    kind: str
    title: str
    split: str
    groups: tuple[Group, ...] = ()

    def scored(self, over: Path | None = None) -> ScoredLabels:
        """Return what to score: the set's own labels, or those of the mapping file `over`.

        Raises:
            ConfigError: the mapping cannot be used.
        """
        own = ScoredLabels.of(self.labels, self.groups)
        if over is None:
            return own
        other = meaning(over, over)
        return own.over(ScoredLabels.of(other.labels, other.groups))


def kind_of(kind: str, root: Path, own: OwnLabels = NONE, split: str | None = None) -> str:
    """The name in `SETS`: `kind` itself or, with `auto`, the kind whose layout `root` has.

    Raises:
        ConfigError: there is no such kind.
        DataError: no layout matches, or several; the message says what was looked for.
    """
    if kind != AUTO:
        if kind not in SETS:
            raise ConfigError(f"unknown data set {kind!r}; choose one of {', '.join(SETS)}")
        return kind
    # an error in the mapping is reported before any about the layout
    meaning(own.mapping, (root if root.is_dir() else root.parent) / MAPPING)
    if own.root is not None:
        return "folder"
    candidates = {name: each for name, each in SETS.items() if each.detectable}
    matching = [
        name
        for name, each in candidates.items()
        if each.detect(root) and (own == NONE or each.takes_own_labels)
    ]
    if own != NONE and not matching:
        return "folder"
    if len(matching) > 1:
        raise DataError(
            f"{root} has the layouts of {' and '.join(matching)}: choose one with --dataset"
        )
    if not matching:
        hint = ""
        if (root / "images").is_dir() and (root / "labels").is_dir():
            hint = "if the labels hold Cityscapes train ids, add --dataset folder; "
        layouts = "; ".join(f"{name}: {each.layout[0]}" for name, each in candidates.items())
        raise no_split(split or "val", root, f"{hint}looked for {layouts}")
    return matching[0]


def open_set(kind: str, root: Path, split: str | None = None, own: OwnLabels = NONE) -> LabelledSet:
    """Open a split of the data set at `root`, by default the one of `SetKind.default_split`.

    Raises:
        ConfigError: there is no such kind, or its mapping cannot be used.
        DataError: the layout does not determine the kind, or the split is missing, empty or
            incomplete; one line that names the file.
    """
    name = kind_of(kind, root, own, split)
    opened = SETS[name]
    split = split or opened.default_split(root, own)
    files = opened.files(root, split, own)
    first = files[0]
    return LabelledSet(PairedFiles(*files), first.labels, name, opened.title, split, first.groups)
