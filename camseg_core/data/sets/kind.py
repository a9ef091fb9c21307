"""The interface of a kind of data set, and the two kinds for your own sets: folders and lists."""

import re
import shlex
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from camseg_core.data import Samples
from camseg_core.data.file_set import IMAGES, FileSet, Found, Pair, PairedFiles, find_files
from camseg_core.data.folders import composed, frame_name, no_split, subfolders
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
        """Return the split to evaluate a model on: `val` if there is one."""
        there = self.splits(root, own)
        return "val" if "val" in (*self.named_splits, *there) or not there else there[0]


SPLITS = ("train", "val", "test")
"""Names of splits that folders and lists may have."""


def split_of(name: str) -> str:
    """Return the split that a tool's name means: `Train` is `train`, `Validation` is `val`."""
    plain = name.casefold()
    known = {"validation": "val", "valid": "val", "training": "train"}.get(plain, plain)
    return known if known in SPLITS else name


def by_split(files: Mapping[str, Path]) -> dict[str, Path]:
    """Return a tool's files by split; a single file of another name, as `default`, is `all`."""
    found = {split_of(name): path for name, path in files.items()}
    return found if len(found) != 1 or {*found} & {*SPLITS} else {ALL: next(iter(found.values()))}


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
            endings=[f"{meant.image_suffix}{ending}" for ending in IMAGES],
            label_ending=f"{meant.label_suffix}.png",
            deep=True,
            name=lambda stem: stem.relative_to(images).as_posix(),
        )
        naming = () if meant.image_suffix or meant.label_suffix else suffixes_stated(found)
        return meant.files(found._replace(problems=(*found.problems, *naming)))

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if own.root is not None:
            in_both = {*subfolders(root)} & {*subfolders(own.root)}
            return tuple(name for name in SPLITS if name in in_both) or (ALL,)
        above = [name for name in subfolders(root) if (root / name / "images").is_dir()]
        below = [name for name in subfolders(root / "images") if name in SPLITS]
        return tuple(above or below) or ((ALL,) if (root / "images").is_dir() else ())

    def detect(self, root: Path) -> bool:
        """Return whether folders and a mapping or class table are there: no guess from ids."""
        places = (root, *(root / name for name in subfolders(root)))
        if not any((root / name).is_file() for name in (MAPPING, LABEL_TABLE)):
            return False
        mapping = read_mapping(None, root / MAPPING).mapping
        named = mapping is not None and mapping.names is not None
        return not named and any((each / "images").is_dir() for each in places)


class ListFile(SetKind):
    """A text file of `IMAGE LABEL` a line, as paths from the file's folder.

    ROOT is the file, whose split is `all`, or a folder with a `SPLIT.txt` for every split. A path
    with spaces is quoted; `#` starts a comment.
    """

    title = "a list of images and labels"
    layout = (
        "a text file (ROOT itself, or SPLIT.txt in it) with IMAGE LABEL a line, "
        "paths from its folder",
        f"labels hold Cityscapes train ids, the ids of {LABEL_TABLE} beside it, or what {MAPPING} "
        "(or --mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        path = root / f"{split}.txt" if root.is_dir() else root
        meant = meaning(own.mapping, path.parent / MAPPING)
        if not path.is_file():
            raise no_split(split, root, f"{path} is missing; expected IMAGE LABEL a line in it")
        if path == root and split != ALL:
            raise DataError(
                f"no split {split!r} in {root}: a list has one split, {ALL!r}; "
                "for several, name a folder with a SPLIT.txt for each"
            )
        pairs = _read(path)
        if not pairs:
            raise DataError(f"{path} lists nothing: expected IMAGE LABEL a line")
        counts = Counter(pair.image for pair in pairs)
        twice = (
            f"{path} lists {image} {count} times: list it once"
            for image, count in counts.items()
            if count > 1
        )
        found = Found(pairs, problems=tuple(twice))
        return meant.files(found, rule=f"{path} lists it")

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if not root.is_dir():
            return (ALL,)
        return tuple(name for name in SPLITS if (root / f"{name}.txt").is_file())

    def detect(self, root: Path) -> bool:
        """Return whether it is a list, or a folder with the list of a split; listed files exist."""
        if root.is_file():
            return root.suffix.lower() in (".txt", ".lst") or _lists_files(root)
        return any(_lists_files(root / f"{name}.txt") for name in self.splits(root, NONE))


def _places(root: Path, split: str, labels: Path | None) -> tuple[Path, Path]:
    if labels is not None:
        return (root, labels) if split == ALL else (root / split, labels / split)
    if split == ALL:
        return root / "images", root / "labels"
    if (root / "images" / split).is_dir():
        return root / "images" / split, root / "labels" / split
    return root / split / "images", root / split / "labels"


def _lists_files(path: Path) -> bool:
    """Return whether the text file begins with an image and a label that exist."""
    try:
        first = next(iter(_read(path)), None)
    except DataError:
        return False
    return first is not None and first.image.is_file() and first.label.is_file()


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


def _read(path: Path) -> list[Pair]:
    pairs = []
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16, or no text at all
            raise ValueError("it is not text in UTF-8")
        lines = text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            # Windows separates folders with backslashes; before a blank, they quote it
            words = shlex.split(re.sub(r"\\(?! )", "/", line), comments=True)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; expected IMAGE LABEL") from error
        if not words:
            continue
        if len(words) != 2:
            raise DataError(
                f"{path}, line {number} has {len(words)} words: expected IMAGE LABEL; "
                "quote a path with spaces"
            )
        image, label = (path.parent / word for word in words)
        pairs.append(Pair(image, label, frame_name(Path(words[0]))))
    return pairs
