"""An interrupted evaluation goes on with the engine and the versions that it began with."""

import json
from pathlib import Path

import pytest
from recorded import Commands, Painter, camseg, drive, labelled_bag, painter

from camseg_core.errors import ConfigError
from camseg_ros.bag import evaluate_command, evaluation
from camseg_ros.bag.evaluation import EvaluationOptions, evaluate_part, inspect_bag
from camseg_ros.bag.frames import ReadOptions
from camseg_ros.bag.make import IMAGE_TOPIC, LABEL_TOPIC
from camseg_ros.bag.parts import PartFolder
from camseg_ros.bag.report import EvaluationRun, merge

__all__ = ["camseg"]


def stopped_evaluation(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    """Stop an evaluation in `out` after some frames; return the command that resumes it."""
    bag = labelled_bag(tmp_path / "bag", drive(4))
    arguments = ("evaluate", bag, "--labels", LABEL_TOPIC, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("camseg_core.long_runs.StopRequest.requested", "enough")
        assert camseg(*arguments)[0] == 130
    return arguments


def test_parts_of_another_engine_are_refused(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, out = stopped_evaluation(tmp_path, camseg, monkeypatch), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Painter, "engine", "a brush")
        code, _, err = camseg(*arguments)
    (parts,) = (out / "parts").iterdir()
    assert (code, err) == (
        2,
        "camseg: error: an evaluation must be computed by one model, engine and version of each "
        f"package, got engine a painter and a brush ({parts}): continue with the first, or remove "
        "that folder to start again\n",
    )
    assert not (out / "report.json").exists()
    assert camseg(*arguments)[0] == 0
    assert json.loads((out / "report.json").read_text())["model"]["engine"] == "a painter"


def test_an_evaluation_begins_anew_with_another_version_of_a_package(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, out = stopped_evaluation(tmp_path, camseg, monkeypatch), tmp_path / "out"
    for module in (evaluation, evaluate_command):
        monkeypatch.setattr(module, "versions", lambda: {"onnxruntime": "9.9"})
    assert camseg(*arguments)[0] == 0
    report = json.loads((out / "report.json").read_text())
    assert report["versions"] == {"onnxruntime": "9.9"}
    assert report["bag"]["frames"] == 4


def test_parts_of_machines_with_other_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(4))
    options = EvaluationOptions(ReadOptions(IMAGE_TOPIC), painter)
    info, parts = inspect_bag(bag, options.read), PartFolder(tmp_path / "parts")
    run = EvaluationRun(options, {0: info}, parts)
    parts.save(0, evaluate_part(info, options, 0, 2))
    monkeypatch.setattr(evaluation, "versions", lambda: {"numpy": "9.9"})
    rest = evaluate_part(info, options, 2, None)
    message = r"; numpy \S+ and 9\.9; .*python \S+ and none; .*parts\): continue with the first"
    with pytest.raises(ConfigError, match=message):
        parts.save(0, rest)
    PartFolder(parts.folder).save(0, rest)  # as another process may
    with pytest.raises(ConfigError, match=message):
        merge(run, tmp_path)
