"""Image files and their label files: which belong together, which lack the other, and both read as samples when asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from camseg_core.data.image_file import read_rgb, read_unchanged
from camseg_core.data.label_files import LabelDecoder
from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.labels import Label

logger = logging.getLogger(__name__)

IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Pair:
    """An image, its label, which may be missing, and the frame's name within its set."""

    image: Path
    label: Path
    name: str


@dataclass(frozen=True)
class FileSet:
    """The files of a split, found but not read.

    `pairs` have both files; the images of `without_label` have none, the files of `without_image` are labels of nothing. `labels` are
    the classes that the set tells apart, `decode` reads a label, `same_size` says whether all frames must have one size, and `rule`
    what a missing label breaks. `problems` are what else makes the split unfit, a line each.
    """

    pairs: tuple[Pair, ...]
    without_label: tuple[Pair, ...]
    without_image: tuple[Path, ...]
    labels: tuple[Label, ...]
    decode: LabelDecoder
    same_size: bool = False
    rule: str = "every image needs one of its name"
    withheld: str = ""
    """What to say where not a single image has a label, if not `rule`."""
    problems: tuple[str, ...] = ()

    def missing(self) -> str:
        """A line on the images without label; there must be one."""
        first = self.without_label[0]
        rule = self.withheld if self.withheld and not self.pairs else self.rule
        return (
            f"missing label {first.label} of image {first.image}{_more(self.without_label)}: {rule}"
        )


def match(
    images: Iterable[Path],
    label_of: Callable[[Path], Path],
    labels_there: Iterable[Path],
    name_of: Callable[[Path], str],
) -> tuple[tuple[Pair, ...], tuple[Pair, ...], tuple[Path, ...]]:
    """Which of the images have their label, which do not, and which of the labels that are there belong to none; in the given order."""
    pairs = [Pair(image, label_of(image), name_of(image)) for image in images]
    whole = tuple(pair for pair in pairs if pair.label.is_file())
    unlabelled = tuple(pair for pair in pairs if not pair.label.is_file())
    unused = sorted(set(labels_there) - {pair.label for pair in pairs})
    return whole, unlabelled, tuple(unused)


def visible(paths: Iterable[Path], *endings: str) -> list[Path]:
    """Those that are files of these endings and not hidden, by name without the ending, then with it."""
    found = [
        path
        for path in paths
        if path.name.lower().endswith(endings)
        and not path.name.startswith(".")
        and not path.is_dir()
    ]
    return sorted(found, key=lambda path: (path.parent, path.stem, path.name))


def doubles(images: Sequence[Path]) -> tuple[str, ...]:
    """A line for every two of the sorted images that would share a label."""
    return tuple(
        f"{one} and {other} have the same name but for the ending, and only one label: remove one of them"
        for one, other in pairwise(images)
        if one.with_suffix("") == other.with_suffix("")
    )


def folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted; none where it is not a folder."""
    return (
        sorted(
            path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        if root.is_dir()
        else []
    )


def what_is_there(root: Path) -> str:
    """For messages on what is not: what the root has instead."""
    return (
        f"which has {', '.join(folders(root)[:9]) or 'no folders'}"
        if root.is_dir()
        else "which is not a folder"
    )


class PairedFiles:
    """A `FileSet` as a sequence of `Sample`s. Files are read when a sample is asked for; a label without an image is left out, with a
    warning.

    Raises:
        DataError: an image has no label, or something else makes the split unfit; and when a sample is read, a file cannot be read, an
            image and its label differ in size, as do two frames of a set that has one size, or a label holds what its set does not
            have. The message is one line and names the file, or both where two disagree.
    """

    def __init__(self, files: FileSet) -> None:
        for problem in files.problems:
            raise DataError(problem)
        if files.without_label:
            raise DataError(files.missing())
        if files.without_image:
            logger.warning(
                "label without an image, left out: %s%s",
                files.without_image[0],
                _more(files.without_image),
            )
        self._files = files
        self._first_read: tuple[Path, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self._files.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self._files.pairs[index]
        image, raw = read_rgb(pair.image), read_unchanged(pair.label)
        size = image.shape[:2]
        must_agree(pair.label, raw.shape[:2], pair.image, size, SIZES_OF_A_PAIR)
        if self._files.same_size:
            self._first_read = self._first_read or (pair.image, size)
            must_agree(pair.image, size, *self._first_read, SIZES_OF_A_SPLIT)
        return Sample(image, self._files.decode(raw, pair.label), pair.name)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


SIZES_OF_A_PAIR = "an image and its label must have the same size"
SIZES_OF_A_SPLIT = "all frames of a split must have the same size"


def must_agree(
    path: Path, size: tuple[int, ...], other: Path, other_size: tuple[int, ...], rule: str
) -> None:
    """Refuse two sizes, (height, width), that break the rule by being different.

    Raises:
        DataError: they are; the message names both files.
    """
    if size != other_size:
        raise DataError(
            f"{path} is {size[1]}x{size[0]}, but {other} is {other_size[1]}x{other_size[0]}: {rule}"
        )


def _more(things: Sequence[object]) -> str:
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""
