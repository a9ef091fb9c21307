"""Pickles read as data: containers, numbers and descriptions of tensors come out, and nothing that a pickle names is ever called.

This is an interpreter of its own over the standard library's list of opcodes (`pickletools.genops`, which only parses), for two reasons.
`torch.load(weights_only=True)` refuses a checkpoint at the first class that it does not know, such as a pickled trainer callback. Stand-ins
for the names that `torch.serialization.get_unsafe_globals_in_checkpoint` lists (given to `safe_globals`) mend that for simple objects only:
modules such as `posix` stay blocked, and what is made by a call (numpy scalars, deques, objects with `__getnewargs_ex__`) still stops it,
as tried with torch 2.13; and it reads every storage, the optimiser's included. A `pickle.Unpickler` that hands out real classes, on the
other hand, lets a pickle change them: BUILD on `argparse.Namespace` itself sets its attributes.
"""

import argparse
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, cast

MAX_BYTES = 64 * 2**20
"""Longest pickle that is read. The published ones hold names and shapes alone; the numbers lie outside of them."""
MAX_OPCODES = 2_000_000
"""Most instructions in one pickle: an opcode of one byte can make an object of 64 or more."""
MAX_COPIED = 10_000_000
"""Most items copied by calls such as `set(items)`: a pickle can name the same long list again and again."""
MAX_DIMENSIONS = 16


class UnreadablePickle(ValueError):
    """The bytes are no pickle, or one that is larger than any checkpoint needs."""


@dataclass(frozen=True, eq=False)
class Inert:
    """Stands for whatever is not plain data: `name` is that of the class or function in the file. Nothing can be done with it."""

    name: str


@dataclass(frozen=True, eq=False)
class Global:
    """A class or function that a pickle names, as `module.name`; never looked up."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that lie outside of the pickle, under `key`; `kind` is the name of their class, such as `FloatStorage`."""

    key: str
    kind: str
    elements: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as its pickle tells of it: a view of a storage, in elements. Not checked against the storage yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Pickled:
    """What a pickle holds, and all storages that it names, by key."""

    content: object
    storages: dict[str, Storage]


def read_pickle(stream: IO[bytes], left: int) -> Pickled:
    """Read one pickle from where `stream` stands to its end, of at most `left` bytes.

    Lists, tuples, dicts (ordered ones become plain ones), sets, strings, bytes, numbers, None and `argparse.Namespace` come out as such;
    tensors as `StoredTensor`; everything else as `Inert`.

    Raises:
        UnreadablePickle: it is damaged or too large.
    """
    machine = _Machine()
    try:
        bounded = cast(
            IO[bytes], _Bounded(stream, min(left, MAX_BYTES))
        )  # genops calls read and readline, nothing else
        for count, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if count >= MAX_OPCODES:
                raise UnreadablePickle(f"more than {MAX_OPCODES} instructions")
            machine.run(opcode.name, argument)
        return Pickled(machine.pop(), machine.storages)
    except UnreadablePickle:
        raise
    except (ValueError, OverflowError, IndexError, KeyError, RecursionError) as error:
        raise UnreadablePickle(str(error) or type(error).__name__) from error


