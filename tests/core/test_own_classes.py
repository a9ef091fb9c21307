"""Class tables of your own, and data sets renumbered to another table by name."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from lite import tiny_lite, torch_segmenter

from camseg_core.cli.main import main
from camseg_core.data import Sample, Samples
from camseg_core.data.label_table import (
    LabelTable,
    OwnClass,
    is_cityscapes,
    read_label_table,
    related,
)
from camseg_core.data.sets import LabelledSet, open_set
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.evaluation.report.robustness import write_robustness
from camseg_core.evaluation.robustness import run_suite
from camseg_core.evaluation.robustness_suite import selected
from camseg_core.groups import FIRST_GROUP
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label, read_labels, write_labels
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.training.start import check_origins

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
    found = open_set("auto", tmp_path / "own", "val")
    shared = found.scored_by({"tiny": model.labels})
    assert shared.lines == ["not scored, missing in tiny: puddle"]
    result = evaluate(segmenter, found.samples, shared.scored[0])
    assert result.mean_iou == 1.0
    assert {each.label for each in result.classes} == {*model.labels}


def own(name: str, was: tuple[str, ...] | None = None, id: int = 0) -> OwnClass:
    return OwnClass(id, name, (0, 0, 0), was)


def related_names(old: Sequence[OwnClass], new: Sequence[OwnClass]) -> dict[str, list[str]]:
    before, after = (LabelTable(tuple(each)).labels for each in (old, new))
    found = zip(after, related(before, after), strict=True)
    return {label.name: [before[place].name for place in places] for label, places in found}


def test_classes_are_related_by_their_origins_regardless_of_ids_and_spelling() -> None:
    plain = [own("road", id=0), own("car", id=1), own("truck", id=2), own("traffic light", id=3)]
    new = [
        own("Vehicle", ("Truck", "car"), 1),
        own("Traffic_Light", id=0),
        own("lane", ("road",), 4),
        own("verge", ("road",), 5),
        own("cone", (), 6),
    ]
    assert related_names(plain, new) == {
        "Vehicle": ["truck", "car"],
        "Traffic_Light": ["traffic light"],
        "lane": ["road"],
        "verge": ["road"],
        "cone": [],
    }
    assert related_names(new, plain) == {
        "road": ["lane", "verge"],
        "car": ["Vehicle"],
        "truck": ["Vehicle"],
        "traffic light": ["Traffic_Light"],
    }


def test_stating_the_origin_that_a_class_has_anyway_changes_nothing() -> None:
    police = own("police car", ("car",), 1)
    of_name, stated = (LabelTable((own("car", was), police)).labels for was in (None, ("car",)))
    for parts in (of_name, stated):
        found = dict(
            zip((each.name for each in CITYSCAPES), related(parts, CITYSCAPES), strict=True)
        )
        assert found["car"] == (0, 1)
        assert related(CITYSCAPES, parts) == ((13,), (13,))


def test_a_class_with_the_same_origins_is_the_same_in_a_model_tuned_with_that_table() -> None:
    table = [own("car", ("van",), 0), own("vehicle", ("car", "truck"), 1), own("cone", (), 2)]
    assert related_names(table, table) == {"car": ["car"], "vehicle": ["vehicle"], "cone": ["cone"]}
    # without origins, a class comes from that of its name
    plain = [own("cone", id=4), own("vehicle", id=5)]
    assert related_names(table, plain) == {"cone": ["cone"], "vehicle": ["vehicle"]}
    assert related_names(plain, table) == {"car": [], "vehicle": ["vehicle"], "cone": []}


def test_a_class_whose_origins_change_is_still_itself() -> None:
    old = [own("road"), own("vehicle", ("car", "truck"), 1), own("bus", id=2)]
    more = [own("road"), own("vehicle", ("car", "truck", "bus"), 1)]
    assert related_names(old, more) == {"road": ["road"], "vehicle": ["vehicle", "bus"]}
    other = [own("road"), own("motor", ("car", "truck", "bus"), 1)]
    assert related_names(old, other)["motor"] == ["bus", "vehicle"]
    overlapping = [own("light", ("car",), 0), own("heavy", ("truck", "bus"), 1)]
    assert related_names(old, overlapping) == {"light": ["vehicle"], "heavy": ["bus", "vehicle"]}
    # one that states origins comes from these alone
    assert related_names([own("car"), own("van", id=1)], [own("car", ("van",))]) == {"car": ["van"]}


@pytest.mark.parametrize(
    "table",
    [
        [own("road"), own("cone", ("pole",), 1), own("pole", (), 2)],
        [own("lorry", ("truck",)), own("truck", (), 1)],
        [own("vehicle", ("car", "truck")), own("car", (), 1)],
    ],
)
def test_a_table_without_origins_means_the_classes_of_its_names(table: list[OwnClass]) -> None:
    plain = [own(each.name, id=each.id) for each in table]
    alone = {each.name: [each.name] for each in table}
    assert related_names(table, plain) == alone
    assert related_names(table, table) == alone


def test_classes_that_a_model_made_anew_are_not_those_of_cityscapes() -> None:
    model = LabelTable((own("train", (), 0), own("lorry", ("truck",), 1), own("sky", id=2)))
    found = dict(zip(CITYSCAPES, related(model.labels, CITYSCAPES), strict=True))
    assert {label.name: places for label, places in found.items() if places} == {
        "truck": (1,),
        "sky": (2,),
    }
    back = dict(zip(model.labels, related(CITYSCAPES, model.labels), strict=True))
    names = {new.name: [CITYSCAPES[i].name for i in places] for new, places in back.items()}
    assert names == {"train": [], "lorry": ["truck"], "sky": ["sky"]}


def test_a_merged_class_with_the_id_of_cityscapes_is_no_class_of_cityscapes(
    tmp_path: Path,
) -> None:
    merged = Label(13, "car", (0, 0, 142), was=("car", "truck", "bus"))
    assert is_cityscapes([Label(0, "road", (1, 1, 1)), Label(13, "car", (1, 1, 1), was=("car",))])
    assert not is_cityscapes([merged])
    write_labels(tmp_path / "labels.json", [merged])
    assert json.loads((tmp_path / "labels.json").read_text())["label_set"] == "own"
    table = LabelTable.of([merged])
    found = dict(zip(CITYSCAPES, related(table.labels, CITYSCAPES), strict=True))
    assert [label.name for label, places in found.items() if places] == ["car", "truck", "bus"]


def test_origins_may_be_those_of_the_model_that_the_start_was_tuned_from() -> None:
    table = LabelTable((own("heavy vehicle", ("lorry",)),))
    check_origins(table, table.labels, CITYSCAPES, table.labels)
    with pytest.raises(ConfigError, match="got 'lorry'"):
        check_origins(table, CITYSCAPES, table.labels)


def test_a_model_keeps_the_origins_of_its_classes(tmp_path: Path) -> None:
    labels = LabelTable((own("vehicle", ("car", "truck"), 0), own("cone", (), 1), own("x", id=2)))
    write_labels(tmp_path / "labels.json", labels.labels)
    read = read_labels(tmp_path / "labels.json")
    assert [each.was for each in read] == [("car", "truck"), (), None]
    assert LabelTable.of(read) == labels


def test_a_set_says_what_its_classes_are_in_a_model_without_its_table(tmp_path: Path) -> None:
    write_frames(tmp_path, np.array([[0, 1, 2, 255]], np.uint8))
    (tmp_path / "labels.yaml").write_text(
        "- {id: 0, name: lane, color: [1, 1, 1], was: [road]}\n"
        "- {id: 1, name: vehicle, color: [2, 2, 2], was: [car, truck]}\n"
        "- {id: 2, name: bus, color: [3, 3, 3], was: []}\n"
    )
    found = open_set("auto", tmp_path, "val").in_table(LabelTable.of(CITYSCAPES))
    sample = found.samples[0]
    assert sample.label[0].tolist() == [0, FIRST_GROUP, UNLABELLED, UNLABELLED]
    assert [group.name for group in sample.groups] == ["car or truck"]


@pytest.mark.parametrize("command", ["evaluate", "robustness"])
def test_classes_that_a_set_renames_or_merges_are_scored_and_others_are_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = np.repeat(np.array([[0, 1, 2, 3, 255]], np.uint8), 64, axis=0).repeat(16, axis=1)
    write_frames(tmp_path, ids)
    (tmp_path / "labels.yaml").write_text(
        "- {id: 0, name: lane, color: [1, 1, 1], was: [road]}\n"
        "- {id: 1, name: vehicle, color: [2, 2, 2], was: [car, truck]}\n"
        "- {id: 2, name: cone, color: [3, 3, 3], was: []}\n"
        "- {id: 3, name: Traffic_Light, color: [4, 4, 4]}\n"
    )
    more = ["--only", "weather/fog"] if command == "robustness" else []
    main([command, "--data", str(tmp_path), "--out", str(tmp_path / "out"), *more])
    text = capsys.readouterr().out
    assert "not scored, missing in camseg-lite: cone" in text
    assert "classes counted as one: vehicle (car + truck)" in text
    name = {"evaluate": "report.json", "robustness": "robustness.json"}[command]
    report = json.loads((tmp_path / "out" / name).read_text())
    assert report["about"]["labels"] == "not scored, missing in camseg-lite: cone"
    classes = [each["name"] if isinstance(each, dict) else each for each in report["classes"]]
    assert classes == ["lane", "vehicle", "Traffic_Light"]
    if command == "evaluate":
        assert report["counted_as"]["not_scored"] == {"cone": 64 * 16}


def test_groups_of_another_file_do_not_count_what_is_wider_than_they_are(tmp_path: Path) -> None:
    write_frames(tmp_path / "set", np.array([[0, 1, 2]], np.uint8))
    (tmp_path / "set/labels.yaml").write_text(
        "- {id: 0, name: lane, color: [1, 1, 1], was: [road]}\n"
        "- {id: 1, name: vehicle, color: [2, 2, 2], was: [car, truck]}\n"
        "- {id: 2, name: coach, color: [3, 3, 3], was: [bus]}\n"
    )
    found = open_set("auto", tmp_path / "set", "val")
    groups = tmp_path / "groups.yaml"
    for members, scored in (("[car, bus]", [0, 2, 1]), ("[car, truck, bus]", [0, 1, 1])):
        groups.write_text(f"ids: {{road: [0]}}\ngroups:\n  - {{classes: {members}, ids: [1]}}\n")
        (labels,) = found.scored_by({"model": CITYSCAPES}, groups).scored
        assert len(labels.labels) == 2
        assert labels.truth_of(np.array([[0, 1, 2]], np.uint8))[0].tolist() == scored
        assert labels.classes[0] == (0,)
        assert len(labels.classes[1]) == members.count(",") + 1


def test_the_robustness_page_draws_classes_that_no_label_stands_for(tmp_path: Path) -> None:
    labels = (Label(0, "road", (1, 1, 1)), Label(1, "sky", (2, 2, 2)), Label(2, "cone", (9, 9, 0)))

    class Painted:
        def __init__(self) -> None:
            self.labels = labels

        def segment(self, rgb: np.ndarray) -> Segmentation:
            mask = np.full(rgb.shape[:2], 2, np.uint8)
            return Segmentation(mask, np.ones(mask.shape, np.float32), {})

    sample = Sample(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8), "a")
    suite = selected(["paper/hue"])
    found = run_suite({"m": Painted()}, Given([sample]), labels[:2], suite)
    page = write_robustness(found, tmp_path).read_text()
    assert "cone" in page
    assert "building" not in page


def test_weather_without_a_class_of_the_drive_is_refused_before_the_work(tmp_path: Path) -> None:
    labels = (Label(0, "crop", (1, 1, 1)), Label(1, "weed", (2, 2, 2)))
    sample = Sample(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8), "a")
    with pytest.raises(DataError, match=r"none of the classes to score \(crop, weed\)"):
        run_suite({"m": Forbidden()}, Given([sample]), labels, table=LabelTable.of(labels))


class Forbidden:
    def segment(self, rgb: np.ndarray) -> Segmentation:
        raise AssertionError("the work has begun")


class Given(Samples):
    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


def test_a_set_without_any_class_of_the_model_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path, np.zeros((64, 64), np.uint8))
    (tmp_path / "labels.yaml").write_text("- {id: 0, name: cone, color: [1, 1, 1]}\n")
    with pytest.raises(SystemExit):
        main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert "camseg-lite must share a class with the labels (cone)" in error
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([(0, "car"), (1, "Car")], "each name must be given once, got 'car' and 'Car'"),
        ([(0, "traffic light"), (1, "traffic_light")], "'traffic light' and 'traffic_light'"),
        ([(0, "caf\u00e9"), (1, "cafe\u0301")], "each name must be given once"),
        ([(0, "car "), (1, "road")], "name must not begin or end with a blank, got 'car '"),
        ([(0, "unlabelled"), (1, "road")], "name must not be unlabelled"),
        ([(0, "Unlabeled"), (1, "road")], "name must not be Unlabeled"),
        ([(0, "road: wet"), (1, "road")], "name must be one line without ':'"),
        ([(0, "#1 lane"), (1, "road")], "name must be one line without ':'"),
        ([(0, "car"), (0, "road")], "each id must be given once, got 0 for car and road"),
    ],
)
def test_class_tables_with_names_that_cannot_be_told_apart_are_refused(
    rows: list[tuple[int, str]], error: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.yaml"
    lines = (f'- {{id: {id}, name: "{name}", color: [1, 2, 3]}}\n' for id, name in rows)
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(str(path))) as caught:
        read_label_table(path)
    assert error in str(caught.value)


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
    assert sorted(names) == ["cyclist or motorcyclist", "road", "vehicle"]
    assert report["about"]["labels"] == (
        "not scored, missing in camseg-lite: lane; cyclist and motorcyclist count as one class"
    )
    assert report["counted_as"]["not_scored"] == {"lane": 80}
