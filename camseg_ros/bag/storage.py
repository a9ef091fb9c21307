"""Opens rosbag2 bags (MCAP or sqlite3), damaged ones too, and reads headers. Needs no ROS.

A full disk or a killed recorder leaves bags that `rosbags` cannot open. Here an MCAP file is read
as a stream, record by record, with the `mcap` library, and an sqlite3 file row by row, up to the
first record that is damaged.
"""

import sqlite3
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import natural_key
from camseg_core.errors import DataError

STORAGE_SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"

SECOND_NS = 1_000_000_000

ENCAPSULATION = 4
"""Bytes before the message itself; the second one is odd if the message is little-endian."""

STAMP = slice(ENCAPSULATION, ENCAPSULATION + 8)

_DEFINITIONS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}

MAX_RECORD_BYTES = 1 << 30
"""A record that claims to be larger is treated as damage."""


def is_bag(path: Path) -> bool:
    """Return whether `path` looks like a bag folder or file; true for ROS 1 bags as well."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(
            p.suffix in STORAGE_SUFFIXES for p in path.iterdir()
        )
    return path.suffix in (*STORAGE_SUFFIXES, ".bag") or path.name == METADATA


def open_bag(path: Path, salvage: bool) -> tuple["AnyReader | SalvageReader", bool]:
    """Open the bag; return the reader and whether it is a `SalvageReader`.

    Raises:
        DataError: the bag cannot be read.
    """
    paths = _storage(path)
    try:
        # sqlite3 bags older than Iron hold no message definitions; images have not changed since.
        reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_KILTED))
        reader.open()
        return reader, False
    except Exception as error:  # a damaged file can raise anything
        files = _files(paths) if salvage else []
        try:
            if files:
                return SalvageReader(files), True
        except Exception:  # nothing can be salvaged: report the first error
            files = []
        raise DataError(
            f"cannot read the bag {path}: {one_line(error)}; "
            "record it again, or repair it with `mcap recover`"
        ) from error


def _storage(path: Path) -> list[Path]:
    """Return what to open: the folder, the file, or the files of a folder without metadata."""
    if not path.exists():
        raise DataError(
            f"the bag {path} does not exist; name a bag folder, or a .mcap or .db3 file"
        )
    if path.name == METADATA:
        path = path.parent
    if path.suffix == ".bag":
        raise DataError(
            f"{path} is a ROS 1 bag; convert it with "
            f"`rosbags-convert --src {path} --dst {path.with_suffix('')}`"
        )
    if path.is_dir() and not (path / METADATA).is_file():
        files = sorted(p for p in path.iterdir() if p.suffix in STORAGE_SUFFIXES)
        if not files:
            raise DataError(
                f"{path} is not a bag: no {METADATA}, .mcap or .db3 in it; "
                "name a bag folder or file"
            )
        return files
    return [path]


def _files(paths: list[Path]) -> list[Path]:
    """Return a bag's files in natural order; none if only the metadata say how to decompress."""
    if not paths[0].is_dir():
        return paths
    metadata = (paths[0] / METADATA).read_text(encoding="utf-8", errors="replace").lower()
    if "compression_mode: message" in metadata or "compression_mode: file" in metadata:
        return []
    files = (p for p in paths[0].iterdir() if p.suffix in STORAGE_SUFFIXES)
    return sorted(files, key=lambda p: natural_key(p.name))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class _Record:
    """One message of a file."""

    topic: str
    kind: str
    definition: MessageDefinition
    recorded_ns: int
    data: bytes


