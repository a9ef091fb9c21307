"""`camseg compare` on data sets and bags, with models that paint the masks they are told to."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from recorded import CAR, LABELS, ROAD, SKY, TREE, VOID, Commands, Painter, camseg, labelled_bag
from recorded import frame as painted

from camseg_core.evaluation.scorer import Scorer
from camseg_core.labels import Label, cityscapes_labels
from camseg_core.runtime import Segmenter
from camseg_core.runtime.segmenter import Segmentation
from camseg_ros.bag import compare
from camseg_ros.bag.make import LabelledFrame

__all__ = ["camseg"]

OWN = (Label(0, "lane", (1, 1, 1)), Label(1, "car", (2, 2, 2)), Label(2, "cone", (3, 3, 3)))
COLUMNS = (ROAD, CAR, SKY, TREE)


class Careless(Painter):
    """Takes the left column of every third frame for trees; its blue channel is their number."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        found = super().segment(rgb)
        if rgb[0, 0, 2] % 3 == 2:
            found.mask[:, 0] = TREE
        return found


class OwnTable(Painter):
    """Has a class table of its own, and calls every pixel a car that the others do."""

    classes = OWN

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        found = super().segment(rgb)
        found.mask[:] = np.where(rgb[..., 0] == CAR, 1, 0)
        return found


@pytest.fixture(autouse=True)
def _models(camseg: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"good": Painter, "careless": Careless, "own": OwnTable}
    monkeypatch.setattr(
        Segmenter, "from_pretrained", lambda model, **_: kinds[Path(model).name](str(model))
    )
    monkeypatch.setattr(
        compare, "model_labels", lambda model: kinds[Path(model).name](str(model)).labels
    )


def frames(count: int, labelled: bool = True) -> list[LabelledFrame]:
    mask = np.array([COLUMNS] * 3, np.uint8)
    found = [painted(i, mask, mask if labelled else np.full_like(mask, VOID)) for i in range(count)]
    for number, each in enumerate(found):
        each.image[..., 2] = number
    return found


def data_set(root: Path, count: int = 6) -> Path:
    for number, each in enumerate(frames(count)):
        for part, picture in (("images", each.image[..., ::-1]), ("labels", each.label)):
            (root / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / part / f"{number}.png"), picture)
    return root


def content(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return found


def test_a_data_set_and_a_bag_are_parts_of_one_page(tmp_path: Path, camseg: Commands) -> None:
    data = data_set(tmp_path / "data")
    bag = labelled_bag(tmp_path / "drive", frames(6))
    options = [
        "--data",
        data,
        "--dataset",
        "folder",
        "--bag",
        bag,
        "--bag-labels",
        "/camera/labels",
    ]
    code, out, err = camseg(
        *("good", "careless", *options, "--out", tmp_path / "out", "--json"), command="compare"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found == content(tmp_path / "out")
    assert [part["title"] for part in found["parts"]] == ["data/all", "drive"]
    scorer = Scorer(LABELS)
    for each in frames(6):
        scorer.add(each.label, Careless().segment(each.image).mask)
    iou = scorer.confusion.iou()
    for part in found["parts"]:
        assert (part["frames"], part["labelled"]) == (6, 6)
        scores = {each["name"]: each["iou"] for each in part["classes"] if None not in each["iou"]}
        assert scores["road"] == pytest.approx([1, 4 / 6], abs=1e-6)
        for label, value in zip(LABELS, iou, strict=True):
            if not np.isnan(value):
                assert scores[label.name][1] == pytest.approx(value, abs=1e-6)
    stills, drive = (part["scores"]["flicker"] for part in found["parts"])
    assert stills == [None, None]
    # of five pairs of four columns, the left one changes in those from 1 to 2, 2 to 3 and 4 to 5
    assert drive == [0, pytest.approx(3 / 20)]
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("Frames that are worse") == 2
    assert 'data-frame="image 2"' in page
    assert 'data-frame="image 0"' not in page


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        (["--max-drop", "0.5", "--max-class-drop", "0.5"], []),
        (["--max-drop", "0.1"], ["max_drop of mean IoU on drive: 0.1"]),
        (["--max-flicker-rise", "0.1"], ["max_flicker_rise of flicker on drive: 0.15 is above"]),
        (["--max-class-drop", "0.3"], ["max_class_drop of road on drive: 0.3333 is above"]),
    ],
)
def test_a_failed_limit_ends_with_1(
    tmp_path: Path, camseg: Commands, limits: list[str], lines: list[str]
) -> None:
    bag = labelled_bag(tmp_path / "drive", frames(6))
    base = ["good", "careless", "--bag", bag, "--bag-labels", "/camera/labels"]
    code, out, err = camseg(*base, "--out", tmp_path / "out", *limits, command="compare")
    assert code == bool(lines)
    for line in lines:
        assert f"camseg: limit: {line}" in err
    assert "drive: 6 frames, 6 with labels" in out
    assert content(tmp_path / "out")["limits"]["passed"] == (not lines)


