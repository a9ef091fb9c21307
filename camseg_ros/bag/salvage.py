"""Reads what is whole of a bag that was cut short or damaged, as a full disk or a killed recorder leaves it. Needs no ROS.

`rosbags` opens only bags that were ended properly. Here an MCAP file is read as a stream, record by record, by the `mcap` library, and
an sqlite3 file row by row, until the first that is not whole.
"""

import sqlite3
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.typesys import Stores, get_typestore

_DEFINITIONS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}

MAX_RECORD_BYTES = 1 << 30
"""What claims to be larger than this is taken for damage."""


@dataclass(frozen=True)
class _Record:
    """One message as a file holds it."""

    topic: str
    kind: str
    definition: MessageDefinition = field(repr=False)
    recorded_ns: int
    data: bytes = field(repr=False)


class SalvageReader:
    """The whole messages of damaged files, with as much of `rosbags`' `AnyReader` as is used of it here.

    Opening reads the files once, to learn what they hold; messages come in the order of the files.

    Attributes:
        connections: one for each topic, with the number of whole messages.
        start_time, end_time: of the first and behind the last message recorded, in ns.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read through the files.

        Raises:
            Exception: whatever the damage leads to, where nothing at all is whole.
        """
        self._paths = paths
        self.typestore = get_typestore(Stores.ROS2_KILTED)
        self.connections: list[Connection] = []
        self.start_time, self.end_time = 2**63 - 1, 0
        counts: dict[str, int] = {}
        kinds: dict[str, tuple[str, MessageDefinition]] = {}
        damage: Exception | None = None
        try:
            for record in _records(paths):
                kinds.setdefault(record.topic, (record.kind, record.definition))
                counts[record.topic] = counts.get(record.topic, 0) + 1
                self.start_time = min(self.start_time, record.recorded_ns)
                self.end_time = max(self.end_time, record.recorded_ns + 1)
        except Exception as error:  # damage has no type of its own
            damage = error
        if damage is not None and not counts:
            raise damage
        for number, (topic, (kind, definition)) in enumerate(kinds.items(), start=1):
            extra = ConnectionExtRosbag2("cdr", [])
            self.connections.append(
                Connection(number, topic, kind, definition, "", counts[topic], extra, self)
            )

    def messages(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of recording in ns, and message of every whole message on `connections`, of which there is one at least.

        Raises:
            Exception: what the damage leads to, after the last whole message.
        """
        wanted = {connection.topic: connection for connection in connections}
        for record in _records(self._paths):
            if record.topic in wanted:
                yield wanted[record.topic], record.recorded_ns, record.data

    def deserialize(self, data: bytes, kind: str) -> object:
        """The message of the type `kind`."""
        return self.typestore.deserialize_cdr(data, kind)

    def close(self) -> None:
        """Nothing stays open between two readings."""


def _records(paths: Sequence[Path]) -> Iterator[_Record]:
    """The whole messages of all files; the first damage is raised when all have been read."""
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
        # without it SQLite refuses to look at a file that is shorter than its header says
        file.execute("PRAGMA writable_schema=1")
        rows: Any = file.execute("SELECT id, name, type FROM topics")
        topics: dict[int, tuple[str, str]] = {number: (name, kind) for number, name, kind in rows}
        definition = MessageDefinition(MessageDefinitionFormat.NONE, "")
        for number, recorded_ns, data in file.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        ):
            yield _Record(*topics[number], definition, recorded_ns, data)


ENCAPSULATION = 4
"""Bytes before the message itself; the second one is odd where it is little-endian."""

STAMP = slice(ENCAPSULATION, ENCAPSULATION + 8)
SECOND_NS = 1_000_000_000


def read_header(cdr: bytes) -> tuple[int, str]:
    """The stamp in ns and the frame_id of a serialized message that begins with a `std_msgs/Header`."""
    order = _order(cdr)
    seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", cdr, ENCAPSULATION)
    name = cdr[STAMP.stop + 4 : STAMP.stop + 4 + length]
    return seconds * SECOND_NS + nanoseconds, name.rstrip(b"\0").decode(errors="replace")


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """The same message with another stamp."""
    stamp = struct.pack(f"{_order(cdr)}iI", *divmod(stamp_ns, SECOND_NS))
    return b"".join((cdr[: STAMP.start], stamp, memoryview(cdr)[STAMP.stop :]))


def _order(cdr: bytes) -> str:
    return "<" if cdr[1] & 1 else ">"
