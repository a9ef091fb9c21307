"""An interrupted evaluation goes on with the engine and the versions that it began with."""

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import Commands, Painter, camseg, drive, labelled_bag, painter

from camseg_core.errors import ConfigError
from camseg_core.runtime.segmenter import Segmentation
from camseg_ros.bag import evaluate_command, evaluation
from camseg_ros.bag.evaluation import BagInfo, EvaluationOptions, evaluate_part, inspect_bag
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


def test_a_bag_that_fails_keeps_what_was_evaluated_and_the_same_command_continues(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = [labelled_bag(tmp_path / name, drive(4)) for name in ("one", "two")]
    arguments = ("evaluate", *bags, "--labels", LABEL_TOPIC, "--out", tmp_path / "out")
    whole = Painter.segment

    def failing(self: Painter, rgb: Any) -> Segmentation:
        if self.segmented == 7:  # the first frame twice, so that its time counts
            self.segmented += 1
            raise MemoryError
        return whole(self, rgb)

    with monkeypatch.context() as patch:
        patch.setattr(Painter, "segment", failing)
        code, _, err = camseg(*arguments)
    (parts,) = (tmp_path / "out" / "parts").iterdir()
    assert code == 1
    assert "not enough memory for image 2 of " in err
    assert f"what was evaluated is kept in {parts}: the same command continues" in err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bag"]["frames"] == 4
    starts = []

    def score_frames(bag: BagInfo, options: EvaluationOptions, start: int) -> Any:
        starts.append((bag.path.name, start))
        return evaluated(bag, options, start)

    evaluated = evaluation.score_frames
    monkeypatch.setattr(evaluation, "score_frames", score_frames)
    assert camseg(*arguments)[0] == 0
    assert starts == [("two", 2)]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bag"]["frames"] == 8
    assert not parts.parent.exists()
