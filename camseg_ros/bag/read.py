"""Reads the camera images of a rosbag2 bag (MCAP or sqlite3), one at a time. Needs no ROS."""

import hashlib
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.errors import DataError
from camseg_ros.bag.storage import one_line, open_bag, read_header, read_stamp, repair_advice
from camseg_ros.bag.topics import choose_topic
from camseg_ros.compressed_images import compressed_size


class BagDamaged(DataError):
    """A bag is damaged; every image before the damage has been read."""


@dataclass(frozen=True)
class TimeRange:
    """A part of a bag: from `start_s` to before `end_s`, in s after the bag's first message.

    None stands for the bag's start or end.
    """

    start_s: float | None = None
    end_s: float | None = None

    def has_begun(self, at_s: float) -> bool:
        """Return whether a moment is not before this part of the bag."""
        return self.start_s is None or at_s >= self.start_s

    def has_ended(self, at_s: float) -> bool:
        """Return whether a moment is behind this part of the bag."""
        return self.end_s is not None and at_s >= self.end_s


WHOLE = TimeRange()


@dataclass(frozen=True)
class RawImage:
    """A serialized image message: its number on its topic, its recording time in ns, its bytes."""

    index: int
    recorded_ns: int
    kind: str
    cdr: bytes

    @property
    def stamp_ns(self) -> int:
        """The stamp of the header, in ns; raises DataError if the message is too short for one."""
        try:
            return read_stamp(self.cdr)
        except struct.error as error:
            raise DataError(
                f"message {self.index} has {len(self.cdr)} bytes, too few for a header; "
                "record the bag again"
            ) from error


@dataclass(frozen=True)
class BagImage:
    """A deserialized image message.

    `message` has the fields of `sensor_msgs/Image` or `CompressedImage`; `cdr` holds the recorded
    bytes, which can be published unchanged. `stamp_ns` is the header's stamp, `recorded_ns` the
    recording time, both in ns.
    """

    index: int
    stamp_ns: int
    recorded_ns: int
    frame_id: str
    message: Any
    cdr: bytes

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels; None if a compressed image has no readable header."""
        if hasattr(self.message, "width"):
            return int(self.message.width), int(self.message.height)
        found = compressed_size(bytes(self.message.data))
        return (found[0], found[1]) if found else None


class ImageBag:
    """The images of one topic of a bag, in recorded order. A context manager, iterable repeatedly.

    Attributes:
        topic: the image topic.
        compressed: whether it holds `CompressedImage` messages.
        note: why this topic was chosen of several, empty if it was named or is the only one.
        count: number of images that the bag holds or, if that is more, that its metadata promise.
        start_ns: recording time of the bag's first message on any topic, in ns.
        files: the files that hold the bag's messages, without links.
    """

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        *,
        exclude: Collection[str] = (),
        salvage: bool = False,
    ) -> None:
        """Open the bag.

        Args:
            path: a bag folder, or one .mcap or .db3 file.
            topic: the image topic; None to choose the only one, or the only one in colour.
            exclude: topics to ignore when `topic` is None.
            salvage: also open a damaged bag, or one that lacks files; iterating it ends with
                `BagDamaged`.

        Raises:
            DataError: the bag cannot be read, or see `choose_topic`.
        """
        self.path = path
        opened = open_bag(path, salvage)
        self._reader, self._files, self._salvaged = opened.reader, opened.files, opened.salvaged
        try:
            self.topic, self.compressed, self.note = choose_topic(
                self._reader, path, topic, exclude
            )
        except DataError:
            self._reader.close()
            raise
        self._connections = [c for c in self._reader.connections if c.topic == self.topic]
        held, promised = sum(c.msgcount for c in self._connections), self._files.counts
        self.count = max(held, promised.get(self.topic, 0))
        self.files = tuple(Path(os.path.realpath(each)) for each in self._files.files)
        started_ns = self._files.start_ns
        self.start_ns = self._reader.start_time if started_ns is None else started_ns

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def __enter__(self) -> "ImageBag":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[BagImage]:
        """Yield every image in recorded order; raises as `images`."""
        return self.images()

    def images(self, within: TimeRange = WHOLE) -> Iterator[BagImage]:
        """Yield the images recorded in a time range, in recorded order.

        Raises:
            BagDamaged: the bag is damaged; every image before the damage has been yielded.
        """
        return map(self.parse, self.raw(within=within))

    def raw(self, start: int = 0, within: TimeRange = WHOLE) -> Iterator[RawImage]:
        """Yield the serialized images from number `start` on that were recorded in a time range.

        Raises:
            BagDamaged: the bag is damaged or lacks a part; every image that is there has been
                yielded.
        """
        index, ended = 0, False
        messages = self._reader.messages(self._connections)
        while True:
            try:
                connection, recorded_ns, cdr = next(messages)
            except StopIteration:
                self._check_complete(self.count if ended else index)
                return
            except Exception as error:  # a damaged file can raise anything
                if ended:  # behind the time range
                    return
                raise self._damaged(index, error) from error
            at_s = self.seconds(recorded_ns)
            ended = ended or within.has_ended(at_s)
            if ended and not self._salvaged:
                self._check_complete(self.count)
                return
            # a salvaged bag is in the order of the file: more may follow
            if index >= start and within.has_begun(at_s) and not within.has_ended(at_s):
                yield RawImage(index, recorded_ns, connection.msgtype, bytes(cdr))
            index += 1

    def seconds(self, recorded_ns: int) -> float:
        """Return a recording time in s after the bag's first message."""
        return (recorded_ns - self.start_ns) / 1e9

    def _check_complete(self, read: int) -> None:
        """Raise BagDamaged if files are missing, or fewer images were there than promised."""
        lost, images = self._files.lost, ""
        if read < self.count:
            images = f" ({read} of {self.count} images on {self.topic} are there)"
            advice = repair_advice(self._files)
            lost = lost or f"its files hold less than its metadata promise; {advice}"
        if lost:
            raise BagDamaged(f"the bag {self.path} is incomplete{images}: {lost}")

    def parse(self, raw: RawImage) -> BagImage:
        """Deserialize a message.

        Raises:
            BagDamaged: the message cannot be deserialized.
        """
        try:
            message = self._reader.deserialize(raw.cdr, raw.kind)
            stamp_ns, frame_id = read_header(raw.cdr)
        except Exception as error:  # a damaged file can raise anything
            raise self._damaged(raw.index, error) from error
        return BagImage(raw.index, stamp_ns, raw.recorded_ns, frame_id, message, raw.cdr)

    def _damaged(self, index: int, error: Exception) -> BagDamaged:
        known = not self._salvaged or self.topic in self._files.counts
        total = f" of {self.count}" if known else ""
        return BagDamaged(
            f"the bag {self.path} is damaged after image {index}{total} on {self.topic}: "
            f"{one_line(error)}; {repair_advice(self._files)}"
        )


