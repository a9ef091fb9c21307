"""Kinds of labelled data sets by name: how each is laid out, found and opened."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from camseg_core.data.file_set import FileSet, PairedFiles, what_is_there
from camseg_core.data.sample import Sample, Samples
from camseg_core.data.sets import (
    acdc,
    cad_edgetune,
    camvid,
    camvid32,
    cityscapes,
    folder,
    kitti_step,
    list_file,
)
from camseg_core.errors import ConfigError, DataError
from camseg_core.labels import (
    CAMVID_11_TRAIN_IDS,
    CAMVID_32_TRAIN_IDS,
    CITYSCAPES,
    Label,
    cityscapes_labels,
)

AUTO = "auto"

BOTH = "+"
"""Joins splits: `val+val_ref` are the frames of one, then those of the other."""


@dataclass(frozen=True)
class OwnLabels:
    """For sets of one's own (`folder`, `list`): the root of the labels where it is another, and the file that says what they hold."""

    root: Path | None = None
    mapping: Path | None = None


NONE = OwnLabels()


@dataclass(frozen=True)
class SetKind:
    """A kind of data set.

    `labels` are the classes to score, `named_splits` those that it always has (none: whatever is there), `layout` lines that tell a user
    what is expected, from the root on. `scan` finds the files of a split, `splits` tells which are there with labels, and `detect`
    whether a root is laid out so.
    """

    title: str
    labels: tuple[Label, ...]
    named_splits: tuple[str, ...]
    layout: tuple[str, ...]
    scan: Callable[[Path, str, OwnLabels], FileSet]
    splits: Callable[[Path, OwnLabels], tuple[str, ...]]
    detect: Callable[[Path], bool]
    takes_own_labels: bool = False

    def open(self, root: Path, split: str, own: OwnLabels = NONE) -> Samples:
        """The samples of a split, or of several with `+` between; files are read when a sample is asked for.

        Raises:
            DataError: the split is missing, empty or incomplete; one line that names the file and what is expected.
            ConfigError: what is told of the labels cannot be used.
        """
        return _samples(self.files(root, split, own))

    def files(self, root: Path, split: str, own: OwnLabels = NONE) -> list[FileSet]:
        """The files of a split, or of several with `+` between.

        Raises:
            DataError, ConfigError: as `open`, but for files that are incomplete.
        """
        if own != NONE and not self.takes_own_labels:
            raise ConfigError(
                f"{self.title} says itself what its labels are: --mapping and --labels are for sets of your own"
            )
        return [self.scan(root, each, own) for each in split.split(BOTH)]

    def default_split(self, root: Path, own: OwnLabels = NONE) -> str:
        """The split to judge a model by: `val` where there is one."""
        if "val" in self.named_splits:
            return "val"
        there = self.splits(root, own)
        return there[0] if there and "val" not in there else "val"


