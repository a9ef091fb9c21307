"""Opens rosbag2 bags (MCAP or sqlite3), damaged ones too, and reads headers. Needs no ROS."""

import re
import shlex
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import yaml  # type: ignore[import-untyped]
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import natural_key
from camseg_core.errors import DataError
from camseg_ros.bag.salvage import SalvageReader, leftover_of

STORAGE_SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"

_UNPACK = {
    ".zstd": "zstd -d {packed} -o {file}",
    ".zst": "zstd -d {packed}",
    ".gz": "gunzip -k {packed}",
    ".lz4": "lz4 -d {packed}",
}
"""How to unpack a storage file, by what is added to its name."""

_PACKED_MAGIC = {b"\x28\xb5\x2f\xfd": ".zst", b"\x1f\x8b": ".gz", b"\x04\x22\x4d\x18": ".lz4"}

SECOND_NS = 1_000_000_000

ENCAPSULATION = 4
"""Bytes before the message itself; the second one is odd if the message is little-endian."""

STAMP = slice(ENCAPSULATION, ENCAPSULATION + 8)


def is_bag(path: Path) -> bool:
    """Return whether `path` looks like a bag folder or file; also if ROS 1's, or packed."""
    if path.is_dir():
        return (path / METADATA).is_file() or any(map(_is_storage, path.iterdir()))
    return _is_storage(path) or path.suffix == ".bag" or path.name == METADATA


def _is_storage(path: Path) -> bool:
    """Return whether the name is that of a storage file, which may be packed."""
    return path.suffix in STORAGE_SUFFIXES or (
        path.suffix in _UNPACK and Path(path.stem).suffix in STORAGE_SUFFIXES
    )


def _refuse_packed(path: Path) -> None:
    """Raise DataError if the storage file is packed as a whole, by its name or content."""
    packed, file = path, path.with_suffix("")
    ending = path.suffix if path.suffix in _UNPACK else None
    if ending is None:
        with path.open("rb") as content:
            start = content.read(4)
        found = (each for magic, each in _PACKED_MAGIC.items() if start.startswith(magic))
        ending = next(found, None)
        if ending is None:
            return
        packed, file = Path(f"{path}{ending}"), path
    command = _UNPACK[ending].format(packed=shlex.quote(str(packed)), file=shlex.quote(str(file)))
    rename = "" if packed == path else f"mv {shlex.quote(str(path))} {shlex.quote(str(packed))} && "
    raise DataError(f"{path} is compressed as a whole; unpack it with `{rename}{command}`")


@dataclass(frozen=True)
class BagFiles:
    """The files of a bag, and what its metadata promise.

    Attributes:
        paths: what `rosbags` opens: a folder with metadata, or files.
        files: the files that are there, in natural order.
        counts: messages by topic as of the metadata; empty without metadata.
        start_ns: recording time of the first message as of the metadata, in ns, or None.
        missing: files that should be there.
        lost: what the folder lacks or what is not read of it, in words; empty if nothing.
        compressed: whether only `rosbags` can read the files, as messages or files are compressed.
    """

    paths: list[Path]
    files: list[Path]
    counts: Mapping[str, int] = field(default_factory=dict)
    start_ns: int | None = None
    missing: Sequence[str] = ()
    lost: str = ""
    compressed: bool = False


@dataclass(frozen=True)
class OpenBag:
    """An open bag: its reader, its files, and whether the reader is a `SalvageReader`."""

    reader: "AnyReader | SalvageReader"
    files: BagFiles
    salvaged: bool


def open_bag(path: Path, salvage: bool) -> OpenBag:
    """Open the bag; one that lacks files only if `salvage` is set.

    Raises:
        DataError: the bag cannot be read.
    """
    files = _find(path)
    error: Exception | None = None
    if not files.missing and not any(map(leftover_of, files.files)):
        try:
            # sqlite3 bags older than Iron hold no message definitions; images are as they were
            reader = AnyReader(files.paths, default_typestore=get_typestore(Stores.ROS2_KILTED))
            reader.open()
            return OpenBag(reader, files, salvaged=False)
        except Exception as problem:  # a damaged file can raise anything
            error = problem
    elif files.missing and (files.compressed or not salvage):
        raise DataError(f"the bag {path} is incomplete: {files.lost}")
    whole = error is None or "Profile is not ros2" in str(error)  # as other writers leave it
    if files.files and not files.compressed and (salvage or whole):
        try:
            return OpenBag(SalvageReader(files.files), files, salvaged=True)
        except Exception as problem:  # nothing can be salvaged: report the first error
            error = error or problem
    reason = one_line(error) if error is not None else "it has no files"
    raise DataError(f"cannot read the bag {path}: {reason}; {repair_advice(files)}") from error


