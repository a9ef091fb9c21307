"""Exports of annotation tools: what they hold is drawn as the tools do, or refused in one line."""

import base64
import io
import json
import logging
import re
import shutil
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import data_trees
import numpy as np
import pytest
from data_trees import HEIGHT, TREES, box, columns, photo, write
from PIL import Image, ImageDraw

from camseg_core.cli.main import main
from camseg_core.data.drawing import Polygon
from camseg_core.data.sets import SETS, kind_of, open_for_training, open_set
from camseg_core.data.sets.kind import OwnLabels
from camseg_core.data.sets.voc import write_voc_zip
from camseg_core.errors import ConfigError, DataError
from camseg_core.groups import FIRST_GROUP
from camseg_core.labels import CITYSCAPES, Label

TOOLS = pytest.mark.parametrize("title", ["voc", "coco", "labelme"])
SQUARE = [[1, 1], [3, 1], [3, 4], [1, 4]]


def labels_of(root: Path, **own: Path) -> list[np.ndarray]:
    return [sample.label for sample in open_set("auto", root, own=OwnLabels(**own)).samples]


def refused(root: Path, kind: str = "auto", split: str | None = None) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        list(open_set(kind, root, split).samples)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rename_class(root: Path, title: str, old: str, new: str) -> Path:
    files = {"voc": "labelmap.txt", "coco": "annotations/instances_Validation.json"}
    path = root / files.get(title, "0003.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@TOOLS
def test_a_class_that_nothing_explains_is_named_with_the_file(tmp_path: Path, title: str) -> None:
    TREES[title][1](tmp_path)
    path = rename_class(tmp_path, title, "tarmac", "carpet")
    text = refused(tmp_path)
    assert path.name in text
    assert "has the class 'carpet', which is not one of Cityscapes: list it in mapping.yaml" in text
    (tmp_path / "mapping.yaml").write_text("names: {road: [tarmac]}\nothers: unlabelled\n")
    assert labels_of(tmp_path)[0][0].tolist() == [255, 0, 6, 255]


@TOOLS
def test_a_class_that_an_own_table_lacks_is_named_with_the_file(tmp_path: Path, title: str) -> None:
    TREES[title][1](tmp_path)
    (tmp_path / "labels.yaml").write_text("- {id: 3, name: road, color: [1, 2, 3]}\n")
    text = refused(tmp_path)
    file = {"voc": "labelmap.txt", "coco": "instances_Validation.json", "labelme": "0003.json"}
    assert file[title] in text
    assert "has the class 'Traffic_Light', which is not one of labels.yaml: add it there" in text
    (tmp_path / "mapping.yaml").write_text("names: {road: [tarmac]}\nothers: unlabelled\n")
    assert labels_of(tmp_path)[0][0].tolist() == [255, 3, 255, 3]


@pytest.mark.parametrize("title", ["voc", "labelme"])
def test_an_image_without_its_annotation_is_named_with_what_to_do(
    tmp_path: Path, title: str
) -> None:
    tree = TREES[title][1](tmp_path)
    tree.label(1).unlink()
    text = refused(tmp_path)
    assert text.startswith(f"missing label {tree.label(1)} of image {tree.image(1)}: ")
    assert "annotate it" in text
    assert "or move it out of the folder" in text


@TOOLS
def test_names_may_stand_for_groups_or_for_nothing(tmp_path: Path, title: str) -> None:
    TREES[title][1](tmp_path)
    (tmp_path / "mapping.yaml").write_text(
        "names: {unlabelled: [ROAD]}\ngroups: [{classes: [road, sidewalk], names: [Tarmac]}]\n"
    )
    found = open_set("auto", tmp_path)
    assert [label.name for label in found.labels] == ["traffic light"]
    assert [group.name for group in found.groups] == ["road or sidewalk"]
    assert found.samples[0].label[0].tolist() == [255, 255, 6, FIRST_GROUP]


@TOOLS
def test_an_export_whose_names_all_mean_groups_has_no_classes_of_its_own(
    tmp_path: Path, title: str
) -> None:
    TREES[title][1](tmp_path)
    (tmp_path / "mapping.yaml").write_text(
        "names: {unlabelled: [ROAD]}\ngroups:\n"
        "- {classes: [road, sidewalk], names: [Tarmac]}\n"
        "- {classes: [traffic light, traffic sign], names: [traffic light, traffic_light]}\n"
    )
    found = open_set("auto", tmp_path)
    assert not found.labels
    assert len(found.groups) == 2
    assert not found.scored().recall_only.any()


def test_the_names_of_masks_may_end_with_a_suffix_and_annotations_name_their_files(
    tmp_path: Path,
) -> None:
    tree = data_trees.voc(tmp_path / "voc")
    for image, label in tree.frames.values():
        image.rename(image.with_stem(f"{image.stem}_image"))
        label.rename(label.with_stem(f"{label.stem}_label"))
    shutil.rmtree(tmp_path / "voc" / "ImageSets")
    suffixes = "image_suffix: _image\nlabel_suffix: _label\n"
    mapping = tmp_path / "voc" / "mapping.yaml"
    mapping.write_text(mapping.read_text() + suffixes)
    assert len(open_set("auto", tmp_path / "voc").samples) == len(tree.frames)
    data_trees.coco(tmp_path / "coco")
    mapping = tmp_path / "coco" / "mapping.yaml"
    mapping.write_text((mapping.read_text() if mapping.is_file() else "") + suffixes)
    with pytest.raises(ConfigError, match="has image_suffix or label_suffix, which are for"):
        open_set("coco", tmp_path / "coco")


@TOOLS
def test_annotations_may_lie_beside_their_images(tmp_path: Path, title: str) -> None:
    kind, make = TREES[title]
    tree = make(tmp_path / "export")
    images = tmp_path / "pictures"
    for name, (image, _) in tree.frames.items():
        path = images / f"{name}{image.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.rename(path)
    own = OwnLabels(tree.root, tree.root / "mapping.yaml")
    samples = list(open_set(kind, images, tree.split, own).samples)
    assert [sample.name for sample in samples] == list(tree.frames)
    assert samples[1].label[0].tolist() == list(tree.expected)


@pytest.mark.parametrize("title", ["coco", "labelme"])
def test_ids_in_a_mapping_are_refused_where_there_are_names(tmp_path: Path, title: str) -> None:
    kind, make = TREES[title]
    make(tmp_path)
    (tmp_path / "mapping.yaml").write_text("ids: {road: [1]}\n")
    assert "lists ids or colours, but this export has class names" in refused(tmp_path, kind)


def test_colours_in_a_mapping_replace_the_label_map(tmp_path: Path) -> None:
    data_trees.voc(tmp_path)
    (tmp_path / "labelmap.txt").unlink()
    (tmp_path / "mapping.yaml").write_text("colors: {car: [[51, 221, 255]]}\nothers: unlabelled\n")
    assert labels_of(tmp_path)[0][0].tolist() == [255, 255, 255, 13]


def test_names_in_a_mapping_are_refused_for_pictures(tmp_path: Path) -> None:
    data_trees.folder(tmp_path)
    (tmp_path / "mapping.yaml").write_text("names: {road: [lane]}\n")
    assert "labels in image files need ids: or colors:" in refused(tmp_path, "folder")


@pytest.mark.parametrize("pair", [("voc", "coco"), ("coco", "labelme"), ("voc", "labelme")])
def test_mixed_exports_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    for title in pair:
        TREES[title][1](tmp_path)
    text = refused(tmp_path)
    assert text == (
        f"{tmp_path} has the layouts of {pair[0]} and {pair[1]}: choose one with --dataset"
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (data_trees.coco_content(["0003.jpg"]), "coco: use --dataset coco"),
        ({"items": [], "categories": {}}, "Datumaro: export it as labelme"),
        ({"name": "x"}, "an unknown tool: export it as labelme"),
    ],
)
def test_a_file_of_another_tool_among_those_of_labelme_is_named(
    tmp_path: Path, content: dict[str, Any], found: str
) -> None:
    data_trees.labelme(tmp_path)
    (tmp_path / "drive" / "x.json").write_text(json.dumps(content))
    assert refused(tmp_path) == (
        f"{tmp_path}/drive/x.json must be an export of labelme, got one of {found}, or move it away"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "as JSON"),
        (b"{", "as JSON"),
        (b"\xff\xfe\x00", "as JSON"),
        (b"[" * 100_000, "as JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"images": [], "annotations": []}', "no list 'categories'"),
        (b'{"images": [], "annotations": [], "categories": []}', "has no annotated image"),
        (b'{"items": [], "categories": {}}', "one of Datumaro: export it as coco"),
        (b'{"shapes": []}', "one of labelme: use --dataset labelme"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    data_trees.coco(tmp_path)
    path = tmp_path / "annotations/instances_Validation.json"
    path.write_bytes(content)
    text = refused(tmp_path, "coco")
    assert str(path) in text
    assert message in text


Edit = Callable[[dict[str, Any]], object]


def cut(stored: dict[str, Any], characters: int) -> None:
    """Cut the end of a run-length mask off."""
    stored["counts"] = stored["counts"][:-characters]


def taller(content: dict[str, Any]) -> None:
    content["images"][0]["height"] = 7
    content["annotations"] = content["annotations"][:1]


def first(kind: str, **fields: Any) -> Edit:
    return lambda content: content[kind][0].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            first("annotations", segmentation=[[1, 0, 9, 0, 9, 5]]),
            r"annotation 4 of frame_000000.png \(road\) has a polygon that lies outside the image: "
            r"x 1 to 9, y 0 to 5 in 4x6; was the image resized",
        ),
        (first("annotations", segmentation=[[1, 0, 2, 2]]), "at least three x, y"),
        (first("annotations", segmentation=[[1, 0, 2, 2, 3]]), "at least three x, y"),
        (first("annotations", segmentation=[[1, 0, 2, 2, 3, float("nan")]]), "at least three x, y"),
        (first("annotations", segmentation=[]), "has no segmentation, as boxes and points"),
        (first("annotations", segmentation="x"), "neither polygons nor"),
        (
            first("annotations", segmentation={"counts": [24], "size": [4, 6]}),
            r"has a mask of size \[4, 6\] \(height, width\) in an image of \[6, 4\]",
        ),
        (
            first("annotations", segmentation={"counts": [5, 99], "size": [6, 4]}),
            "mask of 104 pixels in an image of 24",
        ),
        (
            first("annotations", segmentation={"counts": "zzzz", "size": [6, 4]}),
            r"annotation 4 of frame_000000.png \(road\) has a damaged run-length mask",
        ),
        (
            lambda content: cut(content["annotations"][2]["segmentation"], 1),
            "frame_000000.png .*has a mask of 18 pixels in an image of 24",
        ),
        (
            first("annotations", segmentation={"counts": "", "size": [6, 4]}),
            "has a mask of 0 pixels in an image of 24",
        ),
        (
            first("annotations", segmentation={"counts": [-1, 25], "size": [6, 4]}),
            "neither a text nor a list of whole numbers",
        ),
        (first("annotations", segmentation=[[1, 0, 2, 2, 3, 10**400]]), "at least three x, y"),
        (
            first("annotations", category_id=[1]),
            r"annotations\[0\]: category_id must be a whole number or a text, got \[1\]",
        ),
        (first("images", id={}), r"images\[0\]: id must be a whole number or a text, got \{\}"),
        (
            first("categories", id=2),
            r"\(categories\) gives the id 2 to '.*' and '.*': annotations of both",
        ),
        (first("images", id=2), "gives the id 2 to frame_000000.png and frame_000005.png, as"),
        (first("images", file_name="frame_000005.png"), "lists .*frame_000005.png twice, as frame"),
        (first("annotations", image_id=77), "is of image 77, which the file does not list"),
        (first("annotations", category_id=77), "has the category 77, which is not in the file"),
        (lambda content: content["images"][0].pop("width"), "image .*png: width must be the image"),
        (lambda content: content["images"][0].pop("file_name"), r"images\[0\] has no 'file_name'"),
        (
            taller,
            "Validation.json is 4x7, but .* is 4x6: an image and",
        ),
    ],
)
def test_annotations_that_cannot_be_drawn_are_named(
    tmp_path: Path, change: Edit, message: str
) -> None:
    data_trees.coco(tmp_path)
    path = tmp_path / "annotations/instances_Validation.json"
    edit(path, change)
    text = refused(tmp_path)
    assert str(path) in text
    assert re.search(message, text), text


