"""The folder of a run's result: what it replaces, what it keeps, and what an error leaves."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from camseg_core.errors import ConfigError
from camseg_core.training.output import check_out, result_folder


def write(run: Path, out: Path, weights: str, card: str = "") -> None:
    run.mkdir(exist_ok=True)
    with result_folder(out, run) as folder:
        (folder / "model.safetensors").write_text(weights)
        (folder / "onnx" / "fp32").mkdir(parents=True)
        if card:
            (folder / "MODEL_CARD.md").write_text(card)


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_replaces_what_it_wrote_and_keeps_other_files(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    write(run, out, "a", "card of a")
    (out / "notes.txt").write_text("mine")
    (out / "onnx" / "fp16").mkdir()
    (out / "onnx" / "fp16" / "decoder.onnx").write_text("of a")
    write(run, out, "b")
    assert content(out) == {"model.safetensors": "b", "notes.txt": "mine"}
    moved = out.rename(tmp_path / "moved")
    write(run, moved, "c", "card of c")
    assert content(moved)["MODEL_CARD.md"] == "card of c"


def test_another_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one", tmp_path / "out", "a")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="must not hold a model that .*other has not written"):
        check_out(tmp_path / "out", tmp_path / "other")
    check_out(tmp_path / "out", tmp_path / "one")
    (tmp_path / "out" / "model.safetensors").write_text("of somebody else")
    with pytest.raises(ConfigError, match="got .*model.safetensors: name another folder"):
        write(tmp_path / "one", tmp_path / "out", "b")
    assert content(tmp_path / "out") == {"model.safetensors": "of somebody else"}


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    write(run, out, "a", "card of a")
    with suppress(KeyboardInterrupt), result_folder(out, run) as folder:
        (folder / "model.safetensors").write_text("b")
        raise KeyboardInterrupt
    assert content(out) == {"model.safetensors": "a", "MODEL_CARD.md": "card of a"}


def test_a_killed_run_goes_on_over_what_it_left(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "model.safetensors").write_text("half")
    with suppress(KeyboardInterrupt), result_folder(out, run) as folder:
        (tmp_path / "kept").mkdir()
        left = shutil.copytree(folder, tmp_path / "kept" / folder.name)
        raise KeyboardInterrupt
    (left / "model.safetensors").write_text("half")
    left.rename(folder)  # as if it had been killed
    write(run, out, "a")
    assert content(out) == {"model.safetensors": "a"}


def test_the_run_folder_may_be_the_result_folder(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("log")
    for weights in ("a", "b"):
        write(tmp_path, tmp_path, weights)
    assert {*content(tmp_path)} == {"model.safetensors", "out.json", "train.log"}


@pytest.mark.parametrize("name", ["autoencoder", "transformer/x", "val", "comparison-own"])
def test_a_folder_of_the_run_itself_is_no_place_for_its_result(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must not be a folder of the run itself"):
        check_out(tmp_path / "run" / name, tmp_path / "run")
    check_out(tmp_path / "run" / "checkpoint", tmp_path / "run")


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    out, one, other = (tmp_path / name for name in ("out", "one", "other"))
    one.mkdir()

    def write_both() -> None:
        with result_folder(out, one) as folder:
            (folder / "model.safetensors").write_text("of one")
            (folder / "MODEL_CARD.md").write_text("of one")
            write(other, out, "of other", "of other")

    with pytest.raises(ConfigError, match="must not hold a model that .*one has not written"):
        write_both()
    assert content(out) == {"model.safetensors": "of other", "MODEL_CARD.md": "of other"}
