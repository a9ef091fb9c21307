"""Reads the camera images of a rosbag2 bag (MCAP or sqlite3, split or not, compressed or not), one at a time. Needs no ROS."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import natural_key
from camseg_core.errors import DataError
from camseg_ros.bag.salvage import SalvageReader
from camseg_ros.compressed_size import compressed_size

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"

STORAGE_SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"


class BagDamaged(DataError):
    """A bag is not whole; what came before the damage has been read."""


@dataclass(frozen=True)
class RawImage:
    """One image message of a bag as it was recorded: its number on its topic, its time of recording in ns, and its bytes."""

    index: int
    recorded_ns: int
    kind: str
    cdr: bytes

    @property
    def stamp_ns(self) -> int:
        """The stamp of the header, in ns, without reading the rest.

        Raises:
            DataError: the message is too short to have one.
        """
        try:
            seconds, nanoseconds = struct.unpack_from(
                "<iI" if self.cdr[1] & 1 else ">iI", self.cdr, 4
            )
        except (IndexError, struct.error) as error:
            raise DataError(
                f"message {self.index} has {len(self.cdr)} bytes, too few for a header; record the bag again"
            ) from error
        return int(seconds) * 1_000_000_000 + int(nanoseconds)


@dataclass(frozen=True)
class BagImage:
    """One image message of a bag.

    `message` has the fields of `sensor_msgs/Image` or `CompressedImage`; `cdr` is the same as it was recorded, fit to be
    published unchanged. `stamp_ns` is the header's stamp, `recorded_ns` the time the message was recorded, both in ns.
    """

    index: int
    stamp_ns: int
    recorded_ns: int
    frame_id: str
    message: Any
    cdr: bytes

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels; None where a compressed image is too damaged to say."""
        if hasattr(self.message, "width"):
            return int(self.message.width), int(self.message.height)
        found = compressed_size(bytes(self.message.data))
        return (found[0], found[1]) if found else None


class ImageBag:
    """The images of one topic of a bag, in recorded order. A context manager; iterate it as often as needed.

    Attributes:
        topic: the image topic.
        compressed: whether it holds `CompressedImage` messages.
        count: how many images it has.
        start_ns: when the first message of the whole bag was recorded, in ns.
        salvaged: whether the bag is damaged and only what is whole of it is read.
        interval_ms: the mean time between two of them as recorded, in ms; None where there are fewer than two.
    """

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        *,
        other_than: Collection[str] = (),
        salvage: bool = False,
    ) -> None:
        """Open the bag.

        Args:
            path: a bag folder, or one .mcap or .db3 file.
            topic: the image topic; may be left out where the bag has only one.
            other_than: topics that are not meant where none is named.
            salvage: read what is whole of a bag that was not ended properly; iterating it ends with `BagDamaged`.

        Raises:
            DataError: there is no readable bag, no such topic or no image topic in it, or several and none was named.
        """
        self.path = path
        self._reader, self.salvaged = open_bag(path, salvage)
        try:
            self.topic, self.compressed = self._choose(topic, other_than)
        except DataError:
            self._reader.close()
            raise
        self._connections = [c for c in self._reader.connections if c.topic == self.topic]
        self.count = sum(c.msgcount for c in self._connections)
        self.start_ns = self._reader.start_time
        span_ns = self._reader.end_time - self.start_ns
        self.interval_ms = (
            span_ns / 1e6 / (self.count - 1) if self.count > 1 and span_ns > 0 else None
        )

    def _choose(self, topic: str | None, other_than: Collection[str]) -> tuple[str, bool]:
        found = {c.topic: c.msgtype for c in self._reader.connections}
        images = sorted(
            name
            for name, kind in found.items()
            if kind in (RAW, COMPRESSED) and (topic or name not in other_than)
        )
        if topic is not None:
            if topic not in images:
                why = (
                    f"has type {found[topic]}, not an image's" if topic in found else "is not in it"
                )
                raise DataError(
                    f"the topic {topic} of the bag {self.path} {why}; its image topics: {', '.join(images) or 'none'}"
                )
            return topic, found[topic] == COMPRESSED
        if not images:
            others = f"only {', '.join(sorted(found))}" if found else "no topic at all"
            raise DataError(
                f"no image topic in the bag {self.path} ({others}); record the camera's topic (sensor_msgs Image or CompressedImage)"
            )
        if len(images) > 1:
            raise DataError(
                f"several image topics in the bag {self.path}: {', '.join(images)}; name one, for example --topic {images[0]}"
            )
        return images[0], found[images[0]] == COMPRESSED

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def __enter__(self) -> "ImageBag":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[BagImage]:
        """Every image in recorded order.

        Raises:
            BagDamaged: the bag is damaged; every whole image before the damage has been yielded.
        """
        return map(self.parse, self.raw())

    def raw(self, start: int = 0) -> Iterator[RawImage]:
        """The images from number `start` on as they were recorded.

        Raises:
            BagDamaged: as above, except that what a message says is not looked at.
        """
        index = start
        messages = islice(self._reader.messages(self._connections), start, None)
        while True:
            try:
                connection, recorded_ns, cdr = next(messages)
            except StopIteration:
                return
            except Exception as error:  # a damaged file raises whatever its damage leads to
                raise self._damaged(index, error) from error
            yield RawImage(index, recorded_ns, connection.msgtype, bytes(cdr))
            index += 1

    def parse(self, raw: RawImage) -> BagImage:
        """The message that was recorded.

        Raises:
            BagDamaged: it is none.
        """
        try:
            message: Any = self._reader.deserialize(raw.cdr, raw.kind)
            stamp = message.header.stamp
        except Exception as error:  # as above
            raise self._damaged(raw.index, error) from error
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return BagImage(
            raw.index, stamp_ns, raw.recorded_ns, message.header.frame_id, message, raw.cdr
        )

    def _damaged(self, index: int, error: Exception) -> BagDamaged:
        of = (
            "" if self.salvaged else f" of {self.count}"
        )  # what was lost of a salvaged bag is not known
        text = f"the bag {self.path} is damaged after image {index}{of} on {self.topic}"
        return BagDamaged(
            f"{text}: {_one_line(error)}; record it again, or repair it with `mcap recover`"
        )


