"""Image and label files of a split, which are read as samples on demand."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample
from camseg_core.data.drawing import Drawing
from camseg_core.data.folders import more
from camseg_core.data.image_files import Raw, read_label, read_rgb, size_of_rgb, turned
from camseg_core.data.label_decoders import LabelDecoder
from camseg_core.data.label_table import LabelTable
from camseg_core.errors import DataError, absent
from camseg_core.groups import Group
from camseg_core.labels import CITYSCAPES, Label

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

IMAGES = (".jpg", ".jpeg", ".png")
"""Endings of images that are looked for, in any case."""

NOT_READ_HINT = "which is not read: store images as JPEG or PNG"


@dataclass(frozen=True)
class Pair:
    """An image, its label (which may be missing) and the frame's name within its set.

    The label is a picture, or the file from which `drawing` was read.
    """

    image: Path
    label: Path
    name: str
    drawing: Drawing | None = None


class Found(NamedTuple):
    """The result of a search for a split's files.

    `label_files` are all labels in the searched folders. `problems` has a line for each reason why
    the split cannot be used, `left_out` a line for each kind of frames that are not used.
    `not_read` has images in other formats than `IMAGES`, by their label.
    """

    pairs: Sequence[Pair]
    label_files: Sequence[Path] = ()
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    not_read: Mapping[Path, Path] = MappingProxyType({})


@dataclass(frozen=True)
class FileSet:
    """The files of a split, not yet read.

    `labels` are the classes that the set distinguishes, `groups` its labels for one of several
    classes, and `decode` reads a label picture. `same_size` requires all frames to have one size.
    `rule` says what a missing label violates; `withheld` replaces it if no image of the split has a
    label. Frames are widened by the factor `stretch` when they are read. `table` is the set's own
    class table, None for Cityscapes'.
    """

    found: Found
    labels: tuple[Label, ...]
    decode: LabelDecoder | None
    stretch: float = 1.0
    groups: tuple[Group, ...] = ()
    same_size: bool = False
    rule: str = "every image needs a label of the same name"
    withheld: str = ""
    table: LabelTable | None = None

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Images with their labels."""
        return tuple(pair for pair in self.found.pairs if pair.label.is_file())

    @cached_property
    def without_label(self) -> tuple[Pair, ...]:
        """Images whose labels are missing."""
        return tuple(pair for pair in self.found.pairs if not pair.label.is_file())

    @cached_property
    def without_image(self) -> tuple[Path, ...]:
        """Label files that belong to no image."""
        known = {pair.label for pair in self.found.pairs}
        return tuple(path for path in self.found.label_files if path not in known)

    def note_on(self, label: Path) -> str:
        """Return a note on the image of a label without one, if it is in a format not read."""
        image = self.found.not_read.get(label)
        return f" (there is {image.name}, {NOT_READ_HINT})" if image else ""

    def read_label(self, pair: Pair) -> Raw | Drawing:
        """Return a pair's label as stored; its `shape` begins with height and width.

        Raises:
            DataError: see `image_files.read_label`.
        """
        return read_label(pair.label) if pair.drawing is None else pair.drawing

    def train_ids(self, raw: Raw | Drawing, pair: Pair) -> Pixels:
        """Return train ids and ids of groups `(H, W)` of a label from `read_label`.

        Raises:
            DataError: it holds a value without a meaning.
        """
        if isinstance(raw, Drawing):
            return raw.label(pair.label)
        assert self.decode is not None  # only sets of drawings have none
        return self.decode(raw, pair.label)

    def size_read(self, stored: tuple[int, ...]) -> tuple[int, int]:
        """Return the size (height, width) of a sample whose files have the size `stored`."""
        return stored[0], max(1, round(stored[1] * self.stretch))

    def sample(self, pair: Pair, image: Pixels, label: Pixels) -> Sample:
        """Return the sample of a pair, given its image and decoded label at their stored size."""
        if self.stretch != 1:
            size = self.size_read(label.shape)[::-1]
            smooth = cv2.INTER_LINEAR if self.stretch > 1 else cv2.INTER_AREA
            image = np.asarray(cv2.resize(image, size, interpolation=smooth), np.uint8)
            nearest = cv2.INTER_NEAREST_EXACT
            label = np.asarray(cv2.resize(label, size, interpolation=nearest), np.uint8)
        return Sample(image, label, pair.name, self.groups)

    def missing(self) -> str:
        """Return an error message on the images without label; there must be one."""
        first = self.without_label[0]
        rule = self.withheld if self.withheld and not self.pairs else self.rule
        others = more(self.without_label)
        return f"missing label {absent(first.label)} of image {first.image}{others}: {rule}"


