"""The published files become a checkpoint folder: exactly their weights, all differences told at once, and nothing in them run."""

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import published_files
import pytest
import reference
import torch
from camvid_folder import write_camvid

from camseg_core.cli import main
from camseg_core.errors import ConfigError, ModelError
from camseg_core.model.camseg import CamSeg, stored_type
from camseg_core.model.config import save_config
from camseg_core.model.sizes import CAM_SEG_BASE_768, CAMSEG_LITE
from camseg_core.weights.catalogue import PUBLISHED
from camseg_core.weights.pickle_reader import Archive, Placeholder, StoredTensor
from camseg_core.weights.published import import_published, published_parts

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def imported(folder: Path, files: tuple[Path, Path], **options: Any) -> CamSeg:
    import_published(*files, folder / "out", config=reference.model().config, **options)
    return CamSeg.from_pretrained(folder / "out")


def assert_same(found: CamSeg, factor: float = 1.0) -> None:
    """The reference weights, those of transformer and head times `factor`."""
    state, expected = found.state_dict(), reference.model().state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor * (1.0 if name.startswith("autoencoder.") else factor)), name


@FORMATS
def test_the_published_files_give_their_weights(tmp_path: Path, zipped: bool) -> None:
    assert_same(imported(tmp_path, published_files.write(tmp_path, _use_new_zipfile_serialization=zipped)))


def test_the_running_average_is_taken_when_asked_for(tmp_path: Path) -> None:
    assert_same(imported(tmp_path, published_files.write(tmp_path), ema=True), 0.5)


def test_a_running_average_that_is_a_list_is_in_the_order_of_the_weights(tmp_path: Path) -> None:
    content = published_files.transformer_content()
    content["model_ema"] = list(content["model_ema"].values())
    assert_same(imported(tmp_path, published_files.write(tmp_path, transformer=content), ema=True), 0.5)


def test_weights_saved_from_several_processes_lose_the_wrappers_prefix(tmp_path: Path) -> None:
    content = published_files.transformer_content()
    content["model"] = {f"module.{name}": tensor for name, tensor in content["model"].items()}
    assert_same(imported(tmp_path, published_files.write(tmp_path, transformer=content)))


def test_half_precision_is_read_and_written(tmp_path: Path) -> None:
    content = published_files.transformer_content()
    content["model"] = {name: tensor.detach().bfloat16() for name, tensor in content["model"].items()}
    model = imported(tmp_path, published_files.write(tmp_path, transformer=content), dtype=torch.float16)
    assert stored_type(tmp_path / "out") == torch.float16
    expected = reference.model().transformer.mask_token
    assert torch.allclose(model.transformer.mask_token, expected, rtol=0.01, atol=1e-4)


def test_the_full_size_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        shapes = {name: list(tensor.shape) for name, tensor in CamSeg(CAM_SEG_BASE_768).state_dict().items()}
    for part, file in zip(published_parts(), ("autoencoder_kl_f16", "transformer_base_768"), strict=True):
        assert {name: shapes[own] for name, own in part.expected.items()} == reference.published_shapes(file)


def test_a_file_of_the_full_size_is_told_from_another_by_names_and_shapes_alone(tmp_path: Path) -> None:
    """The full key set, at no cost: each tensor is a view of one number, which the check does not read."""
    one = torch.zeros(1)
    content = {"model": {n: one.expand(s) for n, s in reference.published_shapes("transformer_base_768").items()}}
    with pytest.raises(ModelError, match="reaches out of its 1 numbers"):  # and no tensor repeats its numbers
        imported(tmp_path, published_files.write(tmp_path, transformer=content))


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    one, two = published_files.autoencoder_content(), published_files.transformer_content()
    del one["state_dict"]["quant_conv.bias"]
    one["state_dict"]["strange.weight"] = torch.zeros(3)
    two["model"]["mask_token"] = torch.zeros(1, 1, 7)
    del two["model"]["z_proj1.bias"], two["model"]["diffloss.net.input_proj.bias"]
    with pytest.raises(ModelError) as caught:
        imported(tmp_path, published_files.write(tmp_path, one, two))
    first, *lines = str(caught.value).splitlines()
    assert first == "the files do not hold reference:"
    width = reference.model().config.transformer.width
    assert [line.partition(": ")[2] for line in lines] == [
        f"missing quant_conv.bias {list(reference.model().autoencoder.quant_conv.bias.shape)}",
        "unexpected strange.weight [3]",
        f"missing z_proj1.bias [{width}]",
        f"missing diffloss.net.input_proj.bias [{reference.model().config.denoiser.width}]",
        f"mask_token is [1, 1, 7], expected [1, 1, {width}]",
    ]
    assert not (tmp_path / "out" / "model.safetensors").exists()


class Runs:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def evil(trace: Path) -> dict[str, Any]:
    """Ways in which a pickle runs code when it is read; each would leave the file `trace`."""
    write = f"open({str(trace)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, write),
        "exec": Runs(exec, write),
        "open": Runs(open, str(trace), "w"),
        "subprocess": Runs(subprocess.call, ["touch", str(trace)]),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "in a dict's key": {Runs(eval, write): 1},
        "class": Runs(type, "X", (), {}),
    }