def repair_advice(files: BagFiles) -> str:
    """Return what to do about a damaged bag."""
    sqlite = next((file for file in files.files if file.suffix == ".db3"), None)
    tool = f"sqlite3 {sqlite.name} .recover" if sqlite else "mcap recover"
    return f"record it again, or repair it with `{tool}`"


def _find(path: Path) -> BagFiles:
    if not path.exists():
        raise DataError(
            f"the bag {path} does not exist; name a bag folder, or a .mcap or .db3 file"
        )
    if path.name == METADATA:
        path = path.parent
    if path.suffix == ".bag" and not path.is_dir():
        raise DataError(
            f"{path} is a ROS 1 bag; convert it with "
            f"`rosbags-convert --src {path} --dst {path.with_suffix('')}`"
        )
    if not path.is_dir():
        if not _is_storage(path) or not path.is_file():
            raise DataError(f"{path} is not a bag; name a bag folder, or a .mcap or .db3 file")
        _refuse_packed(path)
        return BagFiles([path], [path])
    files = (each for each in path.iterdir() if each.suffix in STORAGE_SUFFIXES)
    found = sorted(files, key=lambda each: natural_key(each.name))
    if (path / METADATA).is_file():
        return _promised(path, found)
    if not found:
        for each in filter(_is_storage, sorted(path.iterdir())):
            _refuse_packed(each)
        raise DataError(
            f"{path} is not a bag: no {METADATA}, .mcap or .db3 in it; name a bag folder or file"
        )
    missing = _gaps([each.name for each in found])
    return BagFiles(
        found, found, missing=missing, lost=_lacks(missing, "as the numbers of its files show")
    )


def _promised(folder: Path, found: list[Path]) -> BagFiles:
    """Compare the files of a folder with its metadata."""
    text = (folder / METADATA).read_text(encoding="utf-8", errors="replace")
    try:
        metadata = yaml.safe_load(text)["rosbag2_bagfile_information"]
        names = [PurePath(each).name for each in metadata["relative_file_paths"]]
        topics = metadata["topics_with_message_count"]
        counts = Counter[str]()
        for each in topics:  # one for each type, if a topic has several
            counts[each["topic_metadata"]["name"]] += int(each["message_count"])
        start_ns = int(metadata["starting_time"]["nanoseconds_since_epoch"])
        compression = str(metadata.get("compression_mode") or "").lower()
    except (yaml.YAMLError, RecursionError, AttributeError, LookupError, TypeError, ValueError):
        lost = f"its {METADATA} cannot be read, so what the bag should hold is unknown"
        lost += f"; write it anew with `ros2 bag reindex {folder}`"
        return BagFiles([folder], found, lost=lost)
    missing = [name for name in names if not (folder / name).exists()]
    listed = {*names, *(PurePath(name).stem for name in names)}  # NAME.mcap of NAME.mcap.zstd
    unlisted = [each.name for each in found if each.name not in listed]
    lost = _lacks(missing, f"which its {METADATA} lists")
    if unlisted and not lost:
        lost = (
            f"{_some(unlisted)} in its folder is not in its {METADATA}, so it was not read; "
            f"move it away, or include it with `ros2 bag reindex {folder}`"
        )
    files = [each for each in found if each.name in names]
    compressed = compression in ("file", "message")
    if not compressed and not counts.total():  # a recorder that was killed may leave it so
        return BagFiles(files, files, missing=missing, lost=lost)
    named_as_ros1 = folder.suffix == ".bag"  # rosbags takes every such folder for ROS 1's
    if named_as_ros1 and compressed:
        raise DataError(
            f"{folder} is a compressed ROS 2 bag, which must not be named like a ROS 1 bag; "
            f"rename it with `mv {shlex.quote(str(folder))} {shlex.quote(str(folder)[:-4])}`"
        )
    opened = files if named_as_ros1 else [folder]
    return BagFiles(opened, files, counts, start_ns, missing, lost, compressed)


def _gaps(names: Sequence[str]) -> list[str]:
    """Return the files of a split bag, named STEM_NUMBER, that others of the bag enclose."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        if found := re.fullmatch(r"(.*_)(0|[1-9][0-9]{0,5})(\.[a-z0-9]+)", name):
            numbers.setdefault((found[1], found[3]), []).append(int(found[2]))
    return [
        f"{stem}{number}{suffix}"
        for (stem, suffix), some in numbers.items()
        for number in range(min(some), max(some))
        if number not in some
    ]


def _lacks(missing: Sequence[str], why: str) -> str:
    return f"it lacks {_some(missing)}, {why}; copy it from the recorder" if missing else ""


def _some(names: Sequence[str]) -> str:
    """Return up to three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