class _Joined:
    """Several sequences of samples as one."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        for part, end in zip(self._parts, self._ends, strict=True):
            if index < end:
                return part[index - end + len(part)]
        raise IndexError(index)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _samples(files: Sequence[FileSet]) -> Samples:
    parts = [PairedFiles(each) for each in files]
    return parts[0] if len(parts) == 1 else _Joined(parts)


def _known(
    title: str,
    labels: tuple[Label, ...],
    named_splits: tuple[str, ...],
    layout: Sequence[str],
    scan: Callable[[Path, str], FileSet],
    splits: Callable[[Path], tuple[str, ...]],
    detect: Callable[[Path], bool],
) -> SetKind:
    """A set that says itself what its labels are."""
    return SetKind(
        *(title, labels, named_splits, tuple(layout)),
        lambda root, split, own: scan(root, split),
        lambda root, own: splits(root),
        detect,
    )


def _acdc(title: str, weathers: tuple[str, ...], detect: Callable[[Path], bool]) -> SetKind:
    weather = weathers[0] if len(weathers) == 1 else "WEATHER"
    layout = (
        f"rgb_anon/{weather}/SPLIT/SEQUENCE/NAME_rgb_anon.png",
        f"gt/{weather}/SPLIT/SEQUENCE/NAME_gt_labelIds.png",
        "reference frames (splits train_ref, val_ref): NAME_rgb_ref_anon.png, NAME_gt_ref_labelIds.png",
    )
    scan, splits = partial(acdc.scan, weathers=weathers), partial(acdc.splits, weathers=weathers)
    return _known(title, CITYSCAPES, acdc.SPLITS, layout, scan, splits, detect)


def _never(root: Path) -> bool:
    return False


SETS: Mapping[str, SetKind] = {
    "camvid": _known(
        *(camvid.TITLE, cityscapes_labels(CAMVID_11_TRAIN_IDS), ("train", "val")),
        (
            "SPLIT/images/NAME.jpg (or .png), SPLIT/labels/NAME.png",
            "or SPLIT/NAME.png, SPLITannot/NAME.png",
            "ids 0 to 10, 11 for void",
        ),
        *(camvid.scan, camvid.splits, camvid.detect),
    ),
    "camvid-32": _known(
        *(camvid32.TITLE, cityscapes_labels(CAMVID_32_TRAIN_IDS), ()),
        (
            "SPLIT/NAME.png, SPLIT_labels/NAME_L.png",
            "or 701_StillsRaw_full/NAME.png, LabeledApproved_full/NAME_L.png, and SPLIT.txt with the names of each split (without: all)",
            "labels in CamVid's colours; label_colors.txt or class_dict.csv is read where there is one",
        ),
        *(camvid32.scan, camvid32.splits, camvid32.detect),
    ),
    "cityscapes": _known(
        *(cityscapes.TITLE, CITYSCAPES, cityscapes.SPLITS),
        (
            "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png",
            "gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png",
        ),
        *(cityscapes.scan, cityscapes.splits, cityscapes.detect),
    ),
    "acdc": _acdc(f"{acdc.TITLE}, all weathers", acdc.WEATHERS, acdc.detect),
    **{
        f"acdc-{weather}": _acdc(f"{acdc.TITLE}, {weather}", (weather,), _never)
        for weather in acdc.WEATHERS
    },
    "kitti-step": _known(
        *(kitti_step.TITLE, CITYSCAPES, kitti_step.SPLITS),
        (
            "training/image_02/SEQUENCE/NUMBER.png (or images/SPLIT/SEQUENCE/NUMBER.png)",
            "kitti-step/panoptic_maps/SPLIT/SEQUENCE/NUMBER.png (or panoptic_maps/…), train ids in the red channel",
        ),
        *(kitti_step.scan, kitti_step.splits, kitti_step.detect),
    ),
    "cad-edgetune": _known(
        *(cad_edgetune.TITLE, CITYSCAPES, ()),
        (
            "SEQ*/Images/NAME.jpg, SEQ*/LabelMasks/NAME_label_mask.png",
            "the split is all, or the name of a sequence",
        ),
        *(cad_edgetune.scan, cad_edgetune.splits, cad_edgetune.detect),
    ),
    "folder": SetKind(
        *(folder.TITLE, CITYSCAPES, ()),
        (
            "images/NAME.jpg (or .png), labels/NAME.png; or with --labels FOLDER the images and the labels in roots of their own",
            "splits: SPLIT/images and SPLIT/labels, or images/SPLIT and labels/SPLIT",
            "labels hold Cityscapes train ids, or what mapping.yaml (or --mapping FILE) says",
        ),
        lambda root, split, own: folder.scan(root, split, own.root, own.mapping),
        lambda root, own: folder.splits(root, own.root),
        folder.detect,
        takes_own_labels=True,
    ),
    "list": SetKind(
        *(list_file.TITLE, CITYSCAPES, ()),
        (
            "ROOT is a text file, or a folder with SPLIT.txt; in it IMAGE LABEL a line, as paths from its folder",
            "labels hold Cityscapes train ids, or what mapping.yaml beside it (or --mapping FILE) says",
        ),
        lambda root, split, own: list_file.scan(root, split, own.mapping),
        lambda root, own: list_file.splits(root),
        list_file.detect,
        takes_own_labels=True,
    ),
}
"""By the name that `--dataset` and configurations take."""


@dataclass(frozen=True)
class LabelledSet:
    """An opened split: its samples, the classes to score, and what it is."""

    samples: Samples
    labels: tuple[Label, ...]
    kind: str
    title: str
    split: str


def kind_of(kind: str, root: Path, own: OwnLabels = NONE, split: str | None = None) -> str:
    """The name in `SETS`: `kind` itself, or with `auto` the one that the root is laid out as.

    Raises:
        ConfigError: there is no such kind.
        DataError: none or several fit the layout; the message says what was looked for.
    """
    if kind != AUTO:
        if kind not in SETS:
            raise ConfigError(f"unknown data set {kind!r}; choose one of {', '.join(SETS)}")
        return kind
    if own.root is not None:
        return "folder"
    fitting = [
        name
        for name, each in SETS.items()
        if each.detect(root) and (own == NONE or each.takes_own_labels)
    ]
    if own != NONE and not fitting:
        return "folder"
    if len(fitting) > 1:
        raise DataError(
            f"{root} is laid out as {' and as '.join(fitting)}: say which it is with --dataset"
        )
    if not fitting:
        looked_for = "; ".join(
            f"{name}: {each.layout[0]}" for name, each in SETS.items() if each.detect is not _never
        )
        own_set = (root / "images").is_dir() and (root / "labels").is_dir()
        hint = "if the labels hold Cityscapes train ids, say --dataset folder; " if own_set else ""
        raise DataError(
            f"no split {split or 'val'!r} in {root}, {what_is_there(root)}: {hint}looked for {looked_for}"
        )
    return fitting[0]


def open_set(kind: str, root: Path, split: str | None = None, own: OwnLabels = NONE) -> LabelledSet:
    """Open a split of the data set at `root`; without a split the one to judge a model by, see `SetKind.default_split`.

    Raises:
        ConfigError: there is no such kind, or what is told of its labels cannot be used.
        DataError: the kind cannot be told by the layout, or the split is missing, empty or incomplete; one line that names the file.
    """
    name = kind_of(kind, root, own, split)
    opened = SETS[name]
    split = split or opened.default_split(root, own)
    files = opened.files(root, split, own)
    return LabelledSet(_samples(files), files[0].labels, name, opened.title, split)
