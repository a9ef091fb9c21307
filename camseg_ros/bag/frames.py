"""Reads the images of a bag as pixels, each with its label, found by its stamp."""

import bisect
import re
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.data.image_files import read_unchanged
from camseg_core.errors import ConfigError, DataError, ImageError
from camseg_ros.bag.read import WHOLE, BagDamaged, ImageBag, RawImage, TimeRange
from camseg_ros.bag.storage import SECOND_NS
from camseg_ros.image_conversion import Converter, choose_converter
from camseg_ros.images import (
    BadImage,
    compressed_to_ids,
    compressed_to_rgb,
    image_to_ids,
    image_to_rgb,
)

Ids = npt.NDArray[np.uint8]

MAX_BYTES = 1 << 30
"""A message that claims a larger image is treated as damage."""

_STAMP = re.compile(r"(\d+)(?:[._](\d{1,9}))?$")


class Labels:
    """The labels of a bag's images.

    `first_ns` is the stamp of the first label read so far, in ns; None if there is none.
    """

    first_ns: int | None = None

    def at(self, stamp_ns: int) -> Ids | None:
        """Return the label `(H, W)`, train ids, nearest to the stamp.

        Returns None if no label is within the tolerance. Call it for the images in recorded order.

        Raises:
            DataError: the label does not hold class ids.
        """
        raise NotImplementedError

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
        """Open the labels of the images of `bag`.

        Raises:
            DataError: the bag has no such topic, or the folder no labels.
        """
        if self.folder is not None:
            return FolderLabels(self.folder, self.tolerance_ns)
        return TopicLabels(ImageBag(bag, self.topic, salvage=True), self.tolerance_ns)

    def __str__(self) -> str:
        return self.topic or (self.folder.name if self.folder else "")


class TopicLabels(Labels):
    """Labels on a topic.

    Reads the topic alongside the images, so only the labels around one image are in memory. The
    stamps of images and labels must therefore never go back.
    """

    def __init__(self, bag: ImageBag, tolerance_ns: int) -> None:
        self._bag, self._tolerance_ns = bag, tolerance_ns
        self._raw: Iterator[RawImage] = bag.raw()
        self._near: list[RawImage] = []
        self._last_asked = self._last_read = -1
        self._ended = False

    def at(self, stamp_ns: int) -> Ids | None:
        """Return the nearest label; see `Labels.at`. Also raises DataError if stamps go back."""
        self._check_order("images", self._last_asked, stamp_ns)
        self._last_asked = stamp_ns
        oldest_ns, newest_ns = stamp_ns - self._tolerance_ns, stamp_ns + self._tolerance_ns
        while not self._ended and self._last_read <= newest_ns:
            self._read()
            self._near = [raw for raw in self._near if raw.stamp_ns >= oldest_ns]
        self._near = [raw for raw in self._near if raw.stamp_ns >= oldest_ns]
        found = min(self._near, key=lambda raw: abs(raw.stamp_ns - stamp_ns), default=None)
        if found is None or found.stamp_ns > newest_ns:
            return None
        message: Any = self._bag.parse(found).message
        to_ids = compressed_to_ids if self._bag.compressed else image_to_ids
        try:
            return to_ids(message, MAX_BYTES)
        except ImageError as error:
            raise DataError(
                f"label {found.index} on {self._bag.topic} of the bag {self._bag.path}: {error}"
            ) from error

    def _read(self) -> None:
        try:
            raw = next(self._raw, None)
        except BagDamaged:  # reading the images reports it when it gets there
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
        self._check_order("labels", self._last_read, stamp_ns)
        self._last_read = stamp_ns
        self.first_ns = stamp_ns if self.first_ns is None else self.first_ns
        self._near.append(raw)

    def _check_order(self, kind: str, before_ns: int, after_ns: int) -> None:
        if after_ns < before_ns:
            raise DataError(
                f"the stamps of the {kind} go back in time in the bag {self._bag.path}, "
                f"from {seconds(before_ns)} to {seconds(after_ns)}: labels on {self._bag.topic} "
                "cannot be matched; record one drive a bag, or use a folder of labels"
            )

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()


