"""Class tables of your own, and data sets renumbered to another table by name."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from lite import tiny_lite, torch_segmenter

from camseg_core.cli.main import main
from camseg_core.data.label_table import LabelTable, joined_table, read_label_table, same_ids
from camseg_core.data.sets import LabelledSet, open_set
from camseg_core.errors import ConfigError
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label

TABLE = """
- {id: 7, name: lane, color: [0, 200, 0], was: []}
- {id: 2, name: road, color: [128, 64, 128]}
- {id: 3, name: vehicle, color: [0, 0, 142], was: [car, truck]}
- {id: 4, name: cyclist, color: [255, 0, 0], was: [rider]}
- {id: 5, name: motorcyclist, color: [0, 0, 230], was: [rider, motorcycle]}
"""


def write_frames(root: Path, label: np.ndarray, split: str = "val", count: int = 1) -> Path:
    random = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / split / part).mkdir(parents=True)
    for i in range(count):
        image = random.integers(0, 255, (*label.shape, 3), np.uint8)
        cv2.imwrite(str(root / split / "images" / f"{i}.png"), image)
        cv2.imwrite(str(root / split / "labels" / f"{i}.png"), label)
    return root


def own_set(root: Path, ids: list[int], table: str = TABLE) -> LabelledSet:
    write_frames(root, np.array([ids], np.uint8).repeat(4, 0))
    (root / "labels.yaml").write_text(table)
    return open_set("auto", root, "val")


def test_a_set_may_have_a_class_table_of_its_own(tmp_path: Path) -> None:
    found = own_set(tmp_path, [7, 2, 3, 255])
    assert [(each.id, each.name) for each in found.labels][:3] == [
        (7, "lane"),
        (2, "road"),
        (3, "vehicle"),
    ]
    assert found.samples[0].label[0].tolist() == [7, 2, 3, 255]
    (tmp_path / "mapping.yaml").write_text(
        "ids: {lane: [2], unlabelled: [255]}\ngroups: [{classes: [road, vehicle], ids: [3, 7]}]"
    )
    mapped = open_set("auto", tmp_path, "val")
    assert [each.name for each in mapped.labels] == ["lane"]
    assert mapped.samples[0].label[0].tolist() == [128, 7, 128, 255]
    assert mapped.groups[0].train_ids == (2, 3)


def test_a_mapping_names_its_class_table(tmp_path: Path) -> None:
    own_set(tmp_path / "set", [2, 3])
    (tmp_path / "set" / "labels.yaml").rename(tmp_path / "classes.yaml")
    (tmp_path / "set" / "mapping.yaml").write_text("table: ../classes.yaml")
    assert open_set("auto", tmp_path / "set", "val").labels[0].name == "lane"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("- {id: 1, name: a, color: [0, 0, 0]}\n- {id: 1, name: b, color: [0, 0, 0]}", "each id"),
        ("- {id: 1, name: a, color: [0, 0, 0]}\n- {id: 2, name: a, color: [0, 0, 0]}", "each name"),
        ("- {id: 200, name: a, color: [0, 0, 0]}", "id must be 0 to 127, got 200"),
        ("- {id: 1, name: a, color: [0, 0, 300]}", "color must be RGB"),
        (
            "- {id: 1, name: a, color: [0, 0, 0], was: [car, car]}",
            r"was must name each class once, got \['car', 'car'\]",
        ),
        (
            "- {id: 1, color: [0, 0, 0]}",
            r"classes\[1\] lacks one of its entries: classes\[1\].name",
        ),
        ("[]", "classes must list at least one class"),
    ],
)
def test_a_class_table_that_cannot_be_used_is_an_error(
    tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"labels.yaml: .*{message}") as caught:
        own_set(tmp_path, [1], table)
    assert "\n" not in str(caught.value)


def test_ids_that_the_table_lacks_are_an_error_with_the_known_ones(tmp_path: Path) -> None:
    found = own_set(tmp_path, [7, 9])
    with pytest.raises(Exception, match="0.png holds class ids 9: .*2, 3, 4, 5, 7, and 255"):
        found.samples[0]


def test_names_of_a_mapping_are_those_of_the_table(tmp_path: Path) -> None:
    own_set(tmp_path, [7])
    (tmp_path / "mapping.yaml").write_text("ids: {car: [7]}")
    with pytest.raises(ConfigError, match=r"mapping.yaml: unknown class 'car': choose from lane"):
        open_set("auto", tmp_path, "val")


def test_classes_of_another_table_are_matched_by_name_merged_split_and_dropped(
    tmp_path: Path,
) -> None:
    names = ["road", "car", "truck", "rider", "motorcycle", "sky"]
    ids = {label.name: label.id for label in CITYSCAPES}
    write_frames(tmp_path, np.array([[ids[name] for name in names] + [255]], np.uint8))
    (tmp_path / "table.yaml").write_text(TABLE)
    found = open_set("folder", tmp_path, "val").in_table(read_label_table(tmp_path / "table.yaml"))
    sample = found.samples[0]
    split = sample.label[0, 3]
    assert sample.label[0].tolist() == [2, 3, 3, split, 5, UNLABELLED, UNLABELLED]
    assert {group.id: group.train_ids for group in sample.groups}[split] == (4, 5)
    assert [label.name for label in found.labels] == ["road", "vehicle", "motorcyclist"]


def test_scores_match_classes_by_name_where_model_and_set_number_them_differently(
    tmp_path: Path,
) -> None:
    model = tiny_lite()
    segmenter = torch_segmenter(model, 64, 96)
    write_frames(tmp_path / "plain", np.zeros((64, 96), np.uint8))
    image = open_set("folder", tmp_path / "plain", "val").samples[0].image
    mask = segmenter.segment(image).mask
    other = [Label(100 - each.id, each.name, each.color) for each in reversed(model.labels)]
    other.append(Label(0, "puddle", (1, 2, 3)))  # the model's id of road
    ids = np.full(256, 255, np.uint8)
    for label in model.labels:
        ids[label.id] = 100 - label.id
    write_frames(tmp_path / "own", ids[mask])
    rows = "".join(f"- {{id: {e.id}, name: {e.name}, color: {list(e.color)}}}\n" for e in other)
    (tmp_path / "own" / "labels.yaml").write_text(rows)
    found = open_set("auto", tmp_path / "own", "val").for_model(model.labels)
    result = evaluate(segmenter, found.samples, found.scored())
    assert result.mean_iou == 1.0
    assert "puddle" in [each.label.name for each in result.classes]


def test_a_table_of_model_and_set_gives_free_ids_to_classes_that_the_model_lacks() -> None:
    model = [Label(0, "road", (0, 0, 0)), Label(1, "lane", (0, 0, 0))]
    table = joined_table(model, CITYSCAPES)
    assert same_ids(table.labels, model)
    assert not same_ids(CITYSCAPES, model)
    assert len({each.id for each in table.labels}) == 20
    assert table == joined_table(table.labels, CITYSCAPES)
    assert LabelTable.of(CITYSCAPES) == joined_table(CITYSCAPES, CITYSCAPES)


def test_protocols_of_cityscapes_refuse_other_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_set(tmp_path, [7, 2])
    for option in (["--protocol", "cityscapes"], ["--write-masks", str(tmp_path / "masks")]):
        with pytest.raises(SystemExit):
            main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *option])
        assert "needs Cityscapes' classes and ids" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_scores_a_set_with_its_own_table(tmp_path: Path) -> None:
    own_set(tmp_path, [7, 2, 3] * 20)
    main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--provider", "cpu"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    names = [each["name"] for each in report["classes"]]
    assert sorted(names) == ["cyclist", "lane", "motorcyclist", "road", "vehicle"]
