"""Every command says how many frames have no labelled pixel: they count in no score."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from camvid_folder import write_camvid

from camseg_core.cli.main import main
from camseg_core.data import Sample
from camseg_core.errors import DataError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.training.frames import Frames, HeldFrames, Part
from camseg_core.training.joined import JoinedFrames
from camseg_core.training.run import TrainingData

VOID = 11  # in CamVid's labels
SAID = "frames scored: 2 of 3; no pixel of the others has a scored label"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames, of which the middle one has no labelled pixel."""
    root = write_camvid(tmp_path_factory.mktemp("data") / "camvid", "train", "val")
    for split in ("train", "val"):
        path = root / split / "labels" / "0001TP_000001.png"
        cv2.imwrite(str(path), np.full((48, 64), VOID, np.uint8))
    return root


def test_the_check_names_the_frame(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = root.parent / "sheet.png"
    with pytest.raises(SystemExit) as end:
        main(["data", "check", str(root), "--split", "val", f"--sheet={sheet}", "--json"])
    assert end.value.code == 1
    (finding,) = json.loads(capsys.readouterr().out)["splits"][0]["findings"]
    assert finding["problem"] == "nothing labelled"
    assert finding["path"].endswith("val/images/0001TP_000001.jpg")
    assert finding["text"].endswith("0001TP_000001.jpg has a class: label it, or leave it out")


def test_an_evaluation_counts_the_frames_that_it_scores(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", f"--data={root}", f"--out={tmp_path}"])
    assert SAID in capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["frames_scored"], len(report["frames"])) == (2, 3)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "3 labelled frames, 2 with labels to score, on" in page
    assert SAID.partition(": ")[2] in page


def test_validations_score_every_fifth_labelled_frame() -> None:
    def frames(labelled: list[bool]) -> Frames:
        void = np.full((4, 4), UNLABELLED, np.uint8)
        labels = [void * 0 if each else void for each in labelled]
        image = np.zeros((4, 4, 3), np.uint8)
        samples = [Sample(image, label, str(i)) for i, label in enumerate(labels)]
        return Frames.load(samples, CITYSCAPES)

    held = frames([False, True, True, False, *[True] * 4, False, True])
    assert isinstance(held, HeldFrames)
    some = held.labelled_every(5)
    assert isinstance(some, HeldFrames)
    assert some.names == ["1", "7"]
    joined = JoinedFrames([Part("a", held), Part("b", frames([False, True]))])
    assert joined.labelled_every(5).pixels_by_frame()[:, 0].tolist() == [16, 16, 16]
    assert joined.chosen([1, 11]).pixels_by_frame()[:, 0].tolist() == [16, 16]
    every = frames([True] * 7)
    assert every.labelled_every(5).fingerprint() == every.every(5).fingerprint()
    with pytest.raises(DataError, match="one of the 2 frames must have a labelled pixel, got none"):
        frames([False] * 2).labelled_every(5)


def test_an_evaluation_of_labelled_frames_does_not_mention_others(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", f"--data={root}", f"--out={tmp_path}", "--frames=1"])
    assert "frames scored" not in capsys.readouterr().out
    assert "labels to score" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_robustness_suite_counts_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second time, from what is kept
        main(["robustness", f"--data={root}", f"--out={tmp_path}", "--only=paper/hue"])
        assert SAID in capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"))
    assert (report["frames_scored"], report["frames"]) == (2, 3)
    page = (tmp_path / "robustness.html").read_text(encoding="utf-8")
    assert "2 of the data's with labels to score" in page


def test_weather_needs_no_labels_of_the_data(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["robustness", f"--data={root}", f"--out={tmp_path}", "--only=weather/fog"])
    assert "frames scored" not in capsys.readouterr().out


def test_a_calibration_counts_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["calibrate", f"--data={root}", "--dry-run"])
    assert SAID in capsys.readouterr().out.splitlines()


def test_a_training_logs_them(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        TrainingData.load("camvid", root)
    text = "1 of the 3 frames of {} have no labelled pixel and count nowhere; camseg data check "
    for split in ("train", "val"):
        assert any(each.startswith(text.format(split)) for each in caplog.messages)


def test_a_scorer_counts_frames_with_a_pixel_to_score() -> None:
    scorer, mask = Scorer(CITYSCAPES[:2]), np.zeros((2, 2), np.uint8)
    for label in (mask, None, np.full_like(mask, UNLABELLED), np.full_like(mask, 7)):
        scorer.add(label, mask)
    assert scorer.frames.tolist() == [4, 1]


def test_a_frame_whose_labels_all_stand_for_one_of_several_classes_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its IoU is not defined, but its accuracy and calibration are."""
    root = tmp_path / "set"
    for name, label in (("a", 3), ("b", 1)):
        for part, picture in (
            ("images", np.full((48, 64, 3), 90, np.uint8)),
            ("labels", np.full((48, 64), label, np.uint8)),
        ):
            (root / "val" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "val" / part / f"{name}.png"), picture)
    (root / "mapping.yaml").write_text(
        "ids: {car: [1], truck: [2]}\ngroups: [{classes: [car, truck], ids: [3]}]\n"
    )
    of = [f"--data={root}", f"--out={tmp_path / 'out'}"]
    main(["evaluate", *of])
    assert "no pixel of the others has a scored label" not in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (report["frames_scored"], len(report["frames"])) == (2, 2)
    main(["evaluate", *of, "--frames=1"])
    main(["compare", "camseg-lite", "camseg-lite", *of, "--frames=1"])
    (part,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["parts"]
    assert part["labelled"] == 1
    assert part["scores"]["pixel_accuracy"][0] is not None
