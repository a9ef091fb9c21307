"""The kinds of labelled data sets by name, and `open_set`, which opens a split of any of them."""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from camseg_core.data import Samples, SamplesOf
from camseg_core.data.file_set import Pair, PairedFiles, joined_labels
from camseg_core.data.folders import folder_of, no_split, refuse_bag, subfolders
from camseg_core.data.frame_source import natural_key
from camseg_core.data.label_table import (
    LABEL_TABLE,
    LabelTable,
    Renumbered,
    related,
    translation,
)
from camseg_core.data.mapping import MAPPING, meaning, stated_meaning
from camseg_core.data.sets.camvid import CamVid11, CamVid32
from camseg_core.data.sets.cityscapes import CITYSCAPES_SETS
from camseg_core.data.sets.coco import Coco
from camseg_core.data.sets.kind import ALL, NONE, Folder, OwnLabels, SetKind
from camseg_core.data.sets.labelme import LabelMe
from camseg_core.data.sets.list_file import ListFile
from camseg_core.data.sets.voc import VocMasks
from camseg_core.data.shared_labels import SharedLabels, shared_labels
from camseg_core.errors import ConfigError, DataError, camseg_command
from camseg_core.groups import Group, ScoredLabels
from camseg_core.labels import CITYSCAPES, Label

logger = logging.getLogger(__name__)

AUTO = "auto"

SETS: Mapping[str, SetKind] = {
    "camvid": CamVid11(),
    "camvid-32": CamVid32(),
    **CITYSCAPES_SETS,
    "voc": VocMasks(),
    "coco": Coco(),
    "labelme": LabelMe(),
    "folder": Folder(),
    "list": ListFile(),
}
"""By the name that `--dataset` and configurations take."""


