"""Reads what `torch.save` wrote without running anything that the file names.

A pickle is a program that may call whatever it can name. Here it can name nothing but plain containers, `argparse.Namespace` and our
own record of a tensor; every other class or function becomes a placeholder that does nothing, so that the trainer callbacks in a
Lightning checkpoint neither run nor stop the reading. `torch.load(weights_only=True)` is as safe, but refuses such files altogether.
"""

import argparse
import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from camseg_core.errors import ModelError

MOST_PICKLE_BYTES = 64 << 20
"""Of the program alone; tensors lie outside it. That of a checkpoint with an optimiser's state has some hundred kilobytes."""

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_EXTENSIONS = ("EXT1", "EXT2", "EXT4")  # objects by a number that the process has registered: not ours to give


class Placeholder:
    """Stands for an object whose class is not known here; takes whatever it is given and does nothing with it."""

    def __new__(cls, *arguments: object, **named: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None:
        pass

    def __call__(self, *arguments: object, **named: object) -> "Placeholder":
        return Placeholder()

    def __setstate__(self, state: object = None) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass


class _Storage(NamedTuple):
    """Numbers in the file: which type, under which key, and how many. A named tuple: a pickle can fill a dataclass anew."""

    dtype: torch.dtype
    key: str
    numbers: int


class StoredTensor(NamedTuple):
    """A tensor that is still in the file: `shape` and `stride` in elements over its storage; `Archive.tensor` reads it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Callable:
    """Something that a pickle may call; unlike a function it cannot be changed by one."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        pass


def _rebuilt(storage: object, offset: object, shape: object, stride: object, *_: object) -> StoredTensor:
    """`torch._utils._rebuild_tensor_v2`, but for reading it: a view that stays within its storage and repeats none of it."""
    if not (isinstance(storage, _Storage) and isinstance(offset, int) and _are_sizes(shape) and _are_sizes(stride)):
        raise ModelError("a tensor in it is described by something else than a storage, an offset, a shape and strides")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=False))
    count = math.prod(shape)
    if len(shape) != len(stride) or offset < 0 or count > storage.numbers or (count and last >= storage.numbers):
        raise ModelError(f"a tensor of shape {shape}, strides {stride} and offset {offset} reaches out of its {storage.numbers} numbers")
    return StoredTensor(storage, offset, shape, stride)


def _are_sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(type(size) is int and size >= 0 for size in value)


def _first(*arguments: object) -> object:
    """`torch._utils._rebuild_parameter`: the tensor itself."""
    return arguments[0] if arguments else Placeholder()