@dataclass(frozen=True)
class BagInput:
    """The images of one topic of a bag, within a time range.

    Attributes:
        path: the bag.
        within: the time range.
        topic: the image topic.
        compressed: whether it holds `CompressedImage` messages.
        frames: number of images.
        sha256: hash of the serialized messages in recorded order.
        size: width and height of the first image whose header is readable; None if no image's is.
        largest_bytes: size of the largest message.
        recorded_hz: mean recorded rate; None if all images were recorded at the same time.
        repeated: index of the first image whose stamp and frame_id occurred before; None if unique.
        note: why the topic was chosen of several, empty if it was named or is the only one.
    """

    path: Path
    within: TimeRange
    topic: str
    compressed: bool
    frames: int
    sha256: str
    size: tuple[int, int] | None
    largest_bytes: int
    recorded_hz: float | None
    repeated: int | None
    note: str


def mean_rate_hz(recorded_ns: Sequence[int], count: int) -> float | None:
    """Return the mean rate of `count` images from the times of the first and the last, if known."""
    span_s = (recorded_ns[-1] - recorded_ns[0]) / 1e9 if recorded_ns else 0.0
    return (count - 1) / span_s if span_s > 0 else None


def read_input(path: Path, topic: str | None = None, within: TimeRange = WHOLE) -> BagInput:
    """Read all images once, one at a time.

    Raises:
        DataError: the bag is damaged, or has no images in the time range.
    """
    digest, size, largest, repeated, frames = hashlib.sha256(), None, 0, None, 0
    seen: set[tuple[int, str]] = set()
    recorded: list[int] = []  # of the first image and of the last
    with ImageBag(path, topic) as bag:
        for image in bag.images(within):
            digest.update(image.cdr)
            size = size or image.size
            largest = max(largest, len(image.cdr))
            key = image.stamp_ns, image.frame_id
            if repeated is None and key in seen:
                repeated = image.index
            seen.add(key)
            recorded = [*recorded[:1], image.recorded_ns]
            frames += 1
        if not frames:
            where = f"the bag {path}" if within == WHOLE else f"this time range of the bag {path}"
            raise DataError(
                f"no images on {bag.topic} in {where}; record it again while the camera runs, "
                "or choose another time range"
            )
        recorded_hz = mean_rate_hz(recorded, frames)
        found = path, within, bag.topic, bag.compressed, frames, digest.hexdigest()
        return BagInput(*found, size, largest, recorded_hz, repeated, bag.note)