class FolderLabels(Labels):
    """Labels in PNG files whose names end with their stamp.

    The stamp is in ns, or in seconds and nanoseconds with `.` or `_` between.
    """

    def __init__(self, folder: Path, tolerance_ns: int) -> None:
        """List the files.

        Raises:
            DataError: there are none.
        """
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
        self.first_ns, self._tolerance_ns = self._files[0][0], tolerance_ns

    def at(self, stamp_ns: int) -> Ids | None:
        """Return the nearest label; see `Labels.at`. Works in any order."""
        after = bisect.bisect_left(self._files, stamp_ns, key=lambda each: each[0])
        near = self._files[max(0, after - 1) : after + 1]
        stamp, path = min(near, key=lambda each: abs(each[0] - stamp_ns))
        if abs(stamp - stamp_ns) > self._tolerance_ns:
            return None
        ids = read_unchanged(path)
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise DataError(
                f"labels must be class ids in one 8-bit channel, "
                f"got {'colours' if ids.ndim > 2 else ids.dtype} ({path})"
            )
        return np.asarray(ids, np.uint8)


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


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a bag: the image topic (None: the only one), its labels, a time range."""

    topic: str | None = None
    labels: LabelSource | None = None
    within: TimeRange = WHOLE

    def open(self, bag: Path) -> ImageBag:
        """Open the images of a bag, which may be damaged.

        Raises:
            DataError: as `ImageBag`.
        """
        exclude = (self.labels.topic,) if self.labels and self.labels.topic else ()
        return ImageBag(bag, self.topic, exclude=exclude, salvage=True)


@dataclass(frozen=True)
class DecodedFrame:
    """One image of a bag as pixels.

    `index` is its number on its topic. `image` is RGB `(H, W, 3)`, or None if the message cannot
    be decoded, with the reason in `problem`. `truth` `(H, W)` is its label in train ids, or None.
    """

    index: int
    stamp_ns: int
    frame_id: str
    image: Ids | None
    truth: Ids | None
    problem: str = ""


def read_frames(
    bag: ImageBag, options: ReadOptions, start: int = 0, only: Collection[int] | None = None
) -> Iterator[DecodedFrame]:
    """Decode the images of the time range from number `start` on, or `only` those numbers.

    Raises:
        BagDamaged: the bag is damaged; every image before the damage has been yielded.
        DataError: an image has an unknown encoding or another size than its label, or a label does
            not hold class ids.
    """
    converter = choose_converter()
    labels = options.labels.open(bag.path) if options.labels is not None else None
    with closing(labels) if labels is not None else nullcontext():
        for raw in bag.raw(start, options.within):
            if only is not None and raw.index not in only:
                continue
            message = bag.parse(raw)
            header = raw.index, message.stamp_ns, message.frame_id
            where = f"image {raw.index} on {bag.topic} of the bag {bag.path}"
            try:
                image = decode(message.message, bag.compressed, converter)
            except BadImage as error:
                if error.reason == "encoding":
                    raise DataError(f"{where}: {error}") from error
                yield DecodedFrame(*header, None, None, f"{where}: {error}")
                continue
            except ConfigError as error:
                raise DataError(f"{where}: {error}") from error
            yield DecodedFrame(*header, image, _label(labels, message.stamp_ns, image, where))


def decode(message: Any, compressed: bool, converter: Converter) -> Ids:
    """Convert an `Image` or, if `compressed`, a `CompressedImage` to RGB `(H, W, 3)`.

    Raises:
        ImageError: the message cannot be decoded.
        ConfigError: its encoding needs a package that is not installed.
    """
    if compressed:
        return compressed_to_rgb(message, MAX_BYTES)
    return image_to_rgb(message, converter, MAX_BYTES)


def _label(labels: Labels | None, stamp_ns: int, image: Ids, where: str) -> Ids | None:
    truth = labels.at(stamp_ns) if labels is not None else None
    if truth is not None and truth.shape != image.shape[:2]:
        (label_height, label_width), (height, width) = truth.shape, image.shape[:2]
        raise DataError(
            f"{where}: the label is {label_width}x{label_height}, the image {width}x{height}; "
            "they must have the same size"
        )
    return truth
