"""Every kind of data set on miniatures in the true layouts: content, errors, detection."""

import logging
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import data_trees
import numpy as np
import pytest
from data_trees import MAPPING, OWN_IDS, TREES, Tree, columns, photo, write

from camseg_core.data.sets import SETS, kind_of, open_for_training, open_set
from camseg_core.data.sets.kind import OwnLabels, SetKind
from camseg_core.errors import ConfigError, DataError
from camseg_core.groups import FIRST_GROUP, possible_classes
from camseg_core.labels import (
    CITYSCAPES,
    TRAIN_ID,
    cityscapes_labels,
    index_table,
)

ALL = pytest.mark.parametrize(("kind", "make"), TREES.values(), ids=TREES)
VARIED = ["camvid-32", "cityscapes", "acdc", "kitti-step", "cad-edgetune", "folder", "list"]
"""Sets whose frames may differ in size and whose errors test_data.py does not cover."""


def tree_of(title: str, root: Path) -> tuple[SetKind, Tree]:
    kind, make = TREES[title]
    return SETS[kind], make(root)


@ALL
@pytest.mark.parametrize("auto", [False, True], ids=["named", "found out"])
def test_a_set_yields_rgb_and_train_ids_by_name(
    tmp_path: Path, kind: str, make: Callable[[Path], Tree], auto: bool
) -> None:
    tree = make(tmp_path)
    opened = open_set("auto" if auto else kind, tree.root)
    assert (opened.kind, opened.split, opened.title) == (kind, tree.split, SETS[kind].title)
    samples = list(opened.samples)
    assert [sample.name for sample in samples] == list(tree.frames)
    for sample in samples:
        assert sample.image.shape == (*sample.label.shape, 3)
        assert (sample.image.dtype, sample.label.dtype) == (np.uint8, np.uint8)
        assert sample.image[0, 0, 0] > 150 > 50 > sample.image[0, 0, 2]
        assert (sample.label == np.array(tree.expected)).all()
    assert {each.id for each in opened.labels} >= set(tree.expected) - {255}


@ALL
def test_each_set_is_split_as_its_layout_says(
    tmp_path: Path, kind: str, make: Callable[[Path], Tree]
) -> None:
    tree = make(tmp_path)
    there = SETS[kind].splits(tree.root, OwnLabels())
    assert tree.split in there
    if tree.split == "val":
        assert "train" in there
        train = [sample.name for sample in open_set(kind, tree.root, "train").samples]
        both = [sample.name for sample in open_set(kind, tree.root, "train+val").samples]
        assert both == train + list(tree.frames)


@ALL
def test_files_are_read_when_they_are_asked_for(
    tmp_path: Path, kind: str, make: Callable[[Path], Tree]
) -> None:
    tree = make(tmp_path)
    tree.image(1).write_bytes(b"no image")
    samples = open_set(kind, tree.root).samples
    assert samples[0].name == next(iter(tree.frames))
    with pytest.raises(DataError, match=f"cannot read .*{tree.image(1).name}"):
        samples[1]


@pytest.mark.parametrize(
    ("kind", "make"), [TREES[title] for title in TREES if title != "coco"]
)  # COCO has one file for all
def test_a_missing_label_is_named_with_its_image(
    tmp_path: Path, kind: str, make: Callable[[Path], Tree]
) -> None:
    tree = make(tmp_path)
    tree.label(1).unlink()
    with pytest.raises(DataError) as caught:
        open_set(kind, tree.root)
    assert str(caught.value).startswith(f"missing label {tree.label(1)} of image {tree.image(1)}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "title",
    [title for title in TREES if title not in ("list", "camvid-32 as published", "voc", "coco")],
)
def test_a_label_without_an_image_is_left_out_with_a_warning(
    tmp_path: Path, title: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, tree = tree_of(title, tmp_path)
    tree.image(1).unlink()
    with caplog.at_level(logging.WARNING):
        names = [sample.name for sample in kind.open(tree.root, tree.split)]
    assert names == [name for i, name in enumerate(tree.frames) if i != 1]
    assert caplog.messages == [f"label without an image, left out: {tree.label(1)}"]


@pytest.mark.parametrize("title", VARIED)
def test_a_label_of_another_size_is_refused(tmp_path: Path, title: str) -> None:
    kind, tree = tree_of(title, tmp_path)
    raw = cv2.imread(str(tree.label(0)), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tree.label(0)), raw[1:])
    with pytest.raises(
        DataError, match=rf"{tree.label(0).name} is \d+x5, but .*{tree.image(0).name} is \d+x6"
    ):
        list(kind.open(tree.root, tree.split))