class _Unpickler(pickle.Unpickler):
    """One pickle's; `storages` are those that it refers to, by key."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        # made anew for every file: a pickle can change a class that it is given
        self._known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            # sets and bytes as protocol 2 writes them, which knows the names of Python 2
            ("__builtin__", "set"): _Callable(lambda items=(): set(items)),
            ("__builtin__", "bytes"): _Callable(lambda: b""),
            ("_codecs", "encode"): _Callable(lambda text, _: text.encode("latin1")),
            ("argparse", "Namespace"): type("Namespace", (argparse.Namespace,), {}),
            ("torch._utils", "_rebuild_tensor"): _Callable(_rebuilt),
            ("torch._utils", "_rebuild_tensor_v2"): _Callable(_rebuilt),
            ("torch._utils", "_rebuild_parameter"): _Callable(_first),
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = self._known.get((module, name))
        return known if known is not None else type(name, (Placeholder,), {"__module__": module})

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str() | int() as key, _, int(count), *view) if count >= 0 and view in ([], [None]):
                return self.storages.setdefault(str(key), _Storage(dtype, str(key), count))
        raise ModelError("it refers to a storage in a way that torch.save does not")


class Archive:
    """A file of `torch.save`: its `content`, in which each tensor is a `StoredTensor`; a context manager that closes the file.

    Both the zip format and the older stream of pickles are read. Nothing is taken from the file but what lies in it: tensors are
    read when asked for, and none is larger than its part of the file.

    Raises:
        ModelError: the file is missing, is no such file, or is damaged; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}  # of storages, in bytes: where, and how many
        try:
            self._file: IO[bytes] = path.open("rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        try:
            self.content: Any = self._read()
        except ModelError as error:
            self._file.close()
            raise ModelError(f"cannot read the checkpoint {path}: {error}") from error
        except Exception as error:  # a damaged pickle can fail in any way
            self._file.close()
            raise ModelError(f"cannot read the checkpoint {path}: it is damaged ({' '.join(str(error).split()) or error!r})") from error

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tensor(self, stored: StoredTensor) -> Tensor:
        """A tensor of the content, as it was stored, on the CPU.

        Raises:
            ModelError: its numbers are not in the file.
        """
        storage = stored.storage
        place, length = self._places.get(storage.key, (0, -1))
        if length != storage.numbers * storage.dtype.itemsize or place + length > self._size:
            raise ModelError(f"the checkpoint {self.path} is damaged: storage {storage.key} should have {storage.numbers} numbers")
        if not math.prod(stored.shape):
            return torch.empty(stored.shape, dtype=storage.dtype)
        self._file.seek(place)
        data = bytearray(self._file.read(length))
        if len(data) != length:
            raise ModelError(f"the checkpoint {self.path} was cut short: download it again")
        return torch.frombuffer(data, dtype=storage.dtype).as_strided(stored.shape, stored.stride, stored.offset)

    def _read(self) -> object:
        start = self._file.read(512)
        if not start:
            raise ModelError("it is empty")
        if start.lstrip()[:1] == b"<":
            raise ModelError("it is a web page, not a checkpoint: download the file itself")
        if start.startswith(b"version https://git-lfs"):
            raise ModelError("it is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
        self._file.seek(0)
        if start.startswith(b"PK"):
            return self._read_zip()
        if start[:1] == b"\x80":
            return self._read_stream()
        raise ModelError("it is no file of torch.save")

    def _read_zip(self) -> object:
        try:
            archive = zipfile.ZipFile(self._file)
        except zipfile.BadZipFile as error:
            raise ModelError("it was cut short or is damaged: download it again") from error
        programs = [info for info in archive.infolist() if info.filename.endswith("/data.pkl") and info.filename.count("/") == 1]
        if len(programs) != 1:
            raise ModelError("it is a zip file, but not of torch.save")
        prefix = programs[0].filename.removesuffix("data.pkl")
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ModelError(f"its part {info.filename} is compressed, which torch.save never does")
            if info.filename.startswith(f"{prefix}data/"):
                self._places[info.filename.removeprefix(f"{prefix}data/")] = (_place(self._file, info), info.file_size)
            if info.filename == f"{prefix}byteorder" and archive.read(info) != b"little":
                raise ModelError("its numbers are big-endian, which is not read here")
        if programs[0].file_size > MOST_PICKLE_BYTES:
            raise ModelError(f"its part {programs[0].filename} has {programs[0].file_size} bytes, more than {MOST_PICKLE_BYTES}")
        return _load(io.BytesIO(archive.read(programs[0])))

    def _read_stream(self) -> object:
        if _load(self._file) != _LEGACY_MAGIC:
            raise ModelError("it is a pickle, but not of torch.save")
        _load(self._file), _load(self._file)  # the format's version, and sizes of the machine's integers
        storages: dict[str, _Storage] = {}
        content, keys = _load(self._file, storages), _load(self._file)
        if not isinstance(keys, list):
            raise ModelError("its storages are not listed as torch.save does")
        for key in map(str, keys):
            if key not in storages:
                raise ModelError(f"it lists a storage {key} that nothing in it refers to")
            count = self._file.read(8)
            length = int.from_bytes(count, "little") * storages[key].dtype.itemsize
            self._places[key] = (self._file.tell(), length)
            if len(count) < 8 or self._file.seek(length, io.SEEK_CUR) > self._size:
                raise ModelError("it was cut short: download it again")
        return content


def _place(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored part begin."""
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra


def _load(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> object:
    """The next pickle of a file, looked through before it is run: lengths must lie in the file, numbers of its memo be plausible."""
    start = file.tell()
    for count, (operation, argument, position) in enumerate(pickletools.genops(file), 1):
        if operation.name in _EXTENSIONS:
            raise ModelError("it asks for objects by number, which torch.save never does")
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise ModelError("it is damaged: its memo has gaps")  # Python would make room for as many entries as it says
        if (position or 0) - start > MOST_PICKLE_BYTES:
            raise ModelError(f"a pickle in it has more than {MOST_PICKLE_BYTES} bytes")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(file.read(end - start))
    content = unpickler.load()
    if storages is not None:
        storages |= unpickler.storages
    return content
