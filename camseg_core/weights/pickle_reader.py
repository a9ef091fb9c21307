"""Reads pickles as data: containers, numbers and descriptions of tensors. Calls nothing.

It interprets `pickletools.genops`, which only parses. `torch.load(weights_only=True)` stops at the
first class it does not know, such as a trainer callback, and `safe_globals` cannot admit modules
such as `posix`, or numpy scalars (torch 2.13). `pickle.Unpickler` with stand-ins would still hash
nested keys until the stack overflows, take memory for any memo index, and BUILD on classes.
"""

import argparse
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

MAX_BYTES = 64 * 2**20
"""Longest pickle that is read: those of checkpoints hold names and shapes, not the numbers."""
MAX_OPCODES = 2_000_000
"""Most instructions in one pickle: one byte can make an object of 64 bytes or more."""
MAX_COPIED = 10_000_000
"""Most items copied by calls such as `set(items)`: one list can be named again and again."""
MAX_KEY = 2**60
"""Numbers as keys are smaller: larger ones can share a hash, so that dicts become slow."""
MAX_DIMENSIONS = 16
_ITERABLE = (list, tuple, set, frozenset)


class UnreadablePickle(ValueError):
    """The bytes are not a pickle, or one larger than any checkpoint needs."""


@dataclass(frozen=True, eq=False)
class Inert:
    """A class or function by `name`, never looked up, or an object of it. Does nothing."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers outside the pickle, under `key`; `kind` is their class, such as `FloatStorage`."""

    key: str
    kind: str
    elements: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage, in elements, as the pickle describes it; not yet checked against it."""

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
    """Read one pickle from the position of `stream`, of at most `left` bytes.

    Lists, tuples, dicts (also ordered ones), sets, strings, bytes, numbers, None and
    `argparse.Namespace` are returned as such, tensors as `StoredTensor`, all else as `Inert`.

    Raises:
        UnreadablePickle: it is damaged or too large.
    """
    machine = _Machine()
    # genops calls read and readline, nothing else
    bounded = cast(IO[bytes], _Bounded(stream, min(left, MAX_BYTES)))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if count >= MAX_OPCODES:
                raise UnreadablePickle(f"more than {MAX_OPCODES} instructions")
            machine.run(opcode.name, argument)
        return Pickled(machine.stack.pop(), machine.storages)
    except IndexError as error:
        raise UnreadablePickle("a value is missing on the stack") from error
    except (ValueError, OverflowError, KeyError, RecursionError) as error:
        raise UnreadablePickle(str(error) or type(error).__name__) from error


class _Bounded:
    """A stream that never asks for more than is left: a length that lies must not be allocated."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self._left = stream, left

    def read(self, size: int) -> bytes:
        return self._counted(self._stream.read(max(0, min(size, self._left))))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(self._left))

    def _counted(self, found: bytes) -> bytes:
        self._left -= len(found)
        return found


