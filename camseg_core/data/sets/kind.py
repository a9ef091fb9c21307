"""The interface of a kind of data set, and the two kinds for your own sets: folders and lists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from camseg_core.data import Samples
from camseg_core.data.file_set import IMAGES, FileSet, Found, PairedFiles
from camseg_core.data.find_files import find_files, image_endings
from camseg_core.data.folders import composed, files_in, more, no_split, subfolders, visible
from camseg_core.data.label_table import LABEL_TABLE
from camseg_core.data.mapping import MAPPING, meaning, read_mapping
from camseg_core.errors import ConfigError, DataError, camseg_command
from camseg_core.labels import CITYSCAPES, Label

ALL = "all"
"""The split of sets that have no splits."""

JOIN = "+"
"""Joins splits: `val+val_ref` are the frames of the first, then those of the second."""


@dataclass(frozen=True)
class OwnLabels:
    """Options for your own sets: the labels' root, if it differs, and the mapping file."""

    root: Path | None = None
    mapping: Path | None = None


NONE = OwnLabels()


class SetKind(ABC):
    """A kind of data set.

    `labels` are the classes to score and `named_splits` the splits that it always has (if empty,
    whatever splits are found). `layout` describes it to users, with paths relative to the root; its
    first line is the usual layout. `takes_own_labels`: `OwnLabels` apply. `detectable`: `--dataset
    auto` may choose it.
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
        """Return the splits with labels in `root`."""

    @abstractmethod
    def detect(self, root: Path) -> bool:
        """Return whether `root` has this layout."""

    def outside(self, root: Path, own: OwnLabels) -> list[Path]:
        """Return files of frames that no split contains, in kinds whose splits are folders.

        Raises:
            DataError: two folders are of one split.
            ConfigError: see `scan`.
        """
        return []

    def left_out(self, root: Path, own: OwnLabels) -> dict[Path, str]:
        """Return a line on each folder with files that no split contains."""
        try:
            found = groupby(self.outside(root, own), lambda path: path.parent)
        except DataError:  # which opening the split raises
            return {}
        return {
            folder: f"left out: {folder} holds {files[0].name}{more(files)}, which no split "
            "contains: move it into the folder of a split, or out of the set, or mend its name"
            for folder, files in ((folder, [*files]) for folder, files in found)
        }

    @property
    def expected(self) -> str:
        """The expected layout, for errors."""
        return f"expected in ROOT {self.layout[0]}; {camseg_command()} data list has all layouts"

    def files(self, root: Path, split: str, own: OwnLabels = NONE) -> list[FileSet]:
        """Find the files of a split, or of several joined with `+`.

        Raises:
            DataError: see `scan`.
            ConfigError: see `scan`, or `own` is given for a set whose labels are known.
        """
        if own != NONE and not self.takes_own_labels:
            raise ConfigError(
                f"the labels of {self.title} are known: --mapping and --labels are for sets of "
                "your own (--dataset folder, list, voc, coco or labelme)"
            )
        return [self.scan(root, each, own) for each in split.split(JOIN)]

    def open(self, root: Path, split: str, own: OwnLabels = NONE) -> Samples:
        """Return the samples of a split, or of several joined with `+`; files are read on demand.

        Raises:
            DataError: the split is missing, empty or incomplete; one line that names the file.
            ConfigError: see `files`.
        """
        return PairedFiles(*self.files(root, split, own))

    def default_split(self, root: Path, own: OwnLabels = NONE) -> str:
        """Return the split to evaluate a model on: `val`, or the only one that is not `train`.

        Raises:
            DataError: there is no such split, or several.
        """
        there = self.splits(root, own)
        if "val" in (*self.named_splits, *there) or not there:
            return "val"
        others = [each for each in there if each != "train"]
        if len(others) != 1:
            raise DataError(
                f"{root} has no split val: name one with --split; it has {', '.join(there)}"
            )
        return others[0]


SPLITS = ("train", "val", "test")
"""Names of splits that folders and lists may have."""


def split_of(name: str) -> str:
    """Return the split that a tool's name means: `Train` is `train`, `Validation` is `val`."""
    plain = name.casefold()
    known = {"validation": "val", "valid": "val", "training": "train"}.get(plain, plain)
    return known if known in SPLITS else name


def by_split(files: Mapping[str, Path], alone: bool = True) -> dict[str, Path]:
    """Return a tool's files by split.

    If `alone`, a single file of another name, as `default`, is the split `all`.

    Raises:
        DataError: two names mean the same split.
    """
    found: dict[str, Path] = {}
    for name, path in files.items():
        other = found.setdefault(split_of(name), path)
        if other != path:
            raise DataError(f"{other} and {path} are both of the split {split_of(name)}: join them")
    if not alone or len(found) != 1 or {*found} & {*SPLITS}:
        return found
    return {ALL: next(iter(found.values()))}