@dataclass(frozen=True)
class LabelledSet:
    """An opened split: samples, classes to score, kind, title, split name, groups (see `Sample`).

    Ids are those of `table`, the set's own class table; None stands for Cityscapes'.
    """

    samples: Samples
    labels: tuple[Label, ...]
    kind: str
    title: str
    split: str
    groups: tuple[Group, ...] = ()
    table: LabelTable | None = None

    @property
    def vocabulary(self) -> tuple[Label, ...]:
        """All classes of the set's table."""
        return CITYSCAPES if self.table is None else self.table.labels

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The files of each sample; none if samples are not files of their own."""
        if isinstance(self.samples, SamplesOf):  # held-out frames
            all_pairs = replace(self, samples=self.samples.samples).pairs
            return tuple(all_pairs[number] for number in self.samples.numbers if all_pairs)
        return self.samples.pairs if isinstance(self.samples, PairedFiles) else ()

    def check(self, numbers: Iterable[int], scored: ScoredLabels | None = None) -> None:
        """Look at the files of these samples, before the work on them.

        Args:
            numbers: which samples.
            scored: the labels of which one must occur; None takes the set's own.

        Raises:
            DataError: what reading one of the samples would raise, or nothing is labelled.
        """
        if not isinstance(self.samples, PairedFiles):
            return
        scored = scored or self.scored()
        read, labelled = 0, False
        for number in numbers:
            label = self.samples.label(number)
            read += 1
            labelled = labelled or bool((scored.truth_of(label) < len(scored.labels)).any())
        if not labelled:
            names = ", ".join(label.name for label in scored.labels)
            raise DataError(f"none of the {read} frames has a pixel labelled as a class ({names})")

    def in_table(self, table: LabelTable) -> "LabelledSet":
        """Return the set with the ids of another class table, matched by name.

        Classes that were split become groups; classes that the table lacks become unlabelled.

        Raises:
            ConfigError: there would be too many groups.
        """
        if table == self.table:
            return self
        found = translation(self.labels, self.groups, self.vocabulary, table)
        return replace(
            self,
            samples=Renumbered(self.samples, found),
            labels=found.labels,
            groups=found.groups,
            table=table,
        )

    def scored_by(
        self, models: Mapping[str, Sequence[Label]], over: Path | None = None
    ) -> SharedLabels:
        """Return the labels to score masks of these models over, see `scored`.

        Args:
            models: the classes of each model by the name to use in messages.
            over: see `scored`.

        Raises:
            ConfigError: `over` cannot be used, or models and labels share no class.
        """
        table = self.table
        if over is not None:
            table = stated_meaning(over).table
        return shared_labels(self.scored(over), table or LabelTable.of(CITYSCAPES), models)

    def scored(self, over: Path | None = None) -> ScoredLabels:
        """Return the labels to score: the set's own, or those of `over`, as `stated_meaning`.

        Classes are ids of the set's table, or of that of `over`, which may be another.

        Raises:
            ConfigError: `over` cannot be used.
        """
        own = ScoredLabels.of(self.labels, self.groups)
        if over is None:
            return own
        other = stated_meaning(over)
        if other.table != self.table:
            vocabulary = CITYSCAPES if other.table is None else other.table.labels
            places = related(vocabulary, self.vocabulary)
            ids = {
                label.id: {vocabulary[place].id for place in found}
                for label, found in zip(self.vocabulary, places, strict=True)
            }
            classes = (sorted({new for id in each for new in ids[id]}) for each in own.classes)
            own = replace(own, classes=tuple(map(tuple, classes)))
        return own.over(ScoredLabels.of(other.labels, other.groups))


def kind_of(kind: str, root: Path, own: OwnLabels = NONE, split: str | None = None) -> str:
    """Return the name in `SETS`: `kind` itself or, with `auto`, the kind whose layout `root` has.

    Raises:
        ConfigError: there is no such kind.
        DataError: no layout matches, or several; the message says what was looked for.
    """
    if kind != AUTO:
        if kind not in SETS:
            raise ConfigError(f"data set must be one of {', '.join(SETS)}, got {kind!r}")
        return kind
    # an error in the mapping is reported before any about the layout
    place = folder_of(root)
    meaning(own.mapping, place / MAPPING)
    if own.root is not None:
        tools = (name for name in ("voc", "coco", "labelme") if SETS[name].detect(own.root))
        return next(tools, "folder")
    # a stated meaning of labels, by an option or in the root, rules out kinds with fixed labels
    stated = own != NONE or any((place / name).is_file() for name in (MAPPING, LABEL_TABLE))
    candidates = {name: each for name, each in SETS.items() if each.detectable}
    matching = [
        name
        for name, each in candidates.items()
        if each.detect(root) and (each.takes_own_labels or not stated)
    ]
    if own != NONE and not matching:
        return "folder"
    if len(matching) > 1:
        raise DataError(
            f"{root} has the layouts of {' and '.join(matching)}: choose one with --dataset"
        )
    if not matching:
        places = (root, *(root / name for name in subfolders(root)))
        if any((each / "images").is_dir() and (each / "labels").is_dir() for each in places):
            raise DataError(
                f"what the labels in {root} hold must be stated: write {place / MAPPING}; if they "
                "hold Cityscapes train ids, add --dataset folder; if CamVid's 11 classes, "
                f"--dataset camvid ({camseg_command()} data list has all layouts)"
            )
        refuse_bag(root)
        if not root.exists():
            what = "name the folder of a data set, or a list file"
        else:
            known = ", ".join(candidates)
            what = f"looked for {known}; {camseg_command()} data list has their layouts"
        raise no_split(split or "val", root, what)
    return matching[0]


HELD_OUT = 5
"""One frame in so many is held out for `val` where a set has no splits."""


def open_for_training(kind: str, root: Path, split: str, own: OwnLabels = NONE) -> LabelledSet:
    """Open a split; of a set without splits, `train` are the first four fifths and `val` the rest.

    Neighbours in a drive look alike, so the frames held out are its last by name, in natural order.

    Raises:
        ConfigError: see `open_set`.
        DataError: see `open_set`; or the set has no splits and a single frame.
    """
    name = kind_of(kind, root, own, split)
    if split not in ("train", "val") or SETS[name].splits(root, own) != (ALL,):
        return open_set(name, root, split, own)
    found = open_set(name, root, ALL, own)
    frames = len(found.samples)
    if frames < 2:
        raise DataError(f"{root} must have at least two frames, to train on and to validate, got 1")
    names = [natural_key(pair.image.as_posix()) for pair in found.pairs]
    by_name = sorted(range(frames), key=names.__getitem__) if names else range(frames)
    first = frames - max(1, frames // HELD_OUT)
    numbers = sorted(by_name[:first] if split == "train" else by_name[first:])
    if split == "val":
        _note(f"{root} has no splits: its last {len(numbers)} of {frames} frames are val")
    return replace(found, samples=SamplesOf(found.samples, numbers), split=split)


@functools.cache
def _note(text: str, level: int = logging.INFO) -> None:
    """Log a line the first time only: one command opens a set several times."""
    logger.log(level, "%s", text)


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
    for text in opened.left_out(root, own).values():
        _note(text, logging.WARNING)
    labels, groups = joined_labels(files)
    return LabelledSet(
        PairedFiles(*files), labels, name, opened.title, split, groups, files[0].table
    )