class _Machine:
    """The pickle machine: a stack, the stacks below each mark, and the memo."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.storages: dict[str, Storage] = {}
        self._below: list[list[object]] = []
        self._memo: dict[object, object] = {}
        self._copied = 0

    def run(self, name: str, argument: object) -> None:
        """Run one instruction; an IndexError means that the stack is empty."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP" | "READONLY_BUFFER":
                pass
            case "MARK":
                self._below.append(stack)
                self.stack = []
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":  # popping an empty stack removes the mark, as in pickle
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(_CONTAINERS[name.removeprefix("EMPTY_")](()))
            case "LIST" | "TUPLE" | "DICT" | "FROZENSET":
                items = self._since_mark()  # which replaces self.stack
                self.stack.append(_CONTAINERS[name](items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple([stack.pop() for _ in range(int(name[-1]))][::-1]))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(1 if name == "APPEND" else 2)]
                self._extend(items[::-1])
            case "APPENDS" | "ADDITEMS" | "SETITEMS":
                self._extend(self._since_mark())
            case "GLOBAL":
                stack.append(_named(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                named = isinstance(module, str) and isinstance(attribute, str)
                stack.append(Inert(f"{module}.{attribute}" if named else "global"))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                keywords = stack.pop() if name == "NEWOBJ_EX" else None
                arguments, what = stack.pop(), stack.pop()
                stack.append(self._called(what, None if keywords else arguments))
            case "INST" | "OBJ":
                items = self._since_mark()
                what = _named(argument) if name == "INST" else items.pop(0)
                self.stack.append(self._called(what, tuple(items)))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if isinstance(target, argparse.Namespace) and isinstance(state, dict):
                    self._count_copied(len(state))
                    vars(target).update((k, v) for k, v in state.items() if isinstance(k, str))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "PERSID" | "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER":
                stack.append(Inert(name.lower()))
            case _ if argument is not None:  # a number, string or bytes
                stack.append(argument)
            case _:
                raise UnreadablePickle(f"unknown instruction {name}")

    def _since_mark(self) -> list[object]:
        if not self._below:
            raise UnreadablePickle("a mark is missing on the stack")
        items, self.stack = self.stack, self._below.pop()
        return items

    def _extend(self, items: list[object]) -> None:
        """Add to the list, set or dict on top of the stack; to nothing else."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(_key, items))
        elif isinstance(target, dict):
            target.update(_paired(items))

    def _called(self, what: object, arguments: object) -> object:
        """Plain data for the few calls in `_BUILDERS`, something inert for any other."""
        name = what.name if isinstance(what, Inert) else type(what).__name__
        build = _BUILDERS.get(name)
        if build is None or not isinstance(arguments, tuple):
            return Inert(name)
        sized = (each for each in arguments if isinstance(each, (str, dict, *_ITERABLE)))
        self._count_copied(sum(map(len, sized)))
        try:
            return build(*arguments)
        except (TypeError, ValueError):  # arguments that fit no checkpoint
            return Inert(name)

    def _count_copied(self, items: int) -> None:
        self._copied += items
        if self._copied > MAX_COPIED:
            raise UnreadablePickle(f"more than {MAX_COPIED} items are copied")

    def _persistent(self, identity: object) -> object:
        """A storage, as `torch.save` names it; the legacy format has a view at the end."""
        match identity:
            case ("storage", Inert(name), str(key), _, int(elements), *view) if not any(view):
                storage = Storage(key, name.rpartition(".")[2], elements)
                known = self.storages.setdefault(key, storage)
                if (known.kind, known.elements) != (storage.kind, storage.elements):
                    raise UnreadablePickle("one storage has two sizes")
                return known
        return Inert("persistent")


def _key(value: object) -> object:
    """A key of a dict or set; all but short scalars are only kept apart.

    Hashing deep tuples crashes, and chosen large numbers all have one hash.
    """
    if isinstance(value, int | float):
        return value if abs(value) < MAX_KEY else Inert("key")
    return value if value is None or isinstance(value, str | bytes) else Inert("key")


def _named(argument: object) -> Inert:
    """GLOBAL's and INST's argument is module and name with a space between."""
    return Inert(str(argument).replace(" ", ".", 1))


def _paired(items: Sequence[object]) -> dict[object, object]:
    if len(items) % 2:
        raise UnreadablePickle("a key has no value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_CONTAINERS: dict[str, Callable[[Sequence[object]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": _paired,
    "SET": lambda items: set(map(_key, items)),
    "FROZENSET": lambda items: frozenset(map(_key, items)),
}


def _container(kind: str, items: object = ()) -> Any:
    if not isinstance(items, _ITERABLE):
        raise TypeError
    return _CONTAINERS[kind](list(items))


def _ordered(pairs: object = ()) -> dict[object, object]:
    split = _container("LIST", pairs)
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in split):
        raise TypeError
    return {_key(key): value for key, value in split}


def _reconstructed(of: object, *rest: object) -> argparse.Namespace:
    if not (isinstance(of, Inert) and of.name == "argparse.Namespace"):
        raise TypeError
    return argparse.Namespace()


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError
    return text.encode("latin-1")


def _sizes(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, tuple | list) or len(sizes) > MAX_DIMENSIONS:
        raise TypeError
    if any(type(each) is not int or not 0 <= each < 2**62 for each in sizes):
        raise TypeError
    return tuple(sizes)


def _tensor(
    storage: object, offset: object, shape: object, stride: object, *rest: object
) -> StoredTensor:
    (start,), sides, steps = _sizes([offset]), _sizes(shape), _sizes(stride)
    if not isinstance(storage, Storage) or len(sides) != len(steps):
        raise TypeError
    return StoredTensor(storage, start, sides, steps)


_BUILDERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered,
    "argparse.Namespace": lambda: argparse.Namespace(),
    "copyreg._reconstructor": _reconstructed,  # objects in protocols 0 and 1
    "copy_reg._reconstructor": _reconstructed,
    "_codecs.encode": _encoded,  # bytes in protocol 2
    "torch.Size": _sizes,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
}
for _module in ("builtins", "__builtin__"):
    _BUILDERS[f"{_module}.dict"] = _ordered
    for _kind in ("LIST", "TUPLE", "SET", "FROZENSET"):
        _BUILDERS[f"{_module}.{_kind.lower()}"] = partial(_container, _kind)
