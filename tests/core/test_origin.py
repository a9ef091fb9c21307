"""Graphs run only with the weights and classes that they were exported from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from camseg_core.errors import ModelError
from camseg_core.runtime import Segmenter
from camseg_core.runtime.origin import ORIGIN
from camseg_core.weights import checkpoint_folder

FRAME = np.zeros((64, 96, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model."""
    shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path) -> Segmenter:
    return Segmenter.from_pretrained(folder, provider="cpu")


def change_labels(folder: Path, *entries: dict[str, object]) -> None:
    path = folder / "labels.json"
    path.write_text(json.dumps({"classes": [*entries]}), encoding="utf-8")


def entries_of(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "labels.json").read_text())["classes"]
    return found


def test_graphs_of_other_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        ModelError, match=r"int8 must be exported from the weights beside them, .*, but"
    ):
        load(folder)
    weights.unlink()  # a vehicle needs no weights
    assert load(folder).segment(FRAME).mask.shape == (64, 96)


def test_graphs_of_versions_that_recorded_no_origin_run(folder: Path) -> None:
    for path in folder.rglob(ORIGIN):
        path.unlink()
    assert load(folder).segment(FRAME).mask.shape == (64, 96)


@pytest.mark.parametrize("content", ["{}", '{"weights": null, "ids": [], "graphs": 3}', "[1]"])
def test_a_damaged_record_is_named(folder: Path, content: str) -> None:
    (folder / "onnx" / "int8" / ORIGIN).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot read .*origin\.json: (Key|Type)Error"):
        load(folder)


def changed(content: bytes) -> bytes:
    """The same with one bit changed, in the middle of some weights: the graph can still run."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [changed, lambda content: content[:-100], lambda content: b""])
@pytest.mark.parametrize("name", ["fused_one_step_1", "decoder"])
def test_a_damaged_graph_is_refused_by_name(
    folder: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "onnx" / "int8" / f"{name}.onnx"
    path.write_bytes(damage(path.read_bytes()))
    steps = 1 if name.startswith("fused") else 2  # the latter run the parts
    sampling = {"sampler": "one_step" if steps == 1 else "ddim", "steps": steps}
    with pytest.raises(ModelError, match=rf"{name}\.onnx: it must be as it was exported, but"):
        Segmenter.from_pretrained(folder, provider="cpu", **sampling)


def test_a_graph_from_another_export_is_refused(folder: Path) -> None:
    parts = folder / "onnx" / "int8"
    shutil.copy(parts / "denoiser.onnx", parts / "fused_one_step_1.onnx")
    with pytest.raises(ModelError, match=r"fused_one_step_1\.onnx: it must be as it was exported"):
        load(folder)


def test_graphs_run_that_older_versions_did_not_record(folder: Path) -> None:
    record = folder / "onnx" / "int8" / ORIGIN
    found = json.loads(record.read_text(encoding="utf-8"))
    del found["graphs"]
    record.write_text(json.dumps(found), encoding="utf-8")
    assert load(folder).segment(FRAME).mask.shape == (64, 96)


def test_classes_may_get_other_names_and_colours_but_no_other_ids(folder: Path) -> None:
    entries = entries_of(folder)
    change_labels(folder, {**entries[0], "name": "ground", "color": [9, 9, 9]}, *entries[1:])
    assert load(folder).labels[0].name == "ground"
    change_labels(folder, entries[1], entries[0], *entries[2:])
    with pytest.raises(ModelError, match=r"labels\.json must list the ids that the graphs in .*"):
        load(folder)
    change_labels(folder, *({**each, "id": i + 20} for i, each in enumerate(entries)))
    with pytest.raises(ModelError, match=r"in their order: \[0, 1, .* got \[20, 21, "):
        load(folder)


@pytest.mark.parametrize(("key", "shown"), [("id", "0"), ("name", "'road'")])
def test_two_classes_with_one_id_or_name_are_refused(folder: Path, key: str, shown: str) -> None:
    first, second, *others = entries_of(folder)
    change_labels(folder, first, {**second, key: first[key]}, *others)
    with pytest.raises(ModelError, match=rf"must have distinct ids and names, got {shown} twice"):
        load(folder)


def test_a_class_table_of_another_length_is_refused(folder: Path) -> None:
    change_labels(folder, *entries_of(folder)[:11])
    with pytest.raises(ModelError, match="decodes 19 classes, but its labels list 11"):
        load(folder)


def test_a_table_that_no_reader_can_take_is_one_clear_line(folder: Path) -> None:
    path, first = folder / "labels.json", entries_of(folder)[0]
    for text in (
        json.dumps({"classes": [{**first, "id": 1}]}).replace('"id": 1', '"id": 1e999'),
        "[" * 100_000,
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match="cannot read the class table"):
            load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("network_pixels", -5), ("max_upscale", 0.5), ("temperature", -1.0), ("logit_scale", 0.0)],
)
def test_a_configuration_with_numbers_that_make_no_sense_is_refused(
    folder: Path, name: str, value: float
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ModelError, match=f"{name} must be .*, got {value}"):
        load(folder)
    path.write_text("[" * 100_000)
    with pytest.raises(ModelError, match="cannot read the model's configuration"):
        load(folder)