@pytest.mark.parametrize("title", VARIED)
def test_frames_may_differ_in_size(tmp_path: Path, title: str) -> None:
    kind, tree = tree_of(title, tmp_path)
    for path in (tree.image(1), tree.label(1)):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[1:])
    assert [sample.label.shape[0] for sample in kind.open(tree.root, tree.split)][:2] == [6, 5]


@pytest.mark.parametrize(
    "title",
    ["camvid", "camvid as SegNet has it", "cityscapes", "acdc", "cad-edgetune", "folder", "list"],
)
def test_colours_where_ids_are_expected_are_refused(tmp_path: Path, title: str) -> None:
    kind, tree = tree_of(title, tmp_path)
    write(tree.label(0), photo(len(tree.expected)))
    with pytest.raises(
        DataError,
        match=rf"{tree.label(0).name} has 3 channels, like a colour image: "
        "expected .* class ids, ",
    ):
        list(kind.open(tree.root, tree.split))


@pytest.mark.parametrize("title", ["camvid-32", "camvid-32 as published", "kitti-step"])
def test_ids_where_colours_are_expected_are_refused(tmp_path: Path, title: str) -> None:
    kind, tree = tree_of(title, tmp_path)
    write(tree.label(0), columns([0] * len(tree.expected)))
    with pytest.raises(
        DataError, match=rf"{tree.label(0).name} is not an 8-bit colour image: expected"
    ):
        list(kind.open(tree.root, tree.split))


@pytest.mark.parametrize(
    ("title", "unknown", "message"),
    [
        (
            "camvid",
            (12, 30),
            "class ids 12, 30: CamVid with 11 classes has 0 to 10, and 11 for void",
        ),
        (
            "cityscapes",
            (34, 255),
            r"class ids 34, 255: Cityscapes has 0 to 33 "
            r"\(in files of train ids, .* give \*_labelIds.png\)",
        ),
        ("acdc", (255,), "class ids 255: ACDC has 0 to 33"),
        ("cad-edgetune", (99,), "class ids 99: CAD-EdgeTune has 0 to 33"),
        ("folder", (5, 3), "class ids 3, 5: .*mapping.yaml has 0, 1, 2, 9"),
        ("list", (5,), "class ids 5: .*mapping.yaml has 0, 1, 2, 9"),
    ],
)
def test_ids_that_a_set_does_not_have_are_named(
    tmp_path: Path, title: str, unknown: tuple[int, ...], message: str
) -> None:
    kind, tree = tree_of(title, tmp_path)
    write(tree.label(0), columns([*unknown, *[0] * (len(tree.expected) - len(unknown))]))
    with pytest.raises(DataError, match=f"{tree.label(0).name} holds {message}"):
        list(kind.open(tree.root, tree.split))


def test_a_train_id_that_kitti_does_not_have_is_named(tmp_path: Path) -> None:
    kind, tree = tree_of("kitti-step", tmp_path)
    write(tree.label(0), columns([(19, 0, 0)] * 20))
    with pytest.raises(DataError, match="class ids 19: KITTI-STEP has 0 to 18, and 255 for void"):
        list(kind.open(tree.root, "val"))


def test_colours_that_camvid_does_not_have_are_named_the_most_frequent_first(
    tmp_path: Path,
) -> None:
    kind, tree = tree_of("camvid-32", tmp_path)
    write(tree.label(0), columns([(1, 2, 3), (0, 0, 0), *[(9, 8, 7)] * 30]))
    with pytest.raises(
        DataError,
        match=r"holds the colours \(9, 8, 7\), \(1, 2, 3\) in 186 pixels: "
        "CamVid with 32 classes has no such",
    ):
        list(kind.open(tree.root, "val"))


def test_ids_of_sixteen_bits_are_read_or_refused_by_their_value(tmp_path: Path) -> None:
    kind, tree = tree_of("cityscapes", tmp_path)
    cv2.imwrite(str(tree.label(0)), columns(data_trees.LABEL_IDS).astype(np.uint16))
    assert (kind.open(tree.root, "val")[0].label == np.array(tree.expected)).all()
    cv2.imwrite(str(tree.label(0)), columns(data_trees.LABEL_IDS).astype(np.uint16) * 256)
    with pytest.raises(DataError, match="holds class ids 256, 512"):
        kind.open(tree.root, "val")[0]