class Folder(SetKind):
    """Folders in which a label is a PNG with the name of its image.

    They are `ROOT/images` and `ROOT/labels`, or two roots; folders below may group the frames.

    Splits are folders above (`SPLIT/images`) or below (`images/SPLIT`); else the split is `all`.
    """

    title = "a folder of images and labels"
    layout = (
        "images/NAME.jpg (or .png), labels/NAME.png, with the split, if any, above or below these",
        "or, with --labels FOLDER, images and labels in two roots, with the split in each",
        f"labels hold Cityscapes train ids, the ids of {LABEL_TABLE}, or what {MAPPING} (or "
        "--mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        meant = meaning(own.mapping, root / MAPPING)
        images, label_files = _places(root, split, own.root)
        for folder in (images, label_files):
            if not folder.is_dir():
                raise no_split(split, root, f"{folder} is missing; {self.expected}")
        found = find_files(
            [(images, label_files)],
            self.expected,
            endings=image_endings(meant.image_suffix),
            label_ending=f"{meant.label_suffix}.png",
            deep=True,
            name=lambda stem: stem.relative_to(images).as_posix(),
        )
        naming = () if meant.image_suffix or meant.label_suffix else suffixes_stated(found)
        return meant.files(found._replace(problems=(*found.problems, *naming)))

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if own.root is not None:
            there = {*split_names(root), *split_names(own.root)}  # a side that lacks one is wrong
            return tuple(name for name in SPLITS if name in there) or (ALL,)
        above = split_names(root, "images")
        whole = (root / "images").is_dir()
        if above and (not whole or {*above} & {*SPLITS}):
            return tuple(above)
        below = [name for name in split_names(root / "images") if name in SPLITS]
        return tuple(below) or ((ALL,) if whole else ())

    def outside(self, root: Path, own: OwnLabels) -> list[Path]:
        """Return images outside the folders of the splits, or without the mapping's suffix."""
        meant = meaning(own.mapping, root / MAPPING)
        places, labels = [root], set[Path]()
        if own.root is None:
            places = [each / "images" for each in (root, *map(root.joinpath, subfolders(root)))]
        else:
            labels = {*visible(files_in(own.root, deep=True), f"{meant.label_suffix}.png")}
        splits = {_places(root, split, own.root)[0] for split in self.splits(root, own)}
        endings = image_endings(meant.image_suffix)
        there = [path for each in places for path in files_in(each, deep=True)]
        inside = {path for path in visible(there, *endings) if splits & {*path.parents}}
        known = inside | labels
        return [path for path in visible(there, *IMAGES) if path not in known]

    def detect(self, root: Path) -> bool:
        """Return whether folders and a mapping or class table are there: no guess from ids."""
        places = (root, *(root / name for name in subfolders(root)))
        if not any((root / name).is_file() for name in (MAPPING, LABEL_TABLE)):
            return False
        mapping = read_mapping(None, root / MAPPING).mapping
        named = mapping is not None and mapping.names is not None
        return not named and any((each / "images").is_dir() for each in places)


def split_names(folder: Path, holding: str = "") -> list[str]:
    """Return the splits that the names of folders in `folder` mean, of those that hold a folder."""
    there = (name for name in subfolders(folder) if (folder / name / holding).is_dir())
    return [*dict.fromkeys(map(split_of, there))]


def split_folder(folder: Path, split: str, holding: str = "") -> Path | None:
    """Return the folder of a split in `folder`, of those that hold a folder; None without one.

    Raises:
        DataError: the names of two mean this split.
    """
    there = {
        name: folder / name
        for name in subfolders(folder)
        if split_of(name) == split_of(split) and (folder / name / holding).is_dir()
    }
    return by_split(there, alone=False).get(split_of(split))


def _places(root: Path, split: str, labels: Path | None) -> tuple[Path, Path]:
    """Return the folders of a split's images and labels, which need not exist."""

    def of(folder: Path, holding: str = "") -> Path:
        return split_folder(folder, split, holding) or folder / split

    if labels is not None:
        if (root / "images").is_dir() and (split == ALL or not of(root).is_dir()):
            root = root / "images"
        return (root, labels) if split == ALL else (of(root), of(labels))
    if split == ALL:
        return root / "images", root / "labels"
    if of(root / "images").is_dir():
        return of(root / "images"), of(root / "labels")
    above = of(root, "images")
    return above / "images", above / "labels"


def suffixes_stated(found: Found) -> tuple[str, ...]:
    """Return a line on name endings, if no image has a label but would without the endings."""
    labels = {Path(composed(str(path.with_suffix("")))) for path in found.label_files}
    if not labels or any(pair.label.is_file() for pair in found.pairs):
        return ()
    wanted = [Path(composed(str(pair.label.with_suffix("")))) for pair in found.pairs]
    first = wanted[0]
    near = max(labels, key=lambda path: len(_shared(str(path), str(first))))
    shared = _shared(near.name, first.name).rstrip("_-.")
    image, label = (path.name[len(shared) :] for path in (first, near))
    words = image == image.lstrip("0123456789") and label == label.lstrip("0123456789")
    if not shared or not words or not all(path.name.endswith(image) for path in wanted):
        return ()
    named = (path.with_name(path.name.removesuffix(image) + label) for path in wanted)
    if not any(path in labels for path in named):
        return ()
    return (
        f"names of images end with {image!r} and of labels with {label!r} before the dot: "
        f"state image_suffix: {image!r} and label_suffix: {label!r} in {MAPPING}",
    )


def _shared(one: str, other: str) -> str:
    """Return the longest common prefix."""
    ends = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(ends, min(len(one), len(other)))]
