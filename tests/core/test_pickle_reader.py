"""Pickles are read as data: hostile ones run nothing, and good tensors beside them are read."""

import argparse
import builtins
import collections
import copyreg
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from camseg_core.errors import ModelError
from camseg_core.weights.pickle_reader import (
    MAX_OPCODES,
    Inert,
    StoredTensor,
    UnreadablePickle,
    read_pickle,
)
from camseg_core.weights.torch_file import TorchFile


def read(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data), len(data)).content


class Calls:
    """Pickles to the call of `function`, with state and items if there are any."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def hostile(path: str) -> dict[str, bytes]:
    """Return pickle bodies that leave one value and would, if run, make a file at `path`."""
    command, code = string(f"touch {path}"), string(f"open({path!r}, 'w')")
    one, opened = b"(" + command + b"t", b"(" + string(path) + string("w") + b"t"
    return {
        "reduce": b"cos\nsystem\n" + one + b"R",
        "eval": b"cbuiltins\neval\n(" + code + b"tR",
        "python 2 builtins": b"c__builtin__\nexec\n(" + code + b"tR",
        "inst": b"(" + command + b"ios\nsystem\n",
        "obj": b"(cos\nsystem\n" + command + b"o",
        "newobj": b"cos\nsystem\n" + one + b"\x81",
        "newobj_ex": b"cos\nsystem\n" + one + b"}\x92",
        "newobj_ex with keywords": b"cio\nFileIO\n)}"
        + string("file")
        + string(path)
        + b"s"
        + string("mode")
        + string("w")
        + b"s\x92",
        "stack_global": string("os") + string("system") + b"\x93" + one + b"R",
        "getattr chain": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n("
        + string("os")
        + b"tR"
        + string("system")
        + b"tR"
        + one
        + b"R",
        "dotted name": string("builtins")
        + string("__import__.__self__.open")
        + b"\x93"
        + opened
        + b"R",
        "reconstructor": b"ccopyreg\n_reconstructor\n(cio\nFileIO\ncio\nFileIO\n"
        + string(path)
        + b"tR",
        "build": b"ccamseg_core.errors\nCamSegError\n)R}"
        + string("__setstate__")
        + b"cos\nsystem\nsb"
        + command
        + b"b",
        "setitem": b"ccollections\nChainMap\n)R" + string("a") + b"cos\nsystem\n" + one + b"Rs",
        "setitems": b"ccollections\ndefaultdict\n(cos\nsystem\ntR(" + string("a") + command + b"u",
        "append": b"ccollections\ndeque\n)Rcos\nsystem\n" + one + b"Ra",
        "appends": b"ccollections\ndeque\n)R(cos\nsystem\n" + one + b"Re",
        "partial": b"cfunctools\npartial\n(cos\nsystem\n" + command + b"tR)R",
        "map in a list": b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n(" + command + b"ltRtR",
        "set of a map": b"cbuiltins\nset\n(cbuiltins\nmap\n(cos\nsystem\n(" + command + b"ltRtR",
        "ordered dict": b"ccollections\nOrderedDict\n(cbuiltins\nmap\n(cos\nsystem\n("
        + command
        + b"ltRtR",
        "persistent id": b"cos\nsystem\n" + one + b"RQ",
        "rebuild": b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n"
        + one
        + b"RI0\n(t(tI00\nNtR",
        "rebuild parameter": b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\n"
        + one
        + b"RI00\nNtR",
        "rebuild from type": b"ctorch._tensor\n_rebuild_from_type_v2\n"
        + b"(cos\nsystem\ncbuiltins\nint\n"
        + one
        + b"}tR",
        "encode": b"c_codecs\nencode\n(" + string(path) + string("rot13") + b"tR",
    }


@pytest.mark.parametrize("kind", hostile(""))
def test_a_hostile_pickle_runs_nothing_and_what_stands_beside_it_comes_out(
    kind: str, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"
    found = read(
        b"\x80\x04}" + string("good") + b"K\x07s" + string("bad") + hostile(str(trap))[kind] + b"s."
    )
    assert not trap.exists()
    assert found["good"] == 7
    assert isinstance(found["bad"], Inert | set | list | dict)


@pytest.mark.parametrize(
    "kind",
    ["reduce", "eval", "inst", "obj", "stack_global", "getattr chain", "partial", "map in a list"],
)
def test_the_traps_are_real_ones(kind: str, tmp_path: Path) -> None:
    """Python's own unpickler is caught by them."""
    pickle.loads(b"\x80\x04" + hostile(str(tmp_path / "sprung"))[kind] + b".")
    assert (tmp_path / "sprung").exists()