@FORMATS
def test_nothing_in_a_file_is_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    one, two = published_files.autoencoder_content(), published_files.transformer_content()
    one["callbacks"], two["optimizer"] = evil(trace), [evil(trace)]
    two["args"] = Runs(eval, f"open({str(trace)!r}, 'w').close()")
    model = imported(tmp_path, published_files.write(tmp_path, one, two, _use_new_zipfile_serialization=zipped))
    assert not trace.exists()
    assert_same(model)


def test_what_is_not_known_becomes_something_that_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save({"callback": published_files.TrainerCallback(), "args": argparse.Namespace(lr=0.1), "plain": [1, {2}, (b"3", None)]}, path)
    with Archive(path) as archive:
        callback = archive.content["callback"]
        assert isinstance(callback, Placeholder)
        assert type(callback).__name__ == "TrainerCallback"
        assert vars(callback) == {}
        assert vars(archive.content["args"]) == {"lr": 0.1}
        assert archive.content["plain"] == [1, {2}, (b"3", None)]


def test_a_pickle_cannot_change_the_classes_that_it_is_given(tmp_path: Path) -> None:
    """BUILD sets attributes of whatever is on the stack, classes and functions among them."""
    change = b"(dVmark\nI1\ns"  # {"mark": 1}
    program = b"\x80\x02" + b"".join(
        b"c" + name + b"\nN" + change + b"\x86b0" for name in (b"argparse\nNamespace", b"torch._utils\n_rebuild_tensor_v2", b"os\nsystem")
    )
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("file/data.pkl", program + b"N.")
    with Archive(path) as archive:
        assert archive.content is None
    assert not any(hasattr(each, "mark") for each in (argparse.Namespace, os.system, Placeholder, torch._utils._rebuild_tensor_v2))


@pytest.mark.parametrize("state", [b"}X\x05\x00\x00\x00shapeK\x09s", b"N}X\x05\x00\x00\x00shapeK\x09s\x86"], ids=["dict", "slots"])
def test_a_pickle_cannot_change_a_tensor_after_it_was_checked(tmp_path: Path, state: bytes) -> None:
    changed = tensor_program(4, 0, (4,), (1,))[:-1] + state + b"b."
    with pytest.raises(ModelError, match="damaged"):
        Archive(in_zip(tmp_path / "file.pt", changed))


def test_a_view_is_read_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "view.pt"
    torch.save({"view": published_files.shared_view(), "empty": torch.zeros(0, 3), "one": torch.tensor(2.5)}, path)
    with Archive(path) as archive:
        read = {name: archive.tensor(stored) for name, stored in archive.content.items()}
    assert torch.equal(read["view"], published_files.shared_view())
    assert read["empty"].shape == (0, 3)
    assert read["one"] == 2.5