class SalvageReader:
    """The intact messages of damaged files, with the part of `rosbags`' `AnyReader` used here.

    Opening reads the files once to learn what they hold; messages come in file order.

    Attributes:
        connections: one for each topic, with its number of intact messages.
        start_time, end_time: recording time of the first message and just after the last, in ns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read through the files.

        Raises:
            Exception: any error that the damage causes, if no message is intact.
        """
        self._paths = paths
        self.typestore = get_typestore(Stores.ROS2_KILTED)
        self.start_time, self.end_time = 2**63 - 1, 0
        counts: dict[str, int] = {}
        kinds: dict[str, tuple[str, MessageDefinition]] = {}
        try:
            for record in _records(paths):
                kinds.setdefault(record.topic, (record.kind, record.definition))
                counts[record.topic] = counts.get(record.topic, 0) + 1
                self.start_time = min(self.start_time, record.recorded_ns)
                self.end_time = max(self.end_time, record.recorded_ns + 1)
        except Exception:  # a damaged file can raise anything
            if not counts:
                raise
        qos = ConnectionExtRosbag2("cdr", [])
        self.connections = [
            Connection(number, topic, kind, definition, "", counts[topic], qos, self)
            for number, (topic, (kind, definition)) in enumerate(kinds.items(), start=1)
        ]

    def messages(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, recording time in ns, and data of every intact message.

        Raises:
            Exception: any error that the damage causes, after the last intact message.
        """
        wanted = {connection.topic: connection for connection in connections}
        for record in _records(self._paths):
            if record.topic in wanted:
                yield wanted[record.topic], record.recorded_ns, record.data

    def deserialize(self, data: bytes, kind: str) -> object:
        """Deserialize a message of type `kind`."""
        return self.typestore.deserialize_cdr(data, kind)

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""


def _records(paths: Sequence[Path]) -> Iterator[_Record]:
    """Yield the intact messages of all files, then raise the first error."""
    damage: Exception | None = None
    for path in paths:
        try:
            yield from _mcap(path) if path.suffix == ".mcap" else _sqlite(path)
        except Exception as error:
            damage = damage or error
    if damage is not None:
        raise damage


def _mcap(path: Path) -> Iterator[_Record]:
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with path.open("rb") as file:
        try:
            for record in StreamReader(file, record_size_limit=MAX_RECORD_BYTES).records:
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    schema = schemas[channel.schema_id]
                    form = _DEFINITIONS.get(schema.encoding, MessageDefinitionFormat.NONE)
                    definition = MessageDefinition(form, schema.data.decode())
                    yield _Record(
                        channel.topic, schema.name, definition, record.log_time, record.data
                    )
        except EndOfFile as error:
            raise EOFError(
                f"{path.name} ends in the middle, at byte {path.stat().st_size}"
            ) from error


def _sqlite(path: Path) -> Iterator[_Record]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as file:
        # without this SQLite refuses to read a file shorter than its header says
        file.execute("PRAGMA writable_schema=1")
        rows: Any = file.execute("SELECT id, name, type FROM topics")
        topics: dict[int, tuple[str, str]] = {number: (name, kind) for number, name, kind in rows}
        definition = MessageDefinition(MessageDefinitionFormat.NONE, "")
        for number, recorded_ns, data in file.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        ):
            yield _Record(*topics[number], definition, recorded_ns, data)


def read_stamp(cdr: bytes) -> int:
    """Return the stamp, in ns, of a message that begins with a `std_msgs/Header`.

    Raises:
        struct.error: the message is too short for a header.
    """
    seconds, nanoseconds = struct.unpack_from(f"{_byte_order(cdr)}iI", cdr, STAMP.start)
    return int(seconds) * SECOND_NS + int(nanoseconds)


def read_header(cdr: bytes) -> tuple[int, str]:
    """Return the stamp, in ns, and the frame_id of a message that begins with a `std_msgs/Header`.

    Raises:
        struct.error: the message is too short for a header.
    """
    (length,) = struct.unpack_from(f"{_byte_order(cdr)}I", cdr, STAMP.stop)
    name = cdr[STAMP.stop + 4 : STAMP.stop + 4 + length]
    return read_stamp(cdr), name.rstrip(b"\0").decode(errors="replace")


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """Return the same message with another stamp, in ns."""
    stamp = struct.pack(f"{_byte_order(cdr)}iI", *divmod(stamp_ns, SECOND_NS))
    return b"".join((cdr[: STAMP.start], stamp, memoryview(cdr)[STAMP.stop :]))


def _byte_order(cdr: bytes) -> str:
    if len(cdr) < ENCAPSULATION:
        raise struct.error(f"a message of {len(cdr)} bytes has no encapsulation header")
    return "<" if cdr[1] & 1 else ">"