def test_a_class_table_in_the_folder_of_labels_says_what_they_mean(
    tmp_path: Path, camseg: Commands
) -> None:
    bag, labels = labelled_bag(tmp_path / "drive", frames(6)), tmp_path / "labels"
    labels.mkdir()
    for each in frames(6):
        ids = np.where(each.label == CAR, 0, 1).astype(np.uint8)  # Cityscapes' road and sidewalk
        cv2.imwrite(str(labels / f"{each.stamp_ns}.png"), ids)
    (labels / "labels.yaml").write_text(
        "- {id: 0, name: car, color: [1, 1, 1]}\n- {id: 1, name: lane, color: [2, 2, 2], was: []}\n"
    )
    base = ["good", "careless", "--bag", bag, "--bag-labels", labels, "--out", tmp_path / "out"]
    assert camseg(*base, command="compare")[0] == 0
    (part,) = content(tmp_path / "out")["parts"]
    assert [(each["name"], each["iou"]) for each in part["classes"]] == [("car", [1, 1])]
    assert part["notes"][0] == "not scored, missing in good and careless: lane"
    (tmp_path / "others.yaml").write_text("- {id: 0, name: lane, color: [1, 1, 1]}\n")
    code, _, err = camseg(*base, "--groups", tmp_path / "others.yaml", command="compare")
    assert code == 2
    assert "others.yaml must have the classes of" in err
    (labels / "labels.yaml").rename(tmp_path / "labels.yaml")  # beside the folder, as in data sets
    assert camseg(*base, "--groups", tmp_path / "labels.yaml", command="compare")[0] == 0
    assert camseg(*base, command="compare")[0] == 0
    (part,) = content(tmp_path / "out")["parts"]
    assert [each["name"] for each in part["classes"]] == ["car"]
    (labels / "mapping.yaml").write_text("ids: {car: [0]}")
    code, _, err = camseg(*base, "--groups", labels / "mapping.yaml", command="compare")
    assert code == 2
    assert "mapping.yaml is not read for them: write them as ids into a folder without it" in err


def test_models_of_different_classes_are_compared_over_those_that_both_distinguish(
    tmp_path: Path, camseg: Commands
) -> None:
    data = data_set(tmp_path / "data", 2)
    code, out, _ = camseg(
        *("good", "own", "--data", data, "--dataset", "folder", "--out", tmp_path / "out"),
        command="compare",
    )
    assert code == 0
    (part,) = content(tmp_path / "out")["parts"]
    assert [(each["name"], each["iou"]) for each in part["classes"]] == [("car", [1, 1])]
    assert part["notes"][0].startswith("not scored, missing in own: road, sidewalk, building")
    assert "missing in good and own: " in "\n".join(part["notes"])
    assert "not scored, missing in own: road" in out


def test_a_bag_without_labels_is_compared_by_changes_and_agreement(
    tmp_path: Path, camseg: Commands
) -> None:
    bag = labelled_bag(tmp_path / "drive", frames(6))
    code, out, _ = camseg(
        "good", "careless", "--bag", bag, "--out", tmp_path / "out", command="compare"
    )
    assert code == 0
    (part,) = content(tmp_path / "out")["parts"]
    assert (part["labelled"], part["agreement"]) == (0, pytest.approx(1 - 2 / 24, abs=1e-6))
    assert part["scores"]["change_rate"] == [0, pytest.approx(3 / 20)]
    assert "their masks agree on 91.7 % of the pixels" in out


def test_several_bags_are_one_drive_each(tmp_path: Path, camseg: Commands) -> None:
    bags = [labelled_bag(tmp_path / name, frames(3)) for name in ("one", "two")]
    code, _, _ = camseg(
        *("good", "careless", "--bag", *bags, "--frames", 2, "--out", tmp_path / "out"),
        command="compare",
    )
    assert code == 0
    (part,) = content(tmp_path / "out")["parts"]
    assert part["title"] == "2 bags"
    assert [each["name"] for each in part["frame_scores"]] == [
        *("one, image 0", "one, image 1", "two, image 0", "two, image 1")
    ]


def test_damage_is_reported_and_fails_limits(tmp_path: Path, camseg: Commands) -> None:
    mask = np.tile(np.array(COLUMNS, np.uint8), (600, 150))  # each fills a chunk of the file
    bag = labelled_bag(tmp_path / "drive", [painted(i, mask, mask) for i in range(6)])
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for limits, code in (((), 0), (("--max-slowdown", 100), 1)):
        found, out, err = camseg(
            *("good", "careless", "--bag", bag, "--out", tmp_path / "out", *limits),
            command="compare",
        )
        assert (found, "is damaged after image" in err) == (code, True)
        assert "is damaged after image" in out  # beside the table


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give --data ROOT, --bag BAG or both"),
        (["--data", "DATA", "--bag-labels", "/x"], "--bag-labels must come with --bag"),
        (["--bag", "BAG", "--split", "val"], "--split must come with --data"),
        (["--data", "DATA", "--max-flicker-rise", "0"], "must come with --bag: stills do not"),
        (["--bag", "BAG", "--max-drop", "0"], "--max-drop must come with labels to score against"),
        (
            ["--bag", "BAG", "--max-class-drop", "0", "--max-calibration-rise", "0"],
            "--max-class-drop and --max-calibration-rise must come with labels",
        ),
        (["--bag", "NONE"], "NONE"),
        (["--data", "DATA", "--dataset", "folder", "--out", "DATA/images/0.png"], "--out"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_model_is_loaded(
    tmp_path: Path,
    camseg: Commands,
    given: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    data_set(tmp_path / "DATA", 1)
    labelled_bag(tmp_path / "BAG", frames(1))
    monkeypatch.chdir(tmp_path)
    code, _, err = camseg("good", "careless", *given, command="compare")
    assert code == 2
    assert message in err.splitlines()[-1]


def test_the_same_command_gives_the_same_json_apart_from_times(
    tmp_path: Path, camseg: Commands
) -> None:
    bag = labelled_bag(tmp_path / "drive", frames(4))
    found = []
    for name in ("a", "b"):
        camseg("good", "careless", "--bag", bag, "--out", tmp_path / name, command="compare")
        each = content(tmp_path / name)
        for part in each["parts"]:
            del part["timings"]
        found.append(each)
    assert found[0] == found[1]
    assert cityscapes_labels([0])[0].name in [
        each["name"] for each in found[0]["parts"][0]["classes"]
    ]