def joined_labels(files: Sequence[FileSet]) -> tuple[tuple[Label, ...], tuple[Group, ...]]:
    """Return the classes and groups of one or several splits of a data set, joined."""
    first = files[0]
    labels = {label.id: label for each in files for label in each.labels}
    groups = {group.id: group for each in files for group in each.groups}
    if len(labels) > len(first.labels):
        vocabulary = CITYSCAPES if first.table is None else first.table.labels
        places = [label.id for label in vocabulary]
        labels = dict(sorted(labels.items(), key=lambda item: places.index(item[0])))
    return tuple(labels.values()), tuple(groups.values())


class PairedFiles:
    """One or several file sets as a sequence of samples, which are read when they are indexed.

    A label without an image is left out with a warning.

    Raises:
        DataError: an image has no label, or the split cannot be used for another reason; when a
            sample is read: a file cannot be read, image and label differ in size, or frames do in
            a set that requires one size, or a label holds an unknown value. One line that names
            the file, or both where two disagree.
    """

    def __init__(self, *sets: FileSet) -> None:
        for files in sets:
            for problem in files.found.problems:
                raise DataError(problem)
            if files.without_label:
                raise DataError(files.missing())
            for note in files.found.left_out:
                logger.warning("%s", note)
            if files.without_image:
                first, others = files.without_image[0], more(files.without_image)
                note = files.note_on(first)
                logger.warning("label without an image, left out: %s%s%s", first, others, note)
        self._pairs = [(files, pair) for files in sets for pair in files.pairs]
        images = Counter(os.path.realpath(pair.image) for pair in self.pairs)
        if repeated := [image for image, count in images.items() if count > 1]:
            raise DataError(
                f"{repeated[0]}{more(repeated)} would count twice: name each split once, and none "
                "that holds another"
            )
        self._first_read: dict[int, tuple[Path, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The files of each sample."""
        return tuple(pair for _, pair in self._pairs)

    def __getitem__(self, index: int) -> Sample:
        files, pair = self._pairs[index]
        image = read_rgb(pair.image)
        return files.sample(pair, image, self.label(index, image.shape[:2]))

    def label(self, index: int, size: tuple[int, ...] | None = None) -> Pixels:
        """Return a sample's label as stored; without the `size` of its image, look at that, too.

        Raises:
            DataError: what would be raised when the sample is read.
        """
        files, pair = self._pairs[index]
        size, raw = size or size_of_rgb(pair.image), files.read_label(pair)
        require_same_size(pair.label, raw.shape[:2], pair.image, size, SIZES_OF_A_PAIR)
        if files.same_size:
            first = self._first_read.setdefault(id(files), (pair.image, size))
            require_same_size(pair.image, size, *first, SIZES_OF_A_SPLIT)
        return files.train_ids(raw, pair)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


SIZES_OF_A_PAIR = "an image and its label must have the same size"
SIZES_OF_A_SPLIT = "all frames of a split must have the same size"


def require_same_size(
    path: Path, size: tuple[int, ...], other: Path, other_size: tuple[int, ...], rule: str
) -> None:
    """Check that two sizes (height, width) agree.

    Raises:
        DataError: they differ; the message names both files, the rule, and orientation tags.
    """
    if size != other_size:
        sizes = f"{path} is {size[1]}x{size[0]}, but {other} is {other_size[1]}x{other_size[0]}"
        notes = (note for note in (turned(path), turned(other)) if note)
        raise DataError("; ".join([f"{sizes}: {rule}", *notes]))