def in_zip(path: Path, program: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("file/data.pkl", program)
        file.writestr("file/data/0", b"\0" * 16)
    return path


def tensor_program(count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of one tensor over a storage that says to have `count` numbers of fp32."""

    class Writer(pickle._Pickler):
        def persistent_id(self, item: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if item == "the storage" else None

    buffer = io.BytesIO()
    Writer(buffer, 2).dump(Runs(torch._utils._rebuild_tensor_v2, "the storage", offset, shape, stride, False, None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor_program(4, 0, (5,), (1,)), "reaches out"),
        (tensor_program(4, 1, (2, 2), (2, 1)), "reaches out"),
        (tensor_program(4, 0, (1 << 40,), (0,)), "reaches out"),
        (tensor_program(4, -1, (2,), (1,)), "reaches out"),
        (tensor_program(4, 0, (2,), (1, 1)), "reaches out"),
        (tensor_program(4, 0, (-2,), (1,)), "something else"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "damaged"),
        (b"\x80\x02\x82\x01.", "by number"),
        (b"\x80\x02U\x07storageQ.", "refers to a storage"),
        (b"\x80\x02", "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_file_that_lies_about_its_sizes_is_refused(tmp_path: Path, program: bytes, message: str) -> None:
    path = in_zip(tmp_path / "file.pt", program)
    with pytest.raises(ModelError, match=f"^cannot read the checkpoint {path}: .*{message}"):
        Archive(path)


def test_a_storage_that_is_larger_in_words_than_in_bytes_is_refused(tmp_path: Path) -> None:
    with Archive(in_zip(tmp_path / "file.pt", tensor_program(1 << 40, 0, (1 << 40,), (1,)))) as archive:
        stored = archive.content
        assert isinstance(stored, StoredTensor)
        with pytest.raises(ModelError, match="storage 0 should have 1099511627776 numbers"):
            archive.tensor(stored)


def test_compressed_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="compressed"):
        Archive(in_zip(tmp_path / "file.pt", b"N." * 100, zipfile.ZIP_DEFLATED))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "a web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (lambda path: path.write_bytes(b"\x89PNG"), "no file of torch.save"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "not of torch.save"),
        (cut, "cut short"),
        (lambda path: torch.save([1], path), "no dict of weights"),
        (lambda path: torch.save(published_files.transformer_content(), path), "swapped"),
    ],
)
@FORMATS
def test_what_is_no_autoencoder_is_told_in_one_line(tmp_path: Path, spoil: Callable[[Path], Any], message: str, zipped: bool) -> None:
    files = published_files.write(tmp_path, _use_new_zipfile_serialization=zipped)
    spoil(files[0])
    with pytest.raises(ModelError, match=message) as caught:
        imported(tmp_path, files)
    assert str(files[0]) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("model"), "no entry 'model'.*it has model_ema, optimizer"),
        (lambda content: content.pop("model_ema"), "no 'model_ema'.*leave out --ema"),
        (lambda content: content.update(model_ema=[1]), "lists 1 tensors"),
        (lambda content: content["model_ema"].update(mask_token=torch.full((1, 1, 32), torch.nan)), "NaN or infinite.*mask_token"),
    ],
)
def test_what_a_transformers_file_lacks_is_told(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    content = published_files.transformer_content()
    content["model_ema"]["mask_token"] = torch.zeros_like(content["model"]["mask_token"])
    change(content)
    if isinstance(content.get("model_ema"), dict) and content["model_ema"]["mask_token"].isnan().any():
        content["model_ema"]["mask_token"] = torch.full_like(content["model"]["mask_token"], torch.nan)
    with pytest.raises(ModelError, match=message):
        imported(tmp_path, published_files.write(tmp_path, transformer=content), ema=True)


def test_another_layout_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="camseg-lite is not of the published layout"):
        import_published(tmp_path, tmp_path, tmp_path, config=CAMSEG_LITE)


def command(files: tuple[Path, Path], folder: Path) -> list[str]:
    save_config(reference.model().config, folder / "sizes.json")
    options = ["--config", str(folder / "sizes.json"), "--out", str(folder / "out")]
    return ["weights", "import", "--autoencoder", str(files[0]), "--transformer", str(files[1]), *options]


@pytest.mark.slow
def test_what_is_imported_can_be_exported_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(published_files.write(tmp_path), tmp_path))
    assert "wrote" in capsys.readouterr().out
    main(["export", "--model", str(tmp_path / "out")])
    data = write_camvid(tmp_path / "data", "val", size=(64, 96))
    main(
        [
            "evaluate",
            "--model",
            str(tmp_path / "out"),
            "--data",
            str(data),
            "--out",
            str(tmp_path / "report"),
            "--sampler",
            "ancestral",
            "--steps",
            "4",
        ]
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(report["frames"]) == 3


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for; the first download of a file breaks off in the middle."""

    files: dict[str, bytes]
    requests: list[tuple[str, str]]
    broken: set[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        found = [{"type": "file", "path": path, "size": len(self.files[path]), "oid": "0" * 40} for path in asked if path in self.files]
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _answer(self, body: bool) -> None:
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        content = self.files.get(name)
        self.requests.append((self.command, name))
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hash(content) & 0xFFFF:x}"', "X-Repo-Commit": "a" * 40, "Content-Length": str(len(content))}
        if body and name in self.broken:
            self.broken.discard(name)
            content = content[: len(content) // 2]
            self.close_connection = True
        self._send(200, content if body else b"", headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A hub on this machine that has the published files, and the environment in which the library asks it."""
    files = published_files.write(tmp_path)
    names = PUBLISHED[0].autoencoder, PUBLISHED[0].transformer
    handler = type(
        "OneHub", (Hub,), {"files": {n: f.read_bytes() for n, f in zip(names, files, strict=True)}, "requests": [], "broken": set()}
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        yield handler, {**os.environ, **environment, "no_proxy": "127.0.0.1"}
        server.shutdown()


def pulled(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "camseg_core.cli", "weights", "pull", "cam-seg-base-768", "--out", str(folder / "out")]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.slow
def test_a_published_model_is_pulled_and_checked(hub: tuple[type[Hub], dict[str, str]], tmp_path: Path) -> None:
    handler, environment = hub
    handler.broken = set(handler.files)
    done = pulled(environment, tmp_path)
    assert "pretrained_models/vae/modelf16.ckpt, 0.00 GB" in done.stderr
    assert done.returncode == 2  # what this hub has is of the reduced size, and that is told after the download
    assert "the files do not hold cam-seg-base-768" in done.stderr
    assert all(handler.requests.count(("GET", name)) == 2 for name in handler.files)  # what broke off is tried again
    handler.requests.clear()
    again = pulled({**environment, "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert "the files do not hold cam-seg-base-768" in again.stderr  # from the cache
    assert handler.requests == []


@pytest.mark.slow
def test_without_network_and_cache_a_pull_says_what_to_do(hub: tuple[type[Hub], dict[str, str]], tmp_path: Path) -> None:
    done = pulled({**hub[1], "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert done.returncode == 2
    assert "camseg weights import" in done.stderr.splitlines()[-1]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["weights", "pull", "cam-seg-huge"])
    assert "no published model 'cam-seg-huge'; choose one of cam-seg-base-768" in capsys.readouterr().err


def test_the_list_has_bundled_and_published_models(capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "list"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["camseg-lite", "cam-seg-base-768"]