def test_camvids_classes_mean_what_their_names_say() -> None:
    row = {
        name: row
        for (name, _, _), row in zip(data_trees.CAMVID_32, data_trees.CAMVID_32_ROW, strict=True)
    }
    assert len(row) == 32
    assert (row["Tree"], row["SUVPickupTruck"], row["Child"], row["LaneMkgsDriv"]) == (8, 13, 11, 0)
    assert {name for name, train_id in row.items() if train_id == 255} == {
        *(
            "Animal",
            "Bridge",
            "CartLuggagePram",
            "Misc_Text",
            "OtherMoving",
            "ParkingBlock",
            "RoadShoulder",
            "TrafficCone",
        ),
        *("Truck_Bus", "Tunnel", "Void"),
    }


def test_a_list_of_colours_of_the_set_itself_is_followed(tmp_path: Path) -> None:
    kind, tree = tree_of("camvid-32 as published", tmp_path)
    (tmp_path / "label_colors.txt").write_text("1 2 3 sky\n4 5 6\tRoad\n")
    write(tree.label(0), columns([*[(1, 2, 3)] * 16, *[(4, 5, 6)] * 16]))
    assert set(kind.open(tree.root, "val")[0].label.ravel()) == {TRAIN_ID["sky"], TRAIN_ID["road"]}
    for line, message in (
        ("1 2 300 Sky", "line 1: '1 2 300 Sky' must be a class"),
        ("1 2 3 Cat", "line 1: 'Cat' is not one of CamVid's 32"),
    ):
        (tmp_path / "label_colors.txt").write_text(line)
        with pytest.raises(DataError, match=f"label_colors.txt, {message}"):
            kind.open(tree.root, "val")


