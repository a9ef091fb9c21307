"""Finds the labels of a bag's images, on a topic or in a folder, by their stamps."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.data.folders import files_in, visible
from camseg_core.data.image_files import read_label
from camseg_core.data.image_header import has_palette
from camseg_core.errors import DataError, ImageError
from camseg_ros.bag.names import frame_of, name_in_files, stamp_of
from camseg_ros.bag.pairs import NO_IMAGE, NO_LABEL, Pairs, counted, pair, seconds
from camseg_ros.bag.read import WHOLE, BagDamaged, ImageBag, RawImage, TimeRange
from camseg_ros.compressed_images import compressed_to_ids
from camseg_ros.images import image_to_ids

Ids = npt.NDArray[np.uint8]

MAX_BYTES = 1 << 30
"""A message that claims an image larger than `MAX_BYTES` is treated as damage."""


class Labels(ABC):
    """The labels of a bag's images, numbered from 0."""

    @abstractmethod
    def stamps(self) -> Sequence[int]:
        """Return the stamps of all labels in ns; raises DataError if they are not usable."""

    def named_for(self, bag: Path) -> Mapping[int, int]:
        """Return the labels that can only belong to one image: which of `bag`, or `NO_IMAGE`."""
        return {}

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

    def pair(self, images: ImageBag, within: TimeRange = WHOLE) -> Pairs:
        """Read the stamps of all images and labels, and pair them.

        Only images `within` the time range count in `Pairs.by_order` and `unclear`.

        Raises:
            DataError: the bag has no such topic, the folder no labels, or the labels are on a topic
                and stamps go back in time.
        """
        with closing(self.open(images.path)) as labels:
            label_ns = labels.stamps()
            image_ns, inside = array("q"), array("q")
            with suppress(DataError):  # reading the images reports it when it gets there
                for raw in images.raw():
                    image_ns.append(raw.stamp_ns)
                    at_s = images.seconds(raw.recorded_ns)
                    if within.has_begun(at_s) and not within.has_ended(at_s):
                        inside.append(raw.index)
            if self.topic is not None:
                _check_order("images", image_ns, images.path, self.topic)
            named = labels.named_for(images.path)
            return pair(image_ns, label_ns, self.tolerance_ns, named, inside)

    def check(self, pairs: Pairs, images: ImageBag, within: TimeRange) -> None:
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
        others = "" if self.folder is None else FolderLabels(self.folder).of_others(images.path)
        if others:
            raise DataError(
                f"no label of {self} is named for the bag {images.path}, but all for images of "
                f"others, such as {others}: give the bag's own labels, or name them for "
                f"{name_in_files(images.path)} or only for their stamps"
            )
        first = pairs.first_ns
        label = "there are no labels" if first is None else f"the first label at {seconds(first)}"
        raise DataError(
            f"no label of {self} is within {self.tolerance_ns / 1e6:g} ms of an image of the bag "
            f"{images.path}: images are stamped {seconds(first_ns)} to {seconds(last_ns)}, "
            f"{label}; were they stamped by two clocks? (--tolerance)"
        )

    def check_shared(self, bags: Sequence[tuple[Path, Pairs]]) -> None:
        """Raise DataError if a label of the folder belongs to images of two bags."""
        if self.folder is None:
            return
        owners: dict[int, tuple[Path, int]] = {}
        for bag, pairs in bags:
            for image, number in enumerate(pairs.label):
                owner = owners.setdefault(number, (bag, image))
                if number == NO_LABEL or owner[0] == bag:
                    continue
                raise DataError(
                    "a label must belong to one bag, but the stamp of "
                    f"{FolderLabels(self.folder).name(number)} in {self.folder} is that of image "
                    f"{owner[1]} of {owner[0]} and of image {image} of {bag}: name labels as "
                    "`camseg bag images` does for bags of different names, or give one bag at a "
                    "time with its labels"
                )

    def unpaired(self, bags: Sequence[tuple[Path, Pairs]]) -> str:
        """Say how many labels belong to no image of these bags, with an example; empty if all do.

        The bags share the labels of a folder, in which pictures without a stamp count as well.
        """
        if self.folder is not None:
            files = FolderLabels(self.folder)
            used = {number for _, pairs in bags for number in pairs.label}
            left = [*files.unstamped, *files.without(used)]
            return _left_out(len(left), len(files.unstamped) + len(files.stamps()), left[:1], self)
        left = []
        for bag, pairs in bags:
            unused = sorted({*range(pairs.labels)}.difference(pairs.label))
            left += [f"number {number} of {bag.name}" for number in unused]
        return _left_out(len(left), sum(pairs.labels for _, pairs in bags), left[:1], self)

    def __str__(self) -> str:
        return self.topic or (self.folder.name if self.folder else "")


def _left_out(count: int, all_of: int, example: Sequence[str], source: LabelSource) -> str:
    if not count:
        return ""
    verb = "belongs" if count == 1 else "belong"
    return (
        f"{count} of the {counted(all_of, 'label')} of {source} {verb} to no image: {example[0]}"
        + (", …" if count > 1 else "")
    )


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

    The stamp is in ns, or in seconds and nanoseconds with `.` or `_` between. A file named as by
    `frame_name` belongs to that image of that bag only.
    """

    def __init__(self, folder: Path) -> None:
        """List the files; raises DataError if there are none."""
        if not folder.is_dir():
            raise DataError(
                f"the folder of labels {folder} does not exist; "
                "name a folder of PNG files, or a topic that begins with /"
            )
        stamped = [(stamp_of(path.stem), path) for path in visible(files_in(folder), ".png")]
        self._files = sorted((stamp, path) for stamp, path in stamped if stamp is not None)
        self.unstamped = [path.name for stamp, path in stamped if stamp is None]
        if not self._files:
            raise DataError(
                f"no labels in {folder}: they must be PNG files of class ids named for their "
                "stamp in ns, such as 1700000000123456789.png"
            )

    def stamps(self) -> Sequence[int]:
        """Return the stamps in the names."""
        return [stamp for stamp, _ in self._files]

    def named_for(self, bag: Path) -> Mapping[int, int]:
        """Return the labels with the name of an image; see `Labels.named_for`."""
        own = name_in_files(bag)
        frames = ((number, frame_of(path.stem)) for number, (_, path) in enumerate(self._files))
        return {
            number: frame.number if frame.bag == own else NO_IMAGE
            for number, frame in frames
            if frame is not None
        }

    def of_others(self, bag: Path) -> str:
        """Return an example if all labels are named for images of other bags, else nothing."""
        named = self.named_for(bag)
        elsewhere = len(named) == len(self._files) and {*named.values()} == {NO_IMAGE}
        return self.name(0) if elsewhere else ""

    def name(self, number: int) -> str:
        """Return the name of a label's file."""
        return self._files[number][1].name

    def without(self, used: Collection[int]) -> list[str]:
        """Return the names of the labels whose numbers are not in `used`."""
        return [path.name for i, (_, path) in enumerate(self._files) if i not in used]

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
