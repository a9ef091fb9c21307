"""Finds the labels of a bag's images, on a topic or in a folder, by their stamps."""

import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.data.image_files import read_label
from camseg_core.data.image_header import has_palette
from camseg_core.errors import DataError, ImageError
from camseg_ros.bag.read import BagDamaged, ImageBag, RawImage, TimeRange
from camseg_ros.bag.storage import SECOND_NS
from camseg_ros.images import compressed_to_ids, image_to_ids

Ids = npt.NDArray[np.uint8]

NO_LABEL, MAX_BYTES = -1, 1 << 30
"""A message that claims an image larger than `MAX_BYTES` is treated as damage."""

_STAMP = re.compile(r"(\d+)(?:[._](\d{1,9}))?$")


class Labels(ABC):
    """The labels of a bag's images, numbered from 0."""

    @abstractmethod
    def stamps(self) -> Sequence[int]:
        """Return the stamps of all labels in ns; raises DataError if they are not usable."""

    @abstractmethod
    def read(self, number: int) -> Ids:
        """Return a label `(H, W)`, train ids; raises DataError if it holds none.

        Numbers must not go back from call to call.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the files."""


@dataclass(frozen=True)
class LabelSource:
    """Where labels are: on a topic of the bag or in a folder, exactly one of the two.

    `tolerance_ns` is how far the stamps of image and label may differ.
    """

    topic: str | None
    folder: Path | None
    tolerance_ns: int

    def open(self, bag: Path) -> Labels:
        """Open the labels of `bag`; raises DataError if topic or folder have none."""
        if self.folder is not None:
            return FolderLabels(self.folder)
        return TopicLabels(ImageBag(bag, self.topic, salvage=True))

    def pair(self, images: ImageBag) -> "Pairs":
        """Read the stamps of all images and labels, and pair them.

        Raises:
            DataError: the bag has no such topic, the folder no labels, or the labels are on a topic
                and stamps go back in time.
        """
        with closing(self.open(images.path)) as labels:
            label_ns = labels.stamps()
            image_ns = array("q")
            with suppress(DataError):  # reading the images reports it when it gets there
                image_ns.extend(raw.stamp_ns for raw in images.raw())
            if self.topic is not None:
                _check_order("images", image_ns, images.path, self.topic)
            return pair(image_ns, label_ns, self.tolerance_ns)

    def check(self, pairs: "Pairs", images: ImageBag, within: TimeRange) -> None:
        """Raise DataError if no image of the time range has a label."""
        first_ns = last_ns = None
        with suppress(DataError):  # reading the images reports it when it gets there
            for raw in images.raw(within=within):
                if pairs.of(raw.index) != NO_LABEL:
                    return
                last_ns = raw.stamp_ns
                first_ns = last_ns if first_ns is None else first_ns
        if first_ns is None or last_ns is None:
            return  # the range is empty, which is reported as well
        if pairs.unclear:
            raise DataError(
                f"no image of the bag {images.path} has a label, as {pairs.example}: record both "
                "with stamps that differ from image to image, or as many labels as images"
            )
        first = pairs.first_ns
        label = "there are no labels" if first is None else f"the first label at {seconds(first)}"
        raise DataError(
            f"no label of {self} is within {self.tolerance_ns / 1e6:g} ms of an image of the bag "
            f"{images.path}: images are stamped {seconds(first_ns)} to {seconds(last_ns)}, "
            f"{label}; were they stamped by two clocks? (--tolerance)"
        )

    def __str__(self) -> str:
        return self.topic or (self.folder.name if self.folder else "")


@dataclass(frozen=True)
class Pairs:
    """The labels of a bag's images.

    Attributes:
        label: by the number of the image, the number of its label or `NO_LABEL`.
        by_order: number of images that share their stamp with others, as do their labels, so that
            their order decides.
        unclear: number of images left without a label, as other images share their stamp, and
            there are more labels or fewer.
        example: the first such stamp, and the numbers of images and labels that have it.
        first_ns: the stamp of the first label, in ns; None without labels.
    """

    label: "array[int]"
    by_order: int = 0
    unclear: int = 0
    example: str = ""
    first_ns: int | None = None

    def of(self, image: int) -> int:
        """Return the number of the label of an image, or `NO_LABEL`."""
        return self.label[image] if image < len(self.label) else NO_LABEL