def test_objects_that_pickle_themselves_to_calls_are_inert(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    with_state = Calls(
        copyreg._reconstructor,
        (types.SimpleNamespace, object, None),
        {"x": Calls(os.system, (f"touch {trap}",))},
    )
    with_items = Calls(
        collections.deque, (), None, iter([Calls(builtins.eval, (f"open({str(trap)!r}, 'w')",))])
    )
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = read(pickle.dumps({"a": with_state, "b": with_items, "c": [1.5]}, protocol))
        assert isinstance(found["a"], Inert)
        assert found["c"] == [1.5]
        assert not trap.exists()


def test_no_class_is_changed_by_building_on_it() -> None:
    """The second half of BUILD's state sets attributes, on a class for the whole process."""
    body = b"\x80\x04cargparse\nNamespace\nN}" + string("__eq__") + string("gone") + b"s\x86b."
    before = argparse.Namespace.__eq__
    assert not isinstance(read(body), type)
    assert argparse.Namespace.__eq__ is before


def test_nothing_is_imported() -> None:
    assert "antigravity" not in sys.modules
    read(b"\x80\x04cantigravity\ngeohash\n.")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_out_as_it_went_in(protocol: int) -> None:
    shared = [1, 2]
    data = {
        "numbers": [0, -1, 2**40, 2**80, 1.5, True, False, None],
        "text": "Straße",
        "bytes": b"\x00\xff",
        "containers": ({1, 2}, frozenset({3}), (), [], {}, collections.OrderedDict(b=1, a=2)),
        "shared": (shared, shared),
        "args": argparse.Namespace(lr=1e-4, name="x"),
    }
    found = read(pickle.dumps(data, protocol))
    assert found == data
    assert list(found["containers"][5]) == ["b", "a"]
    assert found["shared"][0] is found["shared"][1]


@pytest.mark.parametrize("value", [{(1, 2): 3}, {frozenset({1}): 3}, {(1, (2, (3,)))}])
def test_keys_that_are_no_scalars_are_kept_apart(value: Any) -> None:
    assert len(read(pickle.dumps(value))) == 1


def test_a_deeply_nested_key_does_not_end_the_process() -> None:
    """The hash of a tuple recurses in C without a limit."""
    assert len(read(b"\x80\x04})" + b"\x85" * 300_000 + b"K\x01s.")) == 1


def test_numbers_of_one_hash_do_not_meet_in_a_dict() -> None:
    found = read(pickle.dumps({i * sys.hash_info.modulus: i for i in range(3)}))
    assert found[0] == 0
    assert [type(key) for key in found] == [int, Inert, Inert]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "exhausted"),
        (b"\x80\x04K", "not enough data"),
        (b"\x80\x04R.", "missing on the stack"),
        (b"\x80\x04t.", "mark is missing"),
        (b"\x80\x04h\x09.", "9"),
        (b"\x80\x04}(K\x01u.", "no value"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.", "expected"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "expected"),
        (b"\x80\x04I" + b"9" * 100_000 + b"\n.", "Exceeds the limit"),
        (b"\x80\x04N" + b"0N" * (MAX_OPCODES // 2) + b".", "more than 2000000 instructions"),
        (
            b"\x80\x04]("
            + b"N" * 100_000
            + b"e\x94"
            + b"cbuiltins\nset\n\x94"
            + b"h\x01h\x00\x85R0" * 200
            + b".",
            "items are copied",
        ),
        (
            b"\x80\x04cargparse\nNamespace\n)R}("
            + b"".join(string(f"{i}") + b"N" for i in range(20_000))
            + b"u\x940"
            + b"cargparse\nNamespace\n)R"
            + b"h\x00b" * 1000
            + b".",
            "items are copied",
        ),
    ],
)
def test_damaged_and_exploding_pickles_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePickle, match=reason):
        read(data)