def is_bag(path: Path) -> bool:
    """Whether `path` is a bag by its looks: a bag folder, or a file of a bag (of ROS 1 too, which is then refused)."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(
            p.suffix in STORAGE_SUFFIXES for p in path.iterdir()
        )
    return path.suffix in (*STORAGE_SUFFIXES, ".bag") or path.name == METADATA


def _storage(path: Path) -> list[Path]:
    """What to hand to the reader: the folder, the file, or the files of a folder whose recording was not ended properly."""
    if not path.exists():
        raise DataError(
            f"the bag {path} does not exist; name a bag folder, or a .mcap or .db3 file"
        )
    if path.name == METADATA:
        path = path.parent
    if path.suffix == ".bag":
        raise DataError(
            f"{path} is a ROS 1 bag; convert it with `rosbags-convert --src {path} --dst {path.with_suffix('')}`"
        )
    if path.is_dir() and not (path / METADATA).is_file():
        files = sorted(p for p in path.iterdir() if p.suffix in STORAGE_SUFFIXES)
        if not files:
            raise DataError(
                f"{path} is not a bag: no {METADATA}, .mcap or .db3 in it; name a bag folder or file"
            )
        return files
    return [path]


def open_bag(path: Path, salvage: bool) -> tuple[AnyReader | SalvageReader, bool]:
    """A reader of the bag, and whether it reads only what is whole of it.

    Raises:
        DataError: there is no bag that can be read.
    """
    paths = _storage(path)
    try:
        # Bags older than Iron carry no message definitions in sqlite3; images have not changed since.
        reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_KILTED))
        reader.open()
        return reader, False
    except Exception as error:  # a damaged file raises whatever its damage leads to, from struct.error to sqlite3's own
        files = _files(paths) if salvage else []
        try:
            if files:
                return SalvageReader(files), True
        except Exception:  # nothing is whole: the first error says why
            files = []
        raise DataError(
            f"cannot read the bag {path}: {_one_line(error)}; record it again, or repair it with `mcap recover`"
        ) from error


def _files(paths: list[Path]) -> list[Path]:
    """The files of a bag, in the order of their names; none where messages are compressed one by one, which only metadata tell."""
    if not paths[0].is_dir():
        return paths
    metadata = (paths[0] / METADATA).read_text(encoding="utf-8", errors="replace")
    if (
        "compression_mode: message" in metadata.lower()
        or "compression_mode: file" in metadata.lower()
    ):
        return []
    return sorted(
        (p for p in paths[0].iterdir() if p.suffix in STORAGE_SUFFIXES),
        key=lambda p: natural_key(p.name),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