class _Bounded:
    """A stream that never asks the one below for more than is left: a length that lies must not be allocated."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream = stream
        self._left = left

    def read(self, size: int) -> bytes:
        return self._counted(self._stream.read(max(0, min(size, self._left))))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(self._left))

    def _counted(self, found: bytes) -> bytes:
        self._left -= len(found)
        return found


_PUSHED = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *(
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
    ),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "NEXT_BUFFER": lambda: Inert("buffer"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = ("PROTO", "FRAME", "STOP", "READONLY_BUFFER")


@dataclass
class _Machine:
    """The pickle machine: a stack, the stacks below each mark, and the memo."""

    stack: list[object] = field(default_factory=list)
    below: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)
    copied: int = 0

    def run(self, name: str, argument: object) -> None:
        """One instruction."""
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name not in _IGNORED:
            self._structure(name, argument)

    def pop(self) -> object:
        """The topmost value of the stack, taken off."""
        if not self.stack:
            raise UnreadablePickle("a value is missing on the stack")
        return self.stack.pop()

    def _top(self) -> object:
        if not self.stack:
            raise UnreadablePickle("a value is missing on the stack")
        return self.stack[-1]

    def _since_mark(self) -> list[object]:
        if not self.below:
            raise UnreadablePickle("a mark is missing on the stack")
        items, self.stack = self.stack, self.below.pop()
        return items

    def _structure(self, name: str, argument: object) -> None:
        match name:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP":
                # as in pickle: popping an empty stack takes the mark off
                self._since_mark() if not self.stack else self.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                self.stack.append(self._top())
            case "LIST":
                self._push_items(list)
            case "TUPLE":
                self._push_items(tuple)
            case "FROZENSET":
                self._push_items(lambda items: frozenset(map(_key, items)))
            case "DICT":
                self._push_items(_paired)
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._since_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[_index(argument)] = self._top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self._top()
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[_index(argument)])
            case _:
                self._object(name, argument)

    def _object(self, name: str, argument: object) -> None:
        """What makes objects in a real unpickler."""
        match name:
            case "GLOBAL":
                self.stack.append(_named(argument))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(
                    _named(
                        f"{module} {attribute}"
                        if isinstance(module, str) and isinstance(attribute, str)
                        else None
                    )
                )
            case "REDUCE" | "NEWOBJ":
                arguments, what = self.pop(), self.pop()
                self.stack.append(self._called(what, arguments))
            case "NEWOBJ_EX":
                named, arguments, what = self.pop(), self.pop(), self.pop()
                self.stack.append(self._called(what, arguments if not named else None))
            case "INST":
                rest = self._since_mark()
                self.stack.append(self._called(_named(argument), tuple(rest)))
            case "OBJ":
                what, *rest = self._since_mark() or [None]
                self.stack.append(self._called(what, tuple(rest)))
            case "BUILD":
                state, target = self.pop(), self._top()
                if isinstance(target, argparse.Namespace) and isinstance(state, dict):
                    vars(target).update(
                        (key, value) for key, value in state.items() if isinstance(key, str)
                    )
            case "BINPERSID":
                self.stack.append(self._persistent(self.pop()))
            case "PERSID" | "EXT1" | "EXT2" | "EXT4":
                self.stack.append(Inert(name.lower()))
            case _:
                raise UnreadablePickle(f"unknown instruction {name}")

    def _push_items(self, made: Callable[[list[object]], object]) -> None:
        items = self._since_mark()
        self.stack.append(made(items))

    def _extend(self, items: list[object]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(_key, items))

    def _set_items(self, items: list[object]) -> None:
        target = self._top()
        if isinstance(target, dict):
            target.update(_paired(items))

    def _called(self, what: object, arguments: object) -> object:
        """What a call gives: plain data for the few names that stand for it, else something inert."""
        if not isinstance(what, Global):
            return Inert(what.name if isinstance(what, Inert) else type(what).__name__)
        build = _BUILDERS.get(what.name)
        if build is None or not isinstance(arguments, tuple):
            return Inert(what.name)
        self.copied += sum(
            len(each)
            for each in arguments
            if isinstance(each, str | list | tuple | dict | set | frozenset)
        )
        if self.copied > MAX_COPIED:
            raise UnreadablePickle(f"more than {MAX_COPIED} items are copied")
        try:
            return build(*arguments)
        except (TypeError, ValueError):  # arguments that fit no checkpoint
            return Inert(what.name)

    def _persistent(self, identity: object) -> object:
        """A storage, as `torch.save` names it: ("storage", class, key, device, elements), in the legacy format with a view behind."""
        match identity:
            case ("storage", Global(name), str(key), _, int(elements)) | (
                "storage",
                Global(name),
                str(key),
                _,
                int(elements),
                None,
            ):
                storage = Storage(key, name.rpartition(".")[2], elements)
                known = self.storages.setdefault(key, storage)
                if (known.kind, known.elements) != (storage.kind, storage.elements):
                    raise UnreadablePickle("one storage has two sizes")
                return known
        return Inert("persistent")


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise UnreadablePickle("a memo's index is no number")
    return argument


def _named(argument: object) -> Global | Inert:
    """GLOBAL's argument is module and name with a space between."""
    return Global(argument.replace(" ", ".", 1)) if isinstance(argument, str) else Inert("global")


def _key(value: object) -> object:
    """A key of a dict or set: others than scalars are only kept apart, since the hash of a tuple nested deep enough ends the process."""
    return value if value is None or isinstance(value, str | bytes | int | float) else Inert("key")


def _paired(items: list[object]) -> dict[object, object]:
    if len(items) % 2:
        raise UnreadablePickle("a key has no value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _items(items: object) -> Iterable[object]:
    if not isinstance(items, list | tuple | set | frozenset):
        raise TypeError
    return items


def _ordered(pairs: object = ()) -> dict[object, object]:
    found: dict[object, object] = {}
    for pair in _items(pairs):
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise TypeError
        found[_key(pair[0])] = pair[1]
    return found


def _reconstructed(of: object, *rest: object) -> argparse.Namespace:
    """How protocols 0 and 1 write objects."""
    if not (isinstance(of, Global) and of.name == "argparse.Namespace"):
        raise TypeError
    return argparse.Namespace()


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError
    return text.encode("latin-1")


def _sizes(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, tuple | list) or len(sizes) > MAX_DIMENSIONS:
        raise TypeError
    return tuple(_size(each) for each in sizes)


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise TypeError
    return value


def _tensor(
    storage: object, offset: object, shape: object, stride: object, *rest: object
) -> StoredTensor:
    result = (
        StoredTensor(storage, _size(offset), _sizes(shape), _sizes(stride))
        if isinstance(storage, Storage)
        else None
    )
    if result is None or len(result.shape) != len(result.stride):
        raise TypeError
    return result


def _parameter(data: object, *rest: object) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise TypeError
    return data


_BUILDERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered,
    "argparse.Namespace": lambda: argparse.Namespace(),
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    "_codecs.encode": _encoded,
    "torch.Size": lambda sizes: _sizes(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{
        f"{module}.{name}": build
        for module in ("builtins", "__builtin__")
        for name, build in {
            "set": lambda items=(): set(map(_key, _items(items))),
            "frozenset": lambda items=(): frozenset(map(_key, _items(items))),
            "list": lambda items=(): list(_items(items)),
            "tuple": lambda items=(): tuple(_items(items)),
            "dict": _ordered,
        }.items()
    },
}