def saved(path: Path, content: object, legacy: bool = False) -> TorchFile:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return TorchFile(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]
)
def test_tensors_come_out_of_both_formats(tmp_path: Path, legacy: bool, dtype: torch.dtype) -> None:
    whole = torch.arange(24).to(dtype).view(4, 6)
    content = {
        "a": whole,
        "view": whole.t()[2:5],
        "scalar": torch.tensor(3).to(dtype),
        "none": torch.empty(0, 3, dtype=dtype),
    }
    file = saved(tmp_path / "x.pth", content, legacy)
    for name, expected in content.items():
        found = file.read(file.content[name], name)
        assert found.dtype == dtype
        assert torch.equal(found, expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_parameters_optimisers_and_pickled_callbacks_do_not_stop_a_file(
    tmp_path: Path, legacy: bool
) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    trap = tmp_path / "sprung"
    content = {
        "callbacks": {
            pytest.Item: Calls(os.system, (f"touch {trap}",)),
            "model": types.SimpleNamespace(a=1),
        },
        "state_dict": layer.state_dict(),
        "parameter": layer.weight,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu")),
    }
    file = saved(tmp_path / "x.ckpt", content, legacy)
    assert not trap.exists()
    assert torch.equal(file.read(file.content["state_dict"]["weight"], "weight"), layer.weight)
    assert torch.equal(file.read(file.content["parameter"], "parameter"), layer.weight)
    assert file.content["args"].lr == 0.1
    assert file.content["optimizer"]["param_groups"][0]["lr"] == 1e-3


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 5},
        {"shape": (3, 3)},
        {"stride": (100, 1)},
        {"shape": (2**40, 2**40), "stride": (1, 1)},
        {"stride": (2**61, 2**61)},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(
    tmp_path: Path, change: dict[str, Any], legacy: bool
) -> None:
    file = saved(tmp_path / "x.pth", {"a": torch.zeros(2, 3)}, legacy)
    tensor = file.content["a"]
    lying = StoredTensor(
        **({"storage": tensor.storage, "offset": 0, "shape": (2, 3), "stride": (3, 1)} | change)
    )
    with pytest.raises(ModelError, match="reaches beyond its 24 bytes"):
        file.read(lying, "a")


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(2, 3), 0, (2, 3), (3, 1), False, None),
        ("storage", 0, (2, 3), (3, 1), False, None),
        (None, -1, (2, 3), (3, 1), False, None),
        (None, 0, (2.5, 3), (3, 1), False, None),
        (None, 0, (1,) * 40, (1,) * 40, False, None),
        (),
    ],
)
def test_tensors_rebuilt_from_hostile_arguments_are_inert(
    tmp_path: Path, arguments: tuple[Any, ...]
) -> None:
    content = {"bad": Calls(torch._utils._rebuild_tensor_v2, arguments), "good": torch.ones(2)}
    file = saved(tmp_path / "x.pth", content)
    assert isinstance(file.content["bad"], Inert)
    assert torch.equal(file.read(file.content["good"], "good"), torch.ones(2))


