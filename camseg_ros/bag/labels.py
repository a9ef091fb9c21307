"""Labels of a bag's images, found by their stamps: on a topic of the bag, or in a folder of files."""

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.data.image_file import read_unchanged
from camseg_core.errors import DataError, ImageError
from camseg_ros.bag.read import BagDamaged, ImageBag, RawImage
from camseg_ros.images import compressed_to_ids, image_to_ids

Ids = npt.NDArray[np.uint8]

MAX_BYTES = 1 << 30
"""No image of a bag is larger: what claims to be is damaged."""

_STAMP = re.compile(r"(\d+)(?:[._](\d{1,9}))?$")


@dataclass(frozen=True)
class LabelPlace:
    """Where labels are: exactly one of a topic of the bag and a folder; and how far stamps may be apart, in ns."""

    topic: str | None
    folder: Path | None
    tolerance_ns: int

    def open(self, bag: Path, salvage: bool) -> "Labels":
        """The labels of the images of `bag`.

        Raises:
            DataError: the bag has no such topic, or the folder no labels.
        """
        if self.folder is not None:
            return FolderLabels(self.folder, self.tolerance_ns)
        return TopicLabels(ImageBag(bag, self.topic, salvage=salvage), self.tolerance_ns)

    def __str__(self) -> str:
        return self.topic or (self.folder.name if self.folder else "")


class Labels(Protocol):
    """Asked for one image after the other, in recorded order."""

    def at(self, stamp_ns: int) -> Ids | None:
        """The label `(H, W)`, train ids, nearest to the stamp; None where none is within the tolerance.

        Raises:
            DataError: there is one, but it is no picture of class ids.
        """

    def first_ns(self) -> int | None:
        """The stamp of the first label, in ns; None where there is none."""

    def close(self) -> None:
        """Close what was opened."""


class TopicLabels:
    """Labels on a topic: two walks through the bag side by side, so that only the labels around one image are in memory.

    That takes images and labels whose stamps never go back; one that does is refused.
    """

    def __init__(self, bag: ImageBag, tolerance_ns: int) -> None:
        self._bag, self._tolerance_ns = bag, tolerance_ns
        self._raw: Iterator[RawImage] = bag.raw()
        self._near: list[RawImage] = []
        self._first_ns: int | None = None
        self._last_asked = self._last_read = -1
        self._ended = False

    def at(self, stamp_ns: int) -> Ids | None:
        """As `Labels.at`; also raises DataError where stamps go back in time."""
        if stamp_ns < self._last_asked:
            raise self._goes_back("the images", self._last_asked, stamp_ns)
        self._last_asked = stamp_ns
        while not self._ended and self._last_read <= stamp_ns + self._tolerance_ns:
            self._read()
            self._near = [
                raw for raw in self._near if raw.stamp_ns >= stamp_ns - self._tolerance_ns
            ]
        self._near = [raw for raw in self._near if raw.stamp_ns >= stamp_ns - self._tolerance_ns]
        found = min(self._near, key=lambda raw: abs(raw.stamp_ns - stamp_ns), default=None)
        if found is None or found.stamp_ns > stamp_ns + self._tolerance_ns:
            return None
        message = self._bag.parse(found).message
        try:
            return (
                compressed_to_ids(message, MAX_BYTES)
                if self._bag.compressed
                else image_to_ids(message, MAX_BYTES)
            )
        except ImageError as error:
            raise DataError(
                f"label {found.index} on {self._bag.topic} of the bag {self._bag.path}: {error}"
            ) from error

    def _read(self) -> None:
        try:
            raw = next(self._raw, None)
        except BagDamaged:  # the walk over the images tells, when it comes there
            raw = None
        if raw is None:
            self._ended = True
            return
        try:
            stamp_ns = raw.stamp_ns
        except DataError as error:
            raise DataError(
                f"labels on {self._bag.topic} of the bag {self._bag.path}: {error}"
            ) from error
        if stamp_ns < self._last_read:
            raise self._goes_back("the labels", self._last_read, stamp_ns)
        self._last_read = stamp_ns
        self._first_ns = stamp_ns if self._first_ns is None else self._first_ns
        self._near.append(raw)

    def _goes_back(self, what: str, before: int, after: int) -> DataError:
        text = f"the stamps of {what} go back in time in the bag {self._bag.path}, from {seconds(before)} to {seconds(after)}"
        return DataError(
            f"{text}: labels on {self._bag.topic} cannot be matched; record one drive a bag, or use a folder of labels"
        )

    def first_ns(self) -> int | None:
        """As `Labels.first_ns`, as far as has been read."""
        return self._first_ns

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()


class FolderLabels:
    """Labels in PNG files whose names end with their stamp: nanoseconds, or seconds and nanoseconds with a dot or `_` between."""

    def __init__(self, folder: Path, tolerance_ns: int) -> None:
        """List the files.

        Raises:
            DataError: there are none.
        """
        if not folder.is_dir():
            raise DataError(
                f"the folder of labels {folder} does not exist; name a folder of PNG files, or a topic that begins with /"
            )
        found = [
            (stamp, path)
            for path in folder.glob("*.png")
            if (stamp := _stamp_of(path.stem)) is not None
        ]
        if not found:
            raise DataError(
                f"no labels in {folder}: they are PNG files of class ids named for their stamp in ns, such as 1700000000123456789.png"
            )
        self._files = sorted(found)
        self._stamps = [stamp for stamp, _ in self._files]
        self._tolerance_ns = tolerance_ns

    def at(self, stamp_ns: int) -> Ids | None:
        """As `Labels.at`, in any order."""
        after = bisect.bisect_left(self._stamps, stamp_ns)
        near = self._files[max(0, after - 1) : after + 1]
        stamp, path = min(near, key=lambda each: abs(each[0] - stamp_ns))
        if abs(stamp - stamp_ns) > self._tolerance_ns:
            return None
        ids = read_unchanged(path)
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise DataError(
                f"{path} has {'colours' if ids.ndim > 2 else ids.dtype}; labels are class ids in one 8-bit channel"
            )
        return np.asarray(ids, np.uint8)

    def first_ns(self) -> int | None:
        """As `Labels.first_ns`."""
        return self._stamps[0]

    def close(self) -> None:
        """Nothing is open."""


def seconds(ns: int) -> str:
    """A time in ns for a message."""
    return f"{ns / 1e9:.3f} s"


def _stamp_of(name: str) -> int | None:
    """The stamp in ns that a file's name ends with: `12500000000`, `12.5` (seconds) or `12_500000000` (seconds and nanoseconds)."""
    found = _STAMP.search(name)
    if found is None:
        return None
    whole, rest = found.groups()
    return (
        int(whole)
        if rest is None
        else int(whole) * 1_000_000_000 + int(rest.ljust(9, "0") if "." in name else rest)
    )