def pair(images: Sequence[int], labels: Sequence[int], tolerance_ns: int) -> Pairs:
    """Pair images and labels with their stamps in ns, each with one other at most.

    An image has the label that is nearest to it if no other image is nearer to that label, and
    they are at most `tolerance_ns` apart. Images that share a stamp have the labels that share one
    in order if they are as many, else none.
    """
    if not len(images) or not len(labels):
        return Pairs(array("q", [NO_LABEL] * len(images)), first_ns=next(iter(labels), None))
    image_ns, group, images_of = np.unique(
        np.asarray(images, np.int64), return_inverse=True, return_counts=True
    )
    ordered = np.argsort(np.asarray(labels, np.int64), kind="stable")
    label_ns, first, labels_of = np.unique(
        np.asarray(labels, np.int64)[ordered], return_index=True, return_counts=True
    )
    near = _nearest(image_ns, label_ns)
    mutual = (np.abs(label_ns[near] - image_ns) <= tolerance_ns) & (
        _nearest(label_ns, image_ns)[near] == np.arange(len(image_ns))
    )
    clear = mutual & (images_of == labels_of[near])
    rank = np.empty(len(images), np.int64)  # of an image among those with its stamp
    rank[np.argsort(group, kind="stable")] = np.concatenate([np.arange(n) for n in images_of])
    place = first[near[group]] + np.where(clear[group], rank, 0)
    found = np.where(clear[group], ordered[place], NO_LABEL)
    unclear = np.flatnonzero(mutual & ~clear)
    example = ""
    if len(unclear):
        some = unclear[0]
        example = (
            f"{_count(images_of[some], 'image')} and {_count(labels_of[near[some]], 'label')} "
            f"are stamped {seconds(image_ns[some])}"
        )
    return Pairs(
        array("q", found.tolist()),
        int(images_of[clear & (images_of > 1)].sum()),
        int(images_of[unclear].sum()),
        example,
        int(labels[0]),
    )


def _nearest(of: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the index in the sorted `among` of the value nearest to each value."""
    after = np.searchsorted(among, of).clip(max=len(among) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(among[after] - of) < np.abs(among[before] - of), after, before)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


class TopicLabels(Labels):
    """Labels on a topic, read alongside the images. Their stamps must not go back."""

    def __init__(self, bag: ImageBag) -> None:
        self._bag = bag
        self._raw: Iterator[RawImage] = iter(())
        self._last: RawImage | None = None

    def stamps(self) -> Sequence[int]:
        """Return the stamps; see `Labels.stamps`."""
        found = array("q")
        with suppress(BagDamaged):  # reading the images reports it when it gets there
            for raw in self._bag.raw():
                try:
                    found.append(raw.stamp_ns)
                except DataError as error:
                    where = f"labels on {self._bag.topic} of the bag {self._bag.path}"
                    raise DataError(f"{where}: {error}") from error
        _check_order("labels", found, self._bag.path, self._bag.topic)
        return found

    def read(self, number: int) -> Ids:
        """Return a label; see `Labels.read`."""
        if self._last is None:
            self._raw = self._bag.raw(number)
        while self._last is None or self._last.index < number:
            self._last = next(self._raw)
        message: Any = self._bag.parse(self._last).message
        to_ids = compressed_to_ids if self._bag.compressed else image_to_ids
        try:
            return to_ids(message, MAX_BYTES)
        except ImageError as error:
            raise DataError(
                f"label {number} on {self._bag.topic} of the bag {self._bag.path}: {error}"
            ) from error

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()


def _check_order(kind: str, stamps: Sequence[int], bag: Path, topic: str) -> None:
    """Raise DataError if stamps go back, as images and labels are then in another order."""
    back = np.flatnonzero(np.diff(np.asarray(stamps, np.int64)) < 0)
    if len(back):
        before_ns, after_ns = stamps[back[0]], stamps[back[0] + 1]
        raise DataError(
            f"the stamps of the {kind} go back in time in the bag {bag}, from "
            f"{seconds(before_ns)} to {seconds(after_ns)}: labels on {topic} cannot be matched; "
            "record one drive a bag, or use a folder of labels"
        )


class FolderLabels(Labels):
    """Labels in PNG files whose names end with their stamp.

    The stamp is in ns, or in seconds and nanoseconds with `.` or `_` between.
    """

    def __init__(self, folder: Path) -> None:
        """List the files; raises DataError if there are none."""
        if not folder.is_dir():
            raise DataError(
                f"the folder of labels {folder} does not exist; "
                "name a folder of PNG files, or a topic that begins with /"
            )
        stamped = ((_stamp_of(path.stem), path) for path in folder.glob("*.png"))
        self._files = sorted((stamp, path) for stamp, path in stamped if stamp is not None)
        if not self._files:
            raise DataError(
                f"no labels in {folder}: they must be PNG files of class ids named for their "
                "stamp in ns, such as 1700000000123456789.png"
            )

    def stamps(self) -> Sequence[int]:
        """Return the stamps in the names."""
        return [stamp for stamp, _ in self._files]

    def read(self, number: int) -> Ids:
        """Return a label; see `Labels.read`. Numbers may come in any order."""
        path = self._files[number][1]
        ids = read_label(path)
        if ids.ndim != 2 or ids.dtype != np.uint8:
            found = "colours" if ids.ndim > 2 else str(ids.dtype)
            if has_palette(path.read_bytes()):
                found = "the colours of a palette"
            raise DataError(f"labels must be class ids in one 8-bit channel, got {found} ({path})")
        return np.asarray(ids, np.uint8)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def seconds(ns: int) -> str:
    """Format a time in ns for a message."""
    return f"{ns / SECOND_NS:.3f} s"


def _stamp_of(name: str) -> int | None:
    """Return the stamp in ns that a file name ends with.

    `12500000000` (ns), `12.5` (s) and `12_500000000` (s and ns) are the same stamp.
    """
    found = _STAMP.search(name)
    if found is None:
        return None
    whole, rest = found.groups()
    if rest is None:
        return int(whole)
    return int(whole) * SECOND_NS + int(rest.ljust(9, "0") if "." in name else rest)