def rewritten(path: Path, change: Callable[[str, bytes], tuple[bytes, int]]) -> None:
    """Rewrite a zip archive; `change(name, bytes)` returns a part's bytes and compression."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, *change(name, data))


def test_compressed_parts_are_refused(tmp_path: Path) -> None:
    """They could be a thousand times as large as the file."""
    path = tmp_path / "x.pth"
    for part in ("data.pkl", "data/0"):
        saved(path, {"a": torch.zeros(1000)})
        rewritten(path, lambda name, data, part=part: (data, 8 if name.endswith(part) else 0))
        with pytest.raises(ModelError, match=f"{part}' is compressed, which torch.save never does"):
            TorchFile(path)


def test_numbers_that_changed_in_the_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    saved(path, {"a": torch.full((4,), 1.25)})
    path.write_bytes(
        path.read_bytes().replace(struct.pack("<f", 1.25) * 4, struct.pack("<f", 1.5) * 4)
    )
    file = TorchFile(path)
    with pytest.raises(ModelError, match="the numbers of a are damaged: download the file again"):
        file.read(file.content["a"], "a")


def test_a_part_that_begins_beyond_any_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    saved(path, {"a": torch.ones(4)})
    with zipfile.ZipFile(path) as archive:
        entry = next(each for each in archive.infolist() if each.filename.endswith("/data/0"))
    data = bytearray(path.read_bytes())
    name = entry.filename.encode()
    header = data.rindex(name) - 46  # its entry in the central directory
    end = header + 46 + len(name) + len(entry.extra)
    old = len(entry.extra)
    extra = struct.pack("<HHQ", 1, 8, 2**63)
    data[header + 30 : header + 32] = struct.pack("<H", len(extra))
    data[header + 42 : header + 46] = b"\xff" * 4
    data[end - old : end] = extra
    tail = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", data, tail + 12)
    struct.pack_into("<II", data, tail + 12, size + len(extra) - old, start)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"x\.pth .*: download it again"):
        TorchFile(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pth"
    saved(path, {"a": torch.ones(50), "b": torch.zeros(50)}, legacy)
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="x.pth") as caught:
            TorchFile(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_random_damage_gives_an_error_of_the_project_or_a_readable_file(
    tmp_path: Path, legacy: bool
) -> None:
    path = tmp_path / "x.pth"
    saved(
        path,
        {"a": torch.ones(3, 4), "b": [torch.zeros(2)], "args": argparse.Namespace(x=1)},
        legacy,
    )
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    outcomes = collections.Counter[bool]()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[int(torch.randint(len(whole), (), generator=generator))] = int(
                torch.randint(256, (), generator=generator)
            )
        path.write_bytes(damaged)
        try:
            content = TorchFile(path).content
            if (
                isinstance(content, dict)
                and isinstance(content.get("a"), StoredTensor)
                and content["a"].shape == (3, 4)
            ):
                TorchFile(path).read(content["a"], "a")
            outcomes[True] += 1
        except ModelError:
            outcomes[False] += 1
    assert outcomes[False] > 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"\n <html lang='en'>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "it is a Git LFS pointer"),
        (struct.pack("<Q", 40) + b'{"a": {}}' + b" " * 40, "it looks like a safetensors file"),
        (pickle.dumps({"model": 1}), "it starts like neither of its formats"),
    ],
)
def test_a_file_that_is_not_of_torch_is_refused_with_what_it_seems_to_be(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"x.pth is not a file of torch.save: {reason}"):
        TorchFile(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read .*absent.pth: No such file"):
        TorchFile(tmp_path / "absent.pth")
    with pytest.raises(ModelError, match="cannot read .*: Is a directory"):
        TorchFile(tmp_path)


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    saved(path, {})
    rewritten(path, lambda name, data: (data, 0))
    TorchFile(path)  # an archive written by other means is read
    path.write_bytes(path.read_bytes().replace(b"data.pkl", b"data.txt"))
    with pytest.raises(ModelError, match="is a zip archive, but not of torch.save"):
        TorchFile(path)
