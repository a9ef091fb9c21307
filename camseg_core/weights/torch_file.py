"""Files of `torch.save`, read without running anything in them: zip, and legacy (before 1.6).

Opening a file reads only its pickle. A tensor's numbers are read on demand, so that an optimiser's
state costs nothing, and claimed sizes can be checked before any memory is taken.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from camseg_core.errors import ModelError
from camseg_core.weights.pickle_reader import Storage, StoredTensor, UnreadablePickle, read_pickle

_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<26xHH")
"""The lengths of name and extra field, at the end of a zip entry's header."""

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class TorchFile:
    """A file of `torch.save`; `content` is what was saved, as `read_pickle` returns it."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its pickle.

        Raises:
            ModelError: it is missing, damaged or of another kind, which the message guesses.
        """
        self.path = path
        # first byte, bytes, and CRC-32 if the file has one
        self._regions: dict[str, tuple[int, int, int | None]] = {}
        try:
            self._size = path.stat().st_size
            with path.open("rb") as file:
                start = file.read(512)
                file.seek(0)
                if start.startswith(_ZIP_START):
                    self.content = self._read_zip(file)
                elif start.startswith(_LEGACY_START):
                    self.content = self._read_legacy(file)
                else:
                    raise ModelError(f"{path} is not a file of torch.save: {_guess(start)}")
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        except UnreadablePickle as error:
            raise ModelError(
                f"{path} cannot be read as a checkpoint: "
                f"its pickle is damaged or not what torch.save writes ({error})"
            ) from error

    def dtype(self, tensor: StoredTensor) -> torch.dtype | None:
        """Return the dtype of a tensor's numbers; None if model weights never have it."""
        return _TYPES.get(tensor.storage.kind)

    def read(self, tensor: StoredTensor, name: str) -> Tensor:
        """Read a tensor into its own memory, in the file's dtype and shape; `name` is for messages.

        Check `tensor.shape` first: nothing else bounds a shape whose strides are 0.

        Raises:
            ModelError: its numbers are not in the file, or are damaged.
        """
        dtype = self.dtype(tensor)
        region = self._regions.get(tensor.storage.key)
        if dtype is None or region is None:
            raise ModelError(
                f"{self.path}: the numbers of {name} ({tensor.storage.kind}) are missing: "
                "download the file again"
            )
        if 0 in tensor.shape:
            return torch.empty(tensor.shape, dtype=dtype)
        start, available, checksum = region
        span = 1 + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True)
        )
        first, length = tensor.offset * dtype.itemsize, span * dtype.itemsize
        if first + length > available:
            raise ModelError(
                f"{self.path}: {name} reaches beyond its {available} bytes in the file: "
                "the file is damaged, download it again"
            )
        data = bytearray(length)
        try:
            with self.path.open("rb") as file:
                file.seek(start + first)
                complete = file.readinto(data) == length
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror or error}") from error
        if not complete or (
            checksum is not None and length == available and zlib.crc32(data) != checksum
        ):
            raise ModelError(
                f"{self.path}: the numbers of {name} are damaged: download the file again"
            )
        return (
            torch.frombuffer(data, dtype=dtype)
            .as_strided(tensor.shape, tensor.stride)
            .clone(memory_format=torch.contiguous_format)
        )

    def _read_zip(self, file: IO[bytes]) -> object:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = {entry.filename: entry for entry in archive.infolist()}
                pickles = [name for name in entries if name.endswith("/data.pkl")]
                if len(pickles) != 1:
                    raise ModelError(
                        f"{self.path} is a zip archive, but not of torch.save: it has no data.pkl"
                    )
                root = pickles[0].removesuffix("data.pkl")
                if (
                    f"{root}byteorder" in entries
                    and archive.read(self._stored(entries[f"{root}byteorder"])).strip() != b"little"
                ):
                    raise ModelError(
                        f"{self.path} holds big-endian numbers: "
                        "save it again on a little-endian machine"
                    )
                with archive.open(self._stored(entries[pickles[0]])) as stream:
                    pickled = read_pickle(stream, entries[pickles[0]].file_size)
            for key in pickled.storages:
                entry = entries.get(f"{root}data/{key}")
                if entry is not None:
                    start = self._data_start(file, self._stored(entry))
                    self._regions[key] = start, entry.file_size, entry.CRC
        except (UnreadablePickle, ModelError):
            raise
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            EOFError,
            struct.error,
            ValueError,
            RuntimeError,
        ) as error:  # what zipfile raises
            raise ModelError(
                f"{self.path} is cut short or damaged ({error}): download it again"
            ) from error
        return pickled.content

    def _stored(self, entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
        """Refuse a compressed entry: torch.save writes none, and it could grow without bound."""
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.compress_size != entry.file_size
            or entry.file_size > self._size
        ):
            raise ModelError(
                f"{self.path}: its part {entry.filename!r} is compressed, which torch.save never "
                "does: save it again with torch"
            )
        return entry

    def _data_start(self, file: IO[bytes], entry: zipfile.ZipInfo) -> int:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_ZIP_START):
            raise ModelError(
                f"{self.path} is damaged at its part {entry.filename!r}: download it again"
            )
        name, extra = _LOCAL_HEADER.unpack(header)
        return entry.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)

    def _read_legacy(self, file: IO[bytes]) -> object:
        """Read three pickles of preamble, the content, the storages' keys, then the storages."""

        def following() -> Any:
            return read_pickle(file, self._size - file.tell())

        following()  # the magic number, compared already
        if following().content != _LEGACY_PROTOCOL:
            raise ModelError(
                f"{self.path} has another legacy format than torch.save's {_LEGACY_PROTOCOL}: "
                "save it again with a newer torch"
            )
        about = following().content
        if not (isinstance(about, dict) and about.get("little_endian") is True):
            raise ModelError(
                f"{self.path} holds big-endian numbers: save it again on a little-endian machine"
            )
        pickled, keys = following(), following().content
        for key in keys if isinstance(keys, list) else []:
            storage = pickled.storages.get(key) if isinstance(key, str) else None
            self._regions.update(self._legacy_region(file, storage))
        return pickled.content

    def _legacy_region(
        self, file: IO[bytes], storage: Storage | None
    ) -> dict[str, tuple[int, int, int | None]]:
        dtype = None if storage is None else _TYPES.get(storage.kind)
        if storage is None or dtype is None:
            raise ModelError(
                f"{self.path} has numbers of an unknown type "
                f"({storage.kind if storage else 'none'}): save it again with a newer torch"
            )
        elements = int.from_bytes(file.read(8), "little")
        start, length = file.tell(), elements * dtype.itemsize
        if elements != storage.elements or start + length > self._size:
            raise ModelError(f"{self.path} is cut short or damaged: download it again")
        file.seek(start + length)
        return {storage.key: (start, length, None)}


def _guess(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "it is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "it is a web page; download the file itself "
            "(its address on the hub has /resolve/, not /blob/)"
        )
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"
    if len(start) >= 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100 * 2**20:
        return "it looks like a safetensors file; the published files end in .ckpt and .pth"
    return "it starts like neither of its formats; download it again"