def shape(**fields: Any) -> Edit:
    return lambda content: content["shapes"].insert(
        0, {"label": "car", "points": SQUARE, "shape_type": "polygon", **fields}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shape(points=[[1, 1], [99, 1], [99, 3]]), r"shape 1 \(car\) lies outside the image: x 1"),
        (shape(points=SQUARE[:2]), r"shape 1 \(car\) must have 3 points, got 2"),
        (shape(points=[[1, "a"]] * 3), r"must be a point \[x, y\]"),
        (shape(points=None), "null must be a list of points"),
        (shape(points=[[1, 10**400]] * 3), r"must be a point \[x, y\]"),
        (shape(label=None), "shape 1 has no label"),
        (shape(shape_type="linestrip"), r"\(car\) is a linestrip, which has no area"),
        (shape(shape_type="mask", mask="?"), "mask that is not a PNG in base64"),
        (lambda content: content.pop("imageHeight"), "imageHeight must be the image's imageHeight"),
        (lambda content: content.update(imageWidth=8), "is 8x6, but .* is 4x6"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(tmp_path: Path, change: Edit, message: str) -> None:
    data_trees.labelme(tmp_path)
    edit(tmp_path / "0003.json", change)
    text = refused(tmp_path)
    assert str(tmp_path / "0003.json") in text
    assert re.search(message, text), text


@TOOLS
def test_an_image_that_nobody_annotated_is_named(
    tmp_path: Path, title: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the tool lists it, it is left out; else it has no label."""
    tree = TREES[title][1](tmp_path)
    if title == "voc":
        extra = write(tmp_path / "JPEGImages/extra.jpg", photo(4))
        left_out = f"left out: {extra}, which no list names"
    elif title == "coco":
        edit(tree.label(), lambda content: content.update(annotations=content["annotations"][3:]))
        left_out = f"left out: {tree.label()} has no annotation for {tree.image(0)}: annotate it"
    else:
        edit(tree.label(), lambda content: content.update(shapes=[]))
        left_out = f"left out: {tree.label()} has no shapes: annotate the image"
    with caplog.at_level(logging.WARNING):
        assert len(open_set("auto", tmp_path).samples) == (2 if title == "voc" else 1)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(left_out)
    with pytest.raises(SystemExit, match="1"):
        main(["data", "check", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")])


def test_an_image_that_the_only_file_does_not_list_is_refused(tmp_path: Path) -> None:
    data_trees.coco(tmp_path)
    (tmp_path / "annotations/instances_Train.json").unlink()
    extra = write(tmp_path / "images/Validation/extra.png", photo(4))
    assert refused(tmp_path).startswith(f"missing label of image {extra}: ")


@TOOLS
def test_a_set_without_annotations_is_refused(tmp_path: Path, title: str) -> None:
    tree = TREES[title][1](tmp_path)
    if title == "coco":
        edit(tree.label(), lambda content: content.update(annotations=[]))
        message = "2 have no annotation"
    elif title == "labelme":
        for i in range(2):
            edit(tree.label(i), lambda content: content.update(shapes=[]))
        message = "2 of 2 JSON files have no shapes"
    else:
        (tmp_path / "ImageSets/Segmentation/default.txt").write_text("")
        message = "default.txt lists nothing"
    assert message in refused(tmp_path)


def test_later_annotations_lie_on_top(tmp_path: Path) -> None:
    tree = data_trees.coco(tmp_path)
    edit(
        tree.label(),
        lambda content: content["annotations"].append(
            {"id": 99, "image_id": 1, "category_id": 2, "segmentation": [box(0, 2), box(3)]}
        ),
    )
    assert labels_of(tmp_path)[0][0].tolist() == [6, 6, 6, 6]


def test_roboflow_and_label_studio_lay_files_out_in_their_own_ways(tmp_path: Path) -> None:
    content = data_trees.coco_content(["a.jpg"])
    for root, path, image in (
        (tmp_path / "roboflow", "valid/_annotations.coco.json", "valid/a.jpg"),
        (tmp_path / "studio", "result.json", "images/a.jpg"),
    ):
        write(root / image, photo(4))
        (root / path).write_text(json.dumps(content))
        (root / "mapping.yaml").write_text(data_trees.TOOL_MAPPING)
        assert labels_of(root)[0][0].tolist() == list(data_trees.TOOL_ROW)


@pytest.mark.parametrize(
    "place",
    ["C:\\Users\\me\\a.jpg", "/home/me/set/a.jpg", "https://bucket.example/set/a.jpg", "..\\a.jpg"],
)
def test_images_that_lay_elsewhere_are_found_by_name(tmp_path: Path, place: str) -> None:
    write(tmp_path / "images/a.jpg", photo(4))
    content = data_trees.coco_content([place if ":" in place or place[0] == "/" else "a.jpg"])
    (tmp_path / "result.json").write_text(json.dumps(content))
    (tmp_path / "mapping.yaml").write_text(data_trees.TOOL_MAPPING)
    assert labels_of(tmp_path)[0][0].tolist() == list(data_trees.TOOL_ROW)
    other = tmp_path / "labelme"
    data_trees.labelme(other)
    edit(
        other / "0003.json",
        lambda found: found.update(imagePath=place.replace("a.jpg", "0003.jpg")),
    )
    assert len(labels_of(other)) == 2


def test_a_name_that_no_file_can_have_is_one_of_a_missing_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = data_trees.coco(tmp_path)
    edit(tree.label(), first("images", file_name=f"{'x' * 300}.png"))
    with caplog.at_level(logging.WARNING):
        assert len(open_set("auto", tmp_path).samples) == 1
    assert caplog.messages[0].endswith("xxx.png, which does not exist")


def test_ids_of_coco_may_be_texts(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        for each in content["images"]:
            each["id"] = f"img {each['id']}"
        for each in content["annotations"]:
            each["image_id"] = f"img {each['image_id']}"

    tree = data_trees.coco(tmp_path)
    edit(tree.label(), rename)
    assert labels_of(tmp_path)[0][0].tolist() == list(data_trees.TOOL_ROW)


def test_two_files_of_labelme_for_one_image_are_refused(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path)
    copy = tmp_path / "0003 (1).json"
    copy.write_bytes((tmp_path / "0003.json").read_bytes())
    text = refused(tmp_path)
    assert f"{tmp_path / '0003.json'} and {copy} are both of {tmp_path / '0003.jpg'}" in text


def test_files_from_windows_may_begin_with_a_mark_and_have_its_folders(tmp_path: Path) -> None:
    tree = data_trees.voc(tmp_path)
    lists = tmp_path / "ImageSets/Segmentation/default.txt"
    for path in (tmp_path / "labelmap.txt", lists):
        lines = path.read_text().replace("drive/", "drive\\").splitlines()
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert [each[0].tolist() for each in labels_of(tmp_path)] == [list(tree.expected)] * 2


@TOOLS
def test_accents_may_be_stored_in_another_form(tmp_path: Path, title: str) -> None:
    """As macOS does in names of files, while the export has the usual form."""
    tree = TREES[title][1](tmp_path)
    name = "Fußgänger"
    mapping = tmp_path / "mapping.yaml"
    other = unicodedata.normalize("NFD", name)
    mapping.write_text(mapping.read_text().replace("tarmac", f"tarmac, {other}"))
    rename_class(tmp_path, title, "tarmac", name)
    for path in tree.frames[next(iter(tree.frames))]:
        if path.suffix != ".json" or title == "labelme":
            path.rename(path.with_stem(unicodedata.normalize("NFD", f"{path.stem}-ö")))
    for path in (tmp_path / "ImageSets/Segmentation/default.txt", tree.label()):
        if path.is_file() and path.suffix in (".txt", ".json"):
            stem = next(iter(tree.frames))
            path.write_text(path.read_text().replace(stem, f"{stem}-ö"))
    assert [each[0].tolist() for each in labels_of(tmp_path)] == [list(tree.expected)] * 2


def test_a_name_listed_twice_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    data_trees.voc_labelme(tmp_path)
    (tmp_path / "class_names.txt").write_text("_background_\n_background_\nroad")
    assert labels_of(tmp_path)[0][0].tolist() == [255, 255, 0, 255]


def test_polygons_are_drawn_as_labelme_draws_them() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 7))
        radii = generator.uniform(20, 49, 7)
        points = [
            (float(50 + r * np.cos(a)), float(50 + r * np.sin(a)))
            for a, r in zip(angles, radii, strict=True)
        ]
        picture = Image.new("L", (100, 100))
        ImageDraw.Draw(picture).polygon(points, outline=1, fill=1)
        expected = np.array(picture, bool)
        ours = Polygon(tuple(points)).mask((100, 100))
        differ = expected ^ ours
        border = cv2.morphologyEx(
            expected.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
        )
        assert not (differ & ~border.astype(bool)).any()


def test_masks_and_circles_of_labelme_are_drawn(tmp_path: Path) -> None:
    write(tmp_path / "a.png", photo(9, height=9))
    stream = io.BytesIO()
    Image.fromarray(np.array([[True, False], [True, True]])).save(stream, "png")
    mask = base64.b64encode(stream.getvalue()).decode()
    shapes = [
        {"label": "car", "points": [[4, 4], [4, 6]], "shape_type": "circle"},
        {"label": "sky", "points": [[0, 1], [1, 2]], "shape_type": "mask", "mask": mask},
    ]
    content = {"shapes": shapes, "imagePath": "..\\a.png", "imageHeight": 9, "imageWidth": 9}
    (tmp_path / "a.json").write_text(json.dumps({"version": "5.5.0", **content, "imageData": None}))
    label = labels_of(tmp_path)[0]
    assert label[1:3, :2].tolist() == [[10, 255], [10, 10]]
    assert (label == 13).sum() == 13  # a disc of radius 2


def test_labels_txt_says_which_classes_labelme_was_started_with(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nroad\nTraffic_Light\nsky\n")
    names = [label.name for label in open_set("auto", tmp_path).labels]
    assert names == ["road", "traffic light", "sky"]


@pytest.mark.parametrize("title", ["voc", "coco"])
def test_a_task_of_cvat_has_no_splits(tmp_path: Path, title: str) -> None:
    TREES[title][1](tmp_path)
    if title == "coco":
        (tmp_path / "annotations/instances_Train.json").unlink()
        path = tmp_path / "annotations/instances_Validation.json"
        path.rename(path.with_name("instances_default.json"))
        (tmp_path / "images/Validation").rename(tmp_path / "images/default")
    found = open_set("auto", tmp_path)
    assert (found.split, len(found.samples)) == ("all", 2)
    train, val = (open_for_training("auto", tmp_path, split) for split in ("train", "val"))
    assert (len(train.samples), len(val.samples)) == (1, 1)


def test_splits_of_labelme_are_folders(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path / "train")
    data_trees.labelme(tmp_path / "val")
    (tmp_path / "val/mapping.yaml").rename(tmp_path / "mapping.yaml")
    found = open_set("auto", tmp_path)
    assert (found.kind, found.split) == ("labelme", "val")
    assert [sample.name for sample in found.samples] == ["0003", "drive/0007"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "labelmap.txt, which says what the colours mean, is missing"),
        ("road:128,64::", "'road:128,64::' must be a class and its red, green and blue"),
        ("road:128,64,300::", "must be a class and its red, green and blue, 0 to 255"),
        ("# nothing", "lists no class"),
        ("road:1,2,3::\nsky:1,2,3::", r"gives road and sky the colour \(1, 2, 3\)"),
        ("road:128,64,128::", r"holds the colours .*labelmap.txt has no such class"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_named(
    tmp_path: Path, text: str | None, message: str
) -> None:
    data_trees.voc(tmp_path)
    path = tmp_path / "labelmap.txt"
    path.unlink() if text is None else path.write_text(text)
    assert re.search(message, refused(tmp_path))


def test_a_mask_without_images_says_how_to_export(tmp_path: Path) -> None:
    data_trees.voc(tmp_path)
    (tmp_path / "JPEGImages").rename(tmp_path / "elsewhere")
    assert "export with images ('Save images' in CVAT), or copy them to" in refused(tmp_path)


@pytest.mark.parametrize("form", ["grey", "palette", "rgb", "rgba"])
def test_masks_may_be_stored_in_several_ways(tmp_path: Path, form: str) -> None:
    tree = data_trees.voc(tmp_path)
    ids, colors = columns((0, 1, 2, 3)), columns(data_trees.TOOL_COLORS)
    if form == "grey":
        write(tree.label(), ids)
    elif form == "palette":
        picture = Image.fromarray(ids, "P")
        picture.putpalette([value for color in data_trees.TOOL_COLORS for value in color])
        picture.save(tree.label())
    else:
        Image.fromarray(colors).convert(form.upper()).save(tree.label())
    assert labels_of(tmp_path)[0][0].tolist() == list(tree.expected)


def test_transparent_pixels_have_no_class_and_half_transparent_ones_are_refused(
    tmp_path: Path,
) -> None:
    tree = data_trees.voc(tmp_path)
    colors = columns(data_trees.TOOL_COLORS)
    alpha = columns((255, 0, 255, 255))
    Image.fromarray(np.dstack([colors, alpha])).save(tree.label())
    assert labels_of(tmp_path)[0][0].tolist() == [255, 255, 6, 0]
    Image.fromarray(np.dstack([colors, alpha // 2])).save(tree.label())
    assert f"is half transparent in {3 * HEIGHT} pixels" in refused(tmp_path)


def test_masks_of_16_bits_are_refused_by_name(tmp_path: Path) -> None:
    tree = data_trees.voc(tmp_path)
    deep = columns(data_trees.TOOL_COLORS).astype(np.uint16) * 257
    cv2.imwrite(str(tree.label()), deep[..., ::-1])
    assert "got 16 bits a channel; store it as a PNG in 8-bit RGB" in refused(tmp_path)


def test_a_missing_package_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    data_trees.coco(tmp_path)
    with pytest.raises(SystemExit):
        main(["data", "check", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")])
    assert "pycocotools" in capsys.readouterr().err


def test_kinds_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for title in ("voc", "voc of labelme", "coco", "labelme"):
        kind, make = TREES[title]
        root = tmp_path / title
        make(root)
        (root / "mapping.yaml").unlink(missing_ok=True)
        assert kind_of("auto", root) == kind


def test_linked_folders_are_read_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"elsewhere/{name}.png", photo(4))
        write(tmp_path / f"masks/{name}.png", columns([0, 1, 2, 3]))
    root = tmp_path / "set"
    for kind, target in (("images", "elsewhere"), ("labels", "masks")):
        (root / kind).mkdir(parents=True)
        (root / kind / "drive").symlink_to(tmp_path / target)
        (root / kind / "drive" / "again").symlink_to(root / kind)  # a loop
        write(root / kind / ".ipynb_checkpoints" / "c.png", photo(4))
    samples = open_set("folder", root).samples
    assert [sample.name for sample in samples] == ["drive/a", "drive/b"]


def test_linked_and_hidden_folders_of_labelme(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path / "drive")
    count = len(open_set("labelme", tmp_path / "drive").samples)
    hidden = tmp_path / "drive/.ipynb_checkpoints"
    hidden.mkdir()
    for path in (tmp_path / "drive").glob("*.*"):
        (hidden / path.name).write_bytes(path.read_bytes()) if path.is_file() else None
    assert len(open_set("labelme", tmp_path / "drive").samples) == count
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "drive")
    (tmp_path / "set" / "mapping.yaml").write_bytes((tmp_path / "drive/mapping.yaml").read_bytes())
    assert len(open_set("auto", tmp_path / "set").samples) == count


@pytest.mark.parametrize("stated", ["../images/{}", "..\\images\\{}", "{}", "/home/me/{}"])
@pytest.mark.parametrize("labels", [False, True])
def test_annotations_of_labelme_may_lie_in_a_folder_of_their_own(
    tmp_path: Path, stated: str, labels: bool
) -> None:
    for number in range(2):
        write(tmp_path / f"images/{number}.png", photo(4, number))
        content = {
            "imagePath": stated.format(f"{number}.png"),
            "imageHeight": HEIGHT,
            "imageWidth": 4,
            "shapes": [{"label": "road", "points": SQUARE, "shape_type": "polygon"}],
        }
        (tmp_path / "json").mkdir(exist_ok=True)
        (tmp_path / f"json/{number}.json").write_text(json.dumps(content))
    own = OwnLabels(tmp_path / "json") if labels else OwnLabels()
    found = open_set("auto", tmp_path, own=own)
    assert [int(sample.image[0, 0, 1]) for sample in found.samples] == [100, 101]
    assert [pair.image for pair in found.pairs] == [tmp_path / f"images/{i}.png" for i in range(2)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SegmentationClass/a.png", "SegmentationClassPNG/a.png"),
        ("labelmap.txt", "class_names.txt"),
    ],
)
def test_masks_of_two_tools_in_one_folder_are_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    write(tmp_path / "JPEGImages/a.png", photo(4))
    write(tmp_path / "SegmentationClass/a.png", np.zeros((HEIGHT, 4, 3), np.uint8))
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nroad:128,64,128::\n")
    if second.endswith(".png"):
        write(tmp_path / second, np.zeros((HEIGHT, 4, 3), np.uint8))
    else:
        (tmp_path / second).write_text("background\nroad\n")
    text = refused(tmp_path)
    names = [str(tmp_path / Path(each).parts[0]) for each in (first, second)]
    assert text.startswith((" and ".join(names), " and ".join(names[::-1])))
    assert "are of two exports: move one of these to a folder of its own" in text


def test_masks_of_labelme2voc_lie_beside_arrays(tmp_path: Path) -> None:
    write(tmp_path / "JPEGImages/a.png", photo(4))
    write(tmp_path / "SegmentationClassPNG/a.png", np.zeros((HEIGHT, 4, 3), np.uint8))
    (tmp_path / "SegmentationClass").mkdir()
    np.save(tmp_path / "SegmentationClass/a.npy", np.zeros((HEIGHT, 4)))
    (tmp_path / "class_names.txt").write_text("background\nroad\n")
    assert len(open_set("auto", tmp_path).samples) == 1


@pytest.mark.parametrize("second", ["result.json", "train/_annotations.coco.json"])
def test_files_of_coco_of_two_exports_are_refused(tmp_path: Path, second: str) -> None:
    data_trees.coco(tmp_path)
    path = tmp_path / second
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data_trees.coco_content(["0003.jpg"])))
    text = refused(tmp_path)
    assert f"{path} are of two exports: keep one of them in {tmp_path}, or merge them" in text


def test_annotations_of_labelme_below_a_file_of_coco_are_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(data_trees.coco_content(["0003.jpg"])))
    data_trees.labelme(tmp_path / "images")
    assert "has the layouts of coco and labelme" in refused(tmp_path)


def test_a_circle_that_leaves_the_image_is_refused(tmp_path: Path) -> None:
    data_trees.labelme(tmp_path)
    points = [[2, 3], [2, HEIGHT]]
    circle = {"label": "road", "points": points, "shape_type": "circle"}
    edit(tmp_path / "0003.json", lambda content: content.update(shapes=[circle]))
    assert labels_of(tmp_path)
    points[1] = [4, HEIGHT]
    edit(tmp_path / "0003.json", lambda content: content.update(shapes=[circle]))
    assert "(road) is a circle that lies outside the image: x -" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "voc"])
def test_accents_of_image_and_label_may_be_stored_in_two_forms(tmp_path: Path, kind: str) -> None:
    one, other = (unicodedata.normalize(form, "Stra\u00dfe/caf\u00e9") for form in ("NFC", "NFD"))
    images, labels = {
        "folder": ("images", "labels"),
        "voc": ("JPEGImages", "SegmentationClass"),
    }[kind]
    write(tmp_path / f"{images}/{one}.png", photo(4))
    road = np.zeros((HEIGHT, 4), np.uint8)
    write(tmp_path / f"{labels}/{other}.png", road)
    (tmp_path / "labelmap.txt").write_text("road:128,64,128::\n")
    (sample,) = open_set(kind, tmp_path).samples
    assert (sample.label == 0).all()


def test_a_list_may_come_from_windows(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        for name in ("a", "b c"):
            array = photo(4) if folder == "images" else columns([0, 1, 2, 3])
            write(tmp_path / folder / f"{name}.png", array)
    lines = ["images\\a.png labels\\a.png", '"images\\b c.png" labels/b\\ c.png']
    (tmp_path / "val.txt").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    samples = open_set("list", tmp_path / "val.txt").samples
    assert [sample.name for sample in samples] == ["images/a", "images/b c"]


def test_names_of_frames_stay_in_their_folder(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"x/{name}.png", photo(4))
        write(tmp_path / f"x/l{name}.png", columns([0, 1, 2, 3]))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.txt").write_text(
        f"../x/a.png ../x/la.png\n{tmp_path}/x/b.png ../x/lb.png"
    )
    names = [sample.name for sample in open_set("list", tmp_path / "lists/val.txt", "all").samples]
    assert names[0] == "x/a"
    assert not any(name.startswith(("/", ".")) for name in names)


def test_classes_of_equal_or_no_colour_come_back_from_a_zip(tmp_path: Path) -> None:
    labels = [
        Label(4, "lane", (0, 0, 0)),
        Label(2, "kerb", (128, 0, 0)),
        Label(7, "cone", (128, 0, 0)),
        Label(9, "sky", (0, 128, 0)),
        Label(1, "background", (9, 9, 9)),
    ]
    ids = columns([4, 2, 7, 9, 1, 255])
    write(tmp_path / "masks/a.png", ids)
    write_voc_zip(tmp_path / "out.zip", tmp_path / "masks", ["a"], labels)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(tmp_path / "set")
    write(tmp_path / "set/JPEGImages/a.png", photo(6))
    rows = (f"- {{id: {e.id}, name: {e.name}, color: {list(e.color)}}}\n" for e in labels)
    (tmp_path / "set/labels.yaml").write_text("".join(rows))
    (sample,) = open_set("auto", tmp_path / "set").samples
    assert (sample.label == ids).all()


def test_a_mapping_beside_the_only_file_of_coco_counts(tmp_path: Path) -> None:
    content = data_trees.coco_content(["a.png"])
    size = content["images"][0]
    write(tmp_path / "images/a.png", photo(size["width"], height=size["height"]))
    (tmp_path / "export.json").write_text(json.dumps(content))
    for id in (0, 8):
        name = CITYSCAPES[id].name
        (tmp_path / "mapping.yaml").write_text(f"names: {{{name}: [tarmac]}}\nothers: unlabelled\n")
        (sample,) = open_set("coco", tmp_path / "export.json").samples
        assert (8 in sample.label) == (id == 8)


def test_an_image_in_a_neighbouring_folder_that_the_only_file_does_not_list_is_refused(
    tmp_path: Path,
) -> None:
    content = data_trees.coco_content(["drive1/a.png"])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(content))
    size = content["images"][0]
    for name in ("drive1/a.png", "drive2/b.png"):
        write(tmp_path / "images" / name, photo(size["width"], height=size["height"]))
    (tmp_path / "mapping.yaml").write_text("names: {road: [tarmac]}\nothers: unlabelled\n")
    assert "missing label of image" in refused(tmp_path)
    assert "images/drive2/b.png" in refused(tmp_path)


def test_a_file_that_only_has_the_name_of_an_export_does_not_count(tmp_path: Path) -> None:
    data_trees.coco(tmp_path)
    (tmp_path / "result.json").write_text('{"mean_iou": 0.5}')
    assert kind_of("auto", tmp_path) == "coco"
    assert labels_of(tmp_path)


def labelme_file(path: Path, image: str) -> None:
    shape = {"label": "road", "points": SQUARE, "shape_type": "polygon"}
    content = {"imagePath": image, "imageHeight": HEIGHT, "imageWidth": 4, "shapes": [shape]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_images_beside_those_of_a_split_need_annotations_in_some_split(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"images/{name}.png", photo(4))
    labelme_file(tmp_path / "train/a.json", "../images/a.png")
    labelme_file(tmp_path / "val/b.json", "../images/b.png")
    assert "missing label" in refused(tmp_path, split="val")
    assert "images/c.png" in refused(tmp_path, split="val")
    (tmp_path / "images/c.png").unlink()
    assert [sample.name for sample in open_set("auto", tmp_path, "val").samples] == ["b"]


@pytest.mark.parametrize("kind", ["labelme", "coco", "voc", "folder"])
def test_two_names_of_one_split_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "labelme":
        for split in ("val", "Validation"):
            write(tmp_path / split / "a.png", photo(4))
            labelme_file(tmp_path / split / "a.json", "a.png")
    elif kind == "coco":
        data_trees.coco(tmp_path)
        path = tmp_path / "annotations/instances_Validation.json"
        path.with_name("instances_val.json").write_bytes(path.read_bytes())
    elif kind == "voc":
        TREES["voc"][1](tmp_path)
        for name in ("val", "Validation"):
            (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text("0003\n")
    else:
        for split in ("val", "Validation"):
            write(tmp_path / f"images/{split}/a.png", photo(4))
            write(tmp_path / f"labels/{split}/a.png", columns([0, 1, 2, 3]))
    text = refused(tmp_path, kind, "val")
    assert re.search(r"alidation.* are both of the split val: join them", text)


def test_folders_of_splits_may_have_other_names_and_others_hide_nothing(tmp_path: Path) -> None:
    for place in ("one/{}/Train", "one/{}/Validation", "two/{}", "two/backup/{}", "Val/{}"):
        write(tmp_path / place.format("images") / "a.png", photo(4))
        write(tmp_path / place.format("labels") / "a.png", columns([0, 1, 2, 3]))
    folder = SETS["folder"]
    assert folder.splits(tmp_path / "one", OwnLabels()) == ("train", "val")
    assert len(open_set("folder", tmp_path / "one", "val").samples) == 1
    assert folder.splits(tmp_path / "two", OwnLabels()) == ("all",)
    assert [s.name for s in open_set("folder", tmp_path / "two").samples] == ["a"]
    assert len(open_set("folder", tmp_path, "val").samples) == 1


@pytest.mark.parametrize("line", [". a.png", '"" a.png', "/ a.png"])
def test_a_line_that_names_no_file_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "val.txt").write_text(f"# images\n{line}\n")
    assert "val.txt, line 2 names no file" in refused(tmp_path / "val.txt", "list", "all")


def test_other_pictures_beside_a_flat_export_are_no_images_without_label(tmp_path: Path) -> None:
    content = data_trees.coco_content(["a.png"])
    size = content["images"][0]
    for name in ("a.png", "thumbs/a.png"):
        write(tmp_path / "images" / name, photo(size["width"], height=size["height"]))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(content))
    (tmp_path / "mapping.yaml").write_text("names: {road: [tarmac]}\nothers: unlabelled\n")
    assert len(labels_of(tmp_path)) == 1


@pytest.mark.parametrize("place", ["images/train/a.png", "train/a.png", "images/Train/a.png"])
def test_folders_of_images_and_files_of_coco_may_write_a_split_differently(
    tmp_path: Path, place: str
) -> None:
    content = data_trees.coco_content(["a.png"])
    size = content["images"][0]
    write(tmp_path / place, photo(size["width"], height=size["height"]))
    (tmp_path / "annotations").mkdir()
    for split in ("Train", "Validation"):
        path = tmp_path / f"annotations/instances_{split}.json"
        path.write_text(json.dumps(content))
    (tmp_path / "mapping.yaml").write_text("names: {road: [tarmac]}\nothers: unlabelled\n")
    assert len(open_set("coco", tmp_path, "train").samples) == 1


def test_folders_without_images_are_no_splits(tmp_path: Path) -> None:
    data_trees.folder(tmp_path)
    for name in ("Valid", "val", "validation"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / name).mkdir(exist_ok=True)
    assert SETS["folder"].splits(tmp_path, OwnLabels())
    assert len(open_set("folder", tmp_path).samples) > 0