def test_the_original_folders_without_lists_are_one_split(tmp_path: Path) -> None:
    kind, tree = tree_of("camvid-32 as published", tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").unlink()
    opened = open_set("auto", tree.root)
    assert (opened.split, len(opened.samples)) == ("all", 4)
    with pytest.raises(
        DataError,
        match=r"no split 'val': cannot read .*val\.txt: .*list the names .* or choose 'all'",
    ):
        kind.open(tree.root, "val")
    (tmp_path / "val.txt").write_text("gone\n")
    with pytest.raises(DataError, match=r"val\.txt lists gone, which has no image"):
        kind.open(tree.root, "val")


@pytest.mark.parametrize("title", ["cityscapes", "acdc"])
def test_a_split_whose_labels_are_withheld_says_so(tmp_path: Path, title: str) -> None:
    kind, tree = tree_of(title, tmp_path)
    for image, _ in tree.frames.values():
        path = Path(str(image).replace("/val/", "/test/"))
        path.parent.mkdir(parents=True)
        image.rename(path)
        break
    if title == "acdc":
        with pytest.raises(
            DataError,
            match=r"no split 'test' in .*rgb_anon/night, which has .*--dataset acdc-WEATHER",
        ):
            kind.open(tree.root, "test")
        kind = SETS["acdc-fog"]
    with pytest.raises(
        DataError,
        match=r"missing label .* no image of this split has a label "
        r"\(those of .* test are withheld",
    ):
        kind.open(tree.root, "test")
    assert "test" not in kind.splits(tree.root, OwnLabels())


def test_acdc_by_weather_and_with_its_reference_frames(tmp_path: Path) -> None:
    tree = data_trees.acdc(tmp_path)
    assert [sample.name for sample in open_set("acdc-night", tree.root).samples] == [
        "GOPR_night_frame_000001",
        "GOPR_night_frame_000002",
    ]
    ref = open_set("acdc", tree.root, "val_ref").samples
    assert (len(ref), len(open_set("acdc", tree.root, "val+val_ref").samples)) == (8, 16)
    assert (ref[7].label == np.array(tree.expected)).all()
    assert SETS["acdc"].splits(tree.root, OwnLabels()) == ("train", "val", "train_ref", "val_ref")


def test_a_sequence_of_cad_edgetune_is_a_split(tmp_path: Path) -> None:
    tree = data_trees.cad_edgetune(tmp_path)
    assert [sample.name for sample in open_set("auto", tree.root, "SEQ10").samples] == [
        "SEQ10/image_SEQ10"
    ]
    with pytest.raises(DataError, match="no split 'val' in .*: choose all, SEQ1, SEQ2, SEQ10"):
        open_set("auto", tree.root, "val")


def test_kittis_images_may_lie_by_split(tmp_path: Path) -> None:
    tree = data_trees.kitti_step(tmp_path)
    for split, sequences in {"train": ("0000",), "val": ("0002", "0006")}.items():
        (tmp_path / "images" / split).mkdir(parents=True)
        for sequence in sequences:
            (tmp_path / "training/image_02" / sequence).rename(
                tmp_path / "images" / split / sequence
            )
    (tmp_path / "kitti-step/panoptic_maps").rename(tmp_path / "panoptic_maps")
    assert [sample.name for sample in open_set("auto", tree.root).samples] == list(tree.frames)


def test_a_folder_in_two_roots_and_in_splits(tmp_path: Path) -> None:
    tree = data_trees.folder(tmp_path / "one")
    own = OwnLabels(tree.root / "labels", tree.root / "mapping.yaml")
    found = open_set("auto", tree.root / "images", own=own)
    assert (found.kind, [sample.name for sample in found.samples]) == ("folder", list(tree.frames))
    for kind in ("images", "labels"):
        (tree.root / kind).rename(tree.root / "val")
        (tree.root / kind).mkdir()
        (tree.root / "val").rename(tree.root / kind / "val")
    found = open_set("auto", tree.root)
    assert (found.split, len(found.samples), len(open_set("folder", tree.root, "val").samples)) == (
        "val",
        2,
        2,
    )
    with pytest.raises(
        DataError, match="no split 'train' in .*: .* is missing; expected in ROOT images/NAME"
    ):
        open_set("auto", tree.root, "train")


def test_a_folder_without_a_mapping_holds_train_ids_and_must_be_named(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", photo(20))
    write(tmp_path / "labels/a.png", columns(data_trees.TRAIN_IDS))
    with pytest.raises(
        DataError,
        match=r"what the labels in .* hold must be stated: write .*/mapping.yaml; if they hold "
        "Cityscapes train ids, add --dataset folder; if CamVid's 11 classes, --dataset camvid",
    ):
        open_set("auto", tmp_path)
    found = open_set("folder", tmp_path)
    assert found.labels == CITYSCAPES
    assert found.samples[0].label[0].tolist() == list(data_trees.TRAIN_IDS)
    write(tmp_path / "labels/a.png", columns([19] * 20))
    with pytest.raises(
        DataError,
        match="holds class ids 19: a set of Cityscapes train ids has 0 to 18, and 255 "
        ".*--mapping FILE",
    ):
        list(open_set("folder", tmp_path).samples)


@pytest.mark.parametrize("name", ["0001TP_006690", "0006R0_f00930", "0016E5_00901", "Seq05VD_f0"])
def test_camvid_is_recognised_by_the_names_of_its_frames(tmp_path: Path, name: str) -> None:
    for split in ("train", "val"):
        write(tmp_path / split / f"images/{name}.png", photo(12))
        write(tmp_path / split / f"labels/{name}.png", columns(range(12)))
    assert open_set("auto", tmp_path).kind == "camvid"
    write(tmp_path / "train/images/frame_7.png", photo(12))
    write(tmp_path / "train/labels/frame_7.png", columns(range(12)))
    with pytest.raises(DataError, match=r"what the labels in .* hold must be stated"):
        open_set("auto", tmp_path)
    assert open_set("camvid", tmp_path, "train").samples[0].label[0].tolist() == [
        *data_trees.CAMVID_11_ROW
    ]
    (tmp_path / "mapping.yaml").write_text("ids: {road: [0]}\nothers: unlabelled\n")
    assert open_set("auto", tmp_path).kind == "folder"


@pytest.mark.parametrize(("ids", "hint"), [((0, 13, 255), True), ((0, 13, 40), False)])
def test_train_ids_that_are_read_as_camvids_say_how_to_read_them(
    tmp_path: Path, ids: tuple[int, ...], hint: bool
) -> None:
    write(tmp_path / "val/images/a.png", photo(3))
    write(tmp_path / "val/labels/a.png", columns(ids))
    with pytest.raises(DataError, match=r"CamVid with 11 classes has 0 to 10, and 11") as caught:
        list(open_set("camvid", tmp_path).samples)
    expected = "; if these are Cityscapes train ids, give --dataset folder"
    assert str(caught.value).endswith(expected) == hint


def test_a_mapping_of_colours_and_of_all_others(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", photo(3))
    write(tmp_path / "labels/a.png", columns([(1, 2, 3), (4, 5, 6), (7, 8, 9)]))
    mapping = tmp_path / "meaning.yaml"
    mapping.write_text(
        "colors: {sky: [[1, 2, 3]], traffic light: [[4, 5, 6]]}\nothers: unlabelled\n"
    )
    found = open_set("auto", tmp_path, own=OwnLabels(mapping=mapping))
    assert found.labels == cityscapes_labels([TRAIN_ID["traffic light"], TRAIN_ID["sky"]])
    assert found.samples[0].label[0].tolist() == [10, 6, 255]


def test_labels_may_stand_for_one_of_several_classes(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", photo(5))
    write(tmp_path / "labels/a.png", columns([0, 1, 2, 6, 255]))
    (tmp_path / "mapping.yaml").write_text(
        "ids: {road: [0], sky: [6], unlabelled: [255]}\n"
        "groups:\n- {classes: [rider, person], ids: [2]}\n- {classes: [car, bus], ids: [1, 3]}\n"
    )
    found = open_set("auto", tmp_path)
    assert found.labels == cityscapes_labels([TRAIN_ID["road"], TRAIN_ID["sky"]])
    person, car = found.groups
    assert (person.name, person.train_ids) == ("rider or person", (11, 12))
    assert (car.name, car.train_ids) == ("car or bus", (13, 15))
    sample = found.samples[0]
    assert sample.groups == found.groups
    assert sample.label[0].tolist() == [0, car.id, person.id, 10, 255]
    possible = possible_classes(CITYSCAPES, sample.groups)[sample.label[0]]
    assert [np.flatnonzero(row).tolist() for row in possible] == [[0], [13, 15], [11, 12], [10], []]
    unaware = index_table(CITYSCAPES)[sample.label[0]]
    assert unaware.tolist() == [0, 255, 255, 10, 255]


def test_groups_may_be_colours(tmp_path: Path) -> None:
    write(tmp_path / "images/a.png", photo(2))
    write(tmp_path / "labels/a.png", columns([(1, 2, 3), (4, 5, 6)]))
    (tmp_path / "mapping.yaml").write_text(
        "colors: {sky: [[1, 2, 3]]}\ngroups: [{classes: [car, bus], colors: [[4, 5, 6]]}]\n"
    )
    assert open_set("auto", tmp_path).samples[0].label[0].tolist() == [10, FIRST_GROUP]


@pytest.mark.parametrize(("stretch", "width"), [(2, 40), (0.5, 10), (1.333, 27)])
def test_frames_with_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, stretch: float, width: int
) -> None:
    image = photo(20)
    image[:, 10:] = 0
    write(tmp_path / "images/a.png", image)
    write(tmp_path / "labels/a.png", columns([0] * 10 + [13] * 10))
    (tmp_path / "mapping.yaml").write_text(f"stretch: {stretch}\n")
    found = open_set("auto", tmp_path)
    assert found.labels == CITYSCAPES
    sample = found.samples[0]
    assert sample.image.shape == (6, width, 3)
    assert sample.label.shape == (6, width)
    assert set(np.unique(sample.label)) == {0, 13}
    half = width // 2
    assert (sample.label[:, :half] == 0).all()
    assert (sample.label[:, half + 1 :] == 13).all()
    assert (sample.image[:, : half - 1, 0] > 150).all()
    assert (sample.image[:, half + 2 :] < 50).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ids: {road: [1]}\ncolors: {road: [[1, 2, 3]]}",
            "a mapping must have either ids: or colors:",
        ),
        ("others: refused", "a mapping must have either ids: or colors:"),
        ("ids: {lane: [1]}", "unknown class 'lane': choose from road, sidewalk, .*, unlabelled"),
        ("ids: {road: [1], car: [1]}", "1 is listed for road and for car"),
        ("ids: {road: [-1]}", "values of road must be 0 to 65535, got -1"),
        (
            "colors: {road: [[1, 2, 256]]}",
            r"values of road must be 0 to 255, got the colour \(1, 2, 256\)",
        ),
        (
            "ids: {road: [1]}\ngroups: [{classes: [car, bus], ids: [1]}]",
            "1 is listed for road and for car or bus",
        ),
        (
            "ids: {road: [1]}\ngroups: [{classes: [car, lorry], ids: [2]}]",
            "unknown class 'lorry' in a group: choose from road",
        ),
        (
            "ids: {road: [1]}\ngroups: [{classes: [car, car], ids: [2]}]",
            r"a group must have at least two classes, got \['car', 'car'\]",
        ),
        (
            "ids: {road: [1]}\ngroups: [{classes: [car, bus], colors: [[1, 2, 3]]}]",
            "the group car or bus must have ids:, as the classes have",
        ),
        ("ids: {road: [1]}\nstretch: 0", "stretch must be above 0, got 0"),
        ("ids: {road: [1]}\nstretch: 1e300", "stretch must be <= 16, got 1e"),
        ("stretch: 1", "a mapping must have either ids: or colors:"),
        ("ids: {road: 1}", "ids.road must be a list, got 1"),
        ("classes: {}", "unknown entries classes"),
        ("ids: [", "is not a configuration in YAML"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    tree = data_trees.folder(tmp_path)
    (tmp_path / "mapping.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"mapping.yaml.*{message}") as caught:
        open_set("folder", tree.root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "frames.txt lists nothing"),
        ("# nothing\n", "frames.txt lists nothing"),
        ("a.png\n", "frames.txt, line 1 has 1 words: expected IMAGE LABEL"),
        ("\nmy drive/a.png a.png", "line 2 has 3 words: .* quote a path with spaces"),
        ('"a.png b.png', "line 1: No closing quotation"),
        (
            "somewhere/one.png else/one-ids.png\nsomewhere/one.png else/one-ids.png\n",
            "lists .*one.png 2 times",
        ),
        (
            "somewhere/one.png else/gone.png",
            "missing label .*gone.png of image .*one.png: .*frames.txt lists it",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    tree = data_trees.list_file(tmp_path)
    tree.root.write_text(text)
    with pytest.raises(DataError, match=message):
        open_set("auto", tree.root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/../images/a.png labels/b.png", r"lists .*images/a.png 2 times: list it once"),
        (
            "images/b.png labels/../labels/a.png",
            r"gives .*images/a.png and .*images/b.png the same label .*a.png: list for each image",
        ),
    ],
)
def test_a_list_that_repeats_an_image_or_a_label_is_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    for name in "ab":
        write(tmp_path / f"images/{name}.png", photo(3))
        write(tmp_path / f"labels/{name}.png", columns([0, 1, 2]))
    (tmp_path / "val.txt").write_text(f"images/a.png labels/a.png\n{line}\n")
    with pytest.raises(DataError, match=message):
        open_set("list", tmp_path)


def test_lists_of_several_splits_are_a_folder(tmp_path: Path) -> None:
    tree = data_trees.list_file(tmp_path)
    with pytest.raises(DataError, match="no split 'val' in .*: a list has one split, 'all'"):
        open_set("list", tree.root, "val")
    tree.root.rename(tmp_path / "val.txt")
    assert len(open_set("list", tmp_path).samples) == 2
    with pytest.raises(DataError, match=r"no split 'train' in .*train\.txt is missing"):
        open_set("list", tmp_path, "train")


@pytest.mark.parametrize(
    ("there", "default"),
    [
        (("train", "val", "test"), "val"),
        (("train", "test"), "test"),
        (("test",), "test"),
        (("train",), None),
    ],
)
def test_a_model_is_never_evaluated_on_train_unless_it_is_named(
    tmp_path: Path, there: tuple[str, ...], default: str | None
) -> None:
    tree = data_trees.list_file(tmp_path)
    for name in there:
        shutil.copy(tree.root, tmp_path / f"{name}.txt")
    tree.root.unlink()
    if default is not None:
        assert open_set("list", tmp_path).split == default
    else:
        with pytest.raises(DataError, match="no split val: name one with --split; it has train"):
            open_set("list", tmp_path)
    assert open_set("list", tmp_path, there[0]).split == there[0]


@pytest.mark.parametrize(
    "title",
    ["camvid", "camvid-32", "cityscapes", "acdc", "kitti-step", "cad-edgetune", "folder", "list"],
)
def test_an_empty_root_is_an_error_with_the_expected_layout(tmp_path: Path, title: str) -> None:
    with pytest.raises(DataError, match=f"no split 'other' in {tmp_path}") as caught:
        open_set(TREES[title][0], tmp_path, "other")
    assert "expected " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        DataError,
        match="no split 'val' in .*, which has pictures: looked for camvid, .*, cityscapes, .*; "
        "camseg data list has their layouts",
    ):
        open_set("auto", tmp_path)
    with pytest.raises(
        DataError, match="no split 'train' in .*, which is not a folder: name the folder of a data"
    ):
        open_set("auto", tmp_path / "gone", "train")


def test_two_layouts_in_one_root_are_an_error(tmp_path: Path) -> None:
    data_trees.cityscapes(tmp_path)
    data_trees.acdc(tmp_path)
    with pytest.raises(
        DataError, match="has the layouts of cityscapes and acdc: choose one with --dataset"
    ):
        kind_of("auto", tmp_path)
    assert len(open_set("acdc", tmp_path).samples) == 8


def test_unknown_kinds_and_meanings_where_none_are_needed_are_refused(tmp_path: Path) -> None:
    data_trees.cityscapes(tmp_path)
    with pytest.raises(
        ConfigError,
        match="data set must be one of camvid, camvid-32, cityscapes, acdc, .*, got 'kitti'",
    ):
        open_set("kitti", tmp_path)
    with pytest.raises(ConfigError, match="the labels of Cityscapes are known: --mapping"):
        open_set("cityscapes", tmp_path, own=OwnLabels(mapping=tmp_path / "mapping.yaml"))


@pytest.mark.parametrize("mapping", [MAPPING, None])
def test_a_list_beside_a_mapping_is_recognised(tmp_path: Path, mapping: str | None) -> None:
    tree = data_trees.list_file(tmp_path)
    tree.root.rename(tmp_path / "val.txt")
    if mapping is None:
        (tmp_path / "mapping.yaml").unlink()
    assert kind_of("auto", tmp_path) == "list"
    own = OwnLabels(mapping=tmp_path / "other.yaml")
    own.mapping.write_text(MAPPING)  # type: ignore[union-attr]
    opened = open_set("auto", tmp_path, own=own)
    assert (opened.kind, opened.split, len(opened.samples)) == ("list", "val", 2)


def test_a_folder_with_lists_of_names_stays_a_folder(tmp_path: Path) -> None:
    data_trees.folder(tmp_path)
    (tmp_path / "val.txt").write_text("a\ndrive/b\n")
    assert kind_of("auto", tmp_path) == "folder"
    (tmp_path / "val.txt").write_text("images/a.jpg labels/a.png\n")
    with pytest.raises(DataError, match="has the layouts of folder and list: choose one with --d"):
        kind_of("auto", tmp_path)


@pytest.mark.parametrize("layout", ["images", "val/images", "frames.txt", "val.txt", "nothing"])
@pytest.mark.parametrize("kind", ["auto", "folder", "list"])
def test_an_error_in_a_mapping_is_reported_before_any_about_the_layout(
    tmp_path: Path, layout: str, kind: str
) -> None:
    (tmp_path / "mapping.yaml").write_text("ids: {rod: [1]}")
    path = tmp_path / layout
    if path.suffix:
        path.write_text("a.png b.png")
    else:
        path.mkdir(parents=True)
    root = path if layout == "frames.txt" and kind != "folder" else tmp_path
    with pytest.raises(ConfigError, match=r"mapping\.yaml.*unknown class 'rod'"):
        open_set(kind, root)


@pytest.mark.parametrize(
    ("image", "label"), [("_image", "_label"), ("", "_label"), ("-rgb", ""), (".left", ".gt")]
)
def test_names_may_have_suffixes_that_the_mapping_states(
    tmp_path: Path, image: str, label: str
) -> None:
    for name in ("0001", "0002", "drive/0003"):
        write(tmp_path / f"images/{name}{image}.jpg", photo(4))
        write(tmp_path / f"labels/{name}{label}.png", columns(OWN_IDS))
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    stated = f"image_suffix: '{image}' and label_suffix: '{label}'"
    with pytest.raises(DataError, match=re.escape(f"state {stated} in mapping.yaml")):
        open_set("auto", tmp_path)
    (tmp_path / "mapping.yaml").write_text(MAPPING + stated.replace(" and ", "\n"))
    assert [each.name for each in open_set("auto", tmp_path).samples] == [
        "0001",
        "0002",
        "drive/0003",
    ]
    (tmp_path / "mapping.yaml").write_text(stated.replace(" and ", "\n"))  # ids of Cityscapes
    assert len(open_set("auto", tmp_path).samples) == 3


def test_labels_that_belong_to_other_images_are_no_suffix(tmp_path: Path) -> None:
    write(tmp_path / "images/0001.jpg", photo(4))
    write(tmp_path / "labels/0002.png", columns(OWN_IDS))
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    with pytest.raises(DataError, match=r"^missing label .*0001\.png"):
        open_set("auto", tmp_path)


def test_the_frames_held_out_are_the_last_by_name_in_any_order_of_a_list(tmp_path: Path) -> None:
    names = [f"frame_{number}" for number in range(1, 21)]
    for name in names:
        write(tmp_path / "images" / f"{name}.png", photo(4))
        write(tmp_path / "labels" / f"{name}.png", columns((0, 1, 2, 255)))
    np.random.default_rng(0).shuffle(names)
    text = "".join(f"images/{name}.png labels/{name}.png\n" for name in names)
    (tmp_path / "all.txt").write_text(text)
    for kind, root in (("list", tmp_path / "all.txt"), ("folder", tmp_path)):
        train, val = (open_for_training(kind, root, split) for split in ("train", "val"))
        held_out = {int(pair.image.stem.rpartition("_")[2]) for pair in val.pairs}
        assert held_out == {17, 18, 19, 20}
        assert len(train.samples) == 16
        listed = [pair.image.stem for pair in train.pairs]
        if kind == "list":
            assert listed == [name for name in names if name in listed]


@ALL
def test_a_link_to_itself_ends_in_no_traceback(
    tmp_path: Path, kind: str, make: Callable[[Path], Tree]
) -> None:
    tree = make(tmp_path)
    folders = {path.parent for path in tmp_path.rglob("*") if path.is_file()}
    for folder in folders:
        for name in ("loop.png", "loop.json", "loop"):
            (folder / name).symlink_to(name)
    with suppress(DataError):  # a traceback would be another error
        samples = list(open_set(kind, tree.root).samples)
        assert [sample.name for sample in samples] == list(tree.frames)


def test_annot_folders_of_other_frames_are_not_taken_for_camvids(tmp_path: Path) -> None:
    write(tmp_path / "val/frame0.png", photo(3))
    write(tmp_path / "valannot/frame0.png", columns([0, 1, 2]))
    with pytest.raises(DataError, match="no split 'val' in .*: looked for"):
        open_set("auto", tmp_path)
    assert open_set("camvid", tmp_path).labels  # whoever says so knows


@pytest.mark.parametrize("split", ["val+val", "train+val+train"])
def test_a_split_named_twice_is_refused(tmp_path: Path, split: str) -> None:
    tree = data_trees.camvid(tmp_path)
    with pytest.raises(DataError, match="would count twice: name each split once"):
        open_set("camvid", tree.root, split)
    assert len(open_set("camvid", tree.root, "train+val").samples) == 4
    shutil.rmtree(tree.root / "train")
    (tree.root / "train").symlink_to(tree.root / "val")
    with pytest.raises(DataError, match="would count twice"):
        open_set("camvid", tree.root, "train+val")


@pytest.mark.parametrize(
    "lines",
    [
        "\ufeff0016E5_00002.png\r\n701_StillsRaw_full\\0016E5_00003.png\r\n",
        "701_StillsRaw_full/0016E5_00002.png\n0016E5_00003\n",
    ],
    ids=["of Windows", "with folders"],
)
def test_camvids_list_may_be_written_anywhere(tmp_path: Path, lines: str) -> None:
    tree = data_trees.camvid_32_original(tmp_path)
    (tmp_path / "val.txt").write_text(lines, encoding="utf-8", newline="")
    assert [each.name for each in open_set("auto", tmp_path).samples] == list(tree.frames)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0016E5_00002\n0016E5_00002\n", r"val\.txt lists 0016E5_00002 2 times: list it once"),
        ("Stra\xdfe\n".encode("latin-1"), r"no split 'val': cannot read the list .*val\.txt"),
    ],
)
def test_a_wrong_list_of_camvid_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    data_trees.camvid_32_original(tmp_path)
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_set("camvid-32", tmp_path, "val")


def test_a_colour_of_two_camvid_classes_is_refused(tmp_path: Path) -> None:
    data_trees.camvid_32_original(tmp_path)
    (tmp_path / "label_colors.txt").write_text("64 0 128 Road\n64 0 128 Car\n")
    with pytest.raises(DataError, match=r"line 2: the colour .* is that of road, too"):
        open_set("camvid-32", tmp_path, "val")


def test_sequences_of_kitti_without_maps_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = data_trees.kitti_step(tmp_path)
    write(tmp_path / "training/image_02/0099/000000.png", photo(3))
    opened = open_set("auto", tmp_path)
    assert len(opened.samples) == len(tree.frames)
    assert "0099 holds 000000.png, which no split contains" in caplog.text


def test_images_outside_of_the_splits_are_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("val/a", "stray"):
        write(tmp_path / f"images/{name}.png", photo(3))
    write(tmp_path / "labels/val/a.png", columns([0, 1, 2]))
    assert len(open_set("folder", tmp_path, "val").samples) == 1
    (warning,) = [each for each in caplog.records if "stray.png" in each.getMessage()]
    assert warning.levelno == logging.WARNING


def test_an_image_without_annotation_does_not_get_another_ones(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path)
    write(tmp_path / "0003.001.png", photo(4))
    with pytest.raises(DataError, match=r"missing label .*/0003\.001\.json of image"):
        open_set("auto", tmp_path)
    (tmp_path / "0003.001.png").rename(tmp_path / "0003.png")
    with pytest.raises(
        DataError, match=r"0003\.json is of .*0003\.jpg, so that .*0003\.png has no"
    ):
        open_set("auto", tmp_path)


@pytest.mark.parametrize("split", ["", "val/"])
def test_labels_elsewhere_belong_to_the_folder_of_images_too(tmp_path: Path, split: str) -> None:
    write(tmp_path / f"data/images/{split}a.png", photo(3))
    write(tmp_path / f"data/masks/{split}a.png", columns([0, 1, 2]))
    own = OwnLabels(root=tmp_path / "data/masks")
    opened = open_set("folder", tmp_path / "data", None, own)
    assert [each.name for each in opened.samples] == ["a"]
    assert SETS["folder"].outside(tmp_path / "data", own) == []
