"""Reads damaged bag files record by record, up to the damage, and sqlite3's write-ahead logs.

A full disk or a killed recorder leaves bags that `rosbags` cannot open, or of which it leaves
something out. Here an MCAP file is read as a stream, with the `mcap` library, and an sqlite3 file
row by row.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
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
"""A record that claims to be larger is treated as damage."""

_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_LOG_HEADER = 32
"""What a write-ahead log of SQLite begins with, and how many bytes it has if it holds nothing."""


@dataclass(frozen=True)
class _Record:
    """One message of a file."""

    topic: str
    kind: str
    definition: MessageDefinition
    recorded_ns: int
    data: bytes
    encoding: str = "cdr"


class SalvageReader:
    """The intact messages of damaged files, with the part of `rosbags`' `AnyReader` used here.

    Opening reads the files once to learn what they hold; messages come in file order.

    Attributes:
        connections: one for each topic and type, with its number of intact messages.
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
        counts = Counter[tuple[str, str]]()
        formats: dict[tuple[str, str], tuple[MessageDefinition, ConnectionExtRosbag2]] = {}
        try:
            for record in _records(paths):
                key = record.topic, record.kind
                recorded = ConnectionExtRosbag2(record.encoding, [])
                formats.setdefault(key, (record.definition, recorded))
                counts[key] += 1
                self.start_time = min(self.start_time, record.recorded_ns)
                self.end_time = max(self.end_time, record.recorded_ns + 1)
        except Exception:  # a damaged file can raise anything
            if not counts:
                raise
        self.connections = [
            Connection(number, *key, definition, "", counts[key], recorded, self)
            for number, (key, (definition, recorded)) in enumerate(formats.items(), start=1)
        ]

    def messages(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, recording time in ns, and data of every intact message.

        Raises:
            Exception: any error that the damage causes, after the last intact message.
        """
        wanted = {(each.topic, each.msgtype): each for each in connections}
        for record in _records(self._paths):
            connection = wanted.get((record.topic, record.kind))
            if connection is not None:
                yield connection, record.recorded_ns, record.data

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
                        channel.topic,
                        schema.name,
                        definition,
                        record.log_time,
                        record.data,
                        channel.message_encoding,
                    )
        except EndOfFile as error:
            raise EOFError(
                f"{path.name} ends in the middle, at byte {path.stat().st_size}"
            ) from error


def leftover_of(path: Path) -> Path | None:
    """Return the log or journal that a killed recorder left beside an sqlite3 file, if any."""
    for ending, empty in (("-wal", _LOG_HEADER), ("-journal", 0)):
        found = path.with_name(path.name + ending)
        if path.suffix == ".db3" and found.is_file() and found.stat().st_size > empty:
            return found
    return None


def _sqlite(path: Path) -> Iterator[_Record]:
    leftover, problem = leftover_of(path), ""
    if leftover is not None and not _is_log(leftover, path):
        problem = f"{leftover.name} holds a part of {path.name} that cannot be read"
    # "immutable" ignores a log. To read one without changing a file, lock nothing, keep the index
    # of the log in memory, and leave the log as it is at the end.
    mode = "vfs=unix-none" if leftover is not None and not problem else "immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with (
        closing(apsw.Connection(f"{path.absolute().as_uri()}?{mode}", flags)) as file,
        closing(file.cursor()) as cursor,
    ):
        file.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # without `writable_schema` SQLite refuses a file shorter than its header says
        cursor.execute("PRAGMA writable_schema=1; PRAGMA locking_mode=EXCLUSIVE")
        rows: Any = cursor.execute("SELECT id, name, type FROM topics")
        topics: dict[int, tuple[str, str]] = {number: (name, kind) for number, name, kind in rows}
        definition = MessageDefinition(MessageDefinitionFormat.NONE, "")
        messages: Any = cursor.execute(
            "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        )
        for number, recorded_ns, data in messages:
            yield _Record(*topics[number], definition, recorded_ns, data)
    if problem:
        raise OSError(problem)


def _is_log(leftover: Path, path: Path) -> bool:
    """Return whether SQLite would read the file as the log of `path`."""
    with leftover.open("rb") as file:
        # with nothing in `path`, SQLite would delete the log
        return file.read(4) in _LOG_MAGIC and path.stat().st_size > 0
