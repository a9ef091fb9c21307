"""The parameter file for Autoware gives its fusion what it reads."""

import json

import jsonschema
import numpy as np
import pytest
import yaml
from ros_harness import (
    RELIABLE,
    Bench,
    Driver,
    StartNode,
    good_frame,
    picture,
    pixels_of,
    rgb_image,
)
from run_length_decoder import decode
from sensor_msgs.msg import Image
from std_msgs.msg import String

from camseg_core.errors import ConfigError
from camseg_core.labels import (
    CAMVID_11_TRAIN_IDS,
    CITYSCAPES,
    TRAIN_ID,
    UNLABELLED,
    cityscapes_labels,
)
from camseg_core.masks import ClassTable
from camseg_core.runtime import Segmenter
from camseg_ros.messages import LATCHED
from camseg_ros.middleware import share_file
from camseg_ros.parameter_spec import file_schema
from camseg_ros.parameters import SPECS

AUTOWARE = (
    *(
        "UNKNOWN",
        "BUILDING",
        "WALL",
        "OBSTACLE",
        "TRAFFIC_LIGHT",
        "TRAFFIC_SIGN",
        "PERSON",
        "VEHICLE",
        "BIKE",
        "ROAD",
        "SIDEWALK",
    ),
    *("ROAD_PAINT", "CURBSTONE", "CROSSWALK", "VEGETATION", "SKY"),
)
"""The labels of `segmentation_pointcloud_fusion`; a label's id is its place."""

OURS = {
    "BUILDING": ("building",),
    "WALL": ("fence", "wall"),
    "OBSTACLE": ("pole",),
    "TRAFFIC_LIGHT": ("traffic light",),
    "TRAFFIC_SIGN": ("traffic sign",),
    "PERSON": ("person",),
    "VEHICLE": ("car", "truck", "bus", "train"),
    "BIKE": ("rider", "motorcycle", "bicycle"),
    "ROAD": ("road",),
    "SIDEWALK": ("sidewalk",),
    "VEGETATION": ("vegetation", "terrain"),
    "SKY": ("sky",),
}
"""The Cityscapes classes of each label that the file publishes."""

IDS = {name: AUTOWARE.index(name) for name in OURS}


def test_the_file_keeps_to_the_schema_and_says_what_the_ids_mean() -> None:
    text = share_file("config/autoware.param.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=segment.schema.json\n")
    jsonschema.Draft202012Validator(file_schema(SPECS)).validate(yaml.safe_load(text))
    assert all(f"{number} {name}" in text for number, name in enumerate(AUTOWARE))


def given() -> tuple[list[str], list[str]]:
    """The groups and the enabled classes of the file."""
    text = share_file("config/autoware.param.yaml").read_text(encoding="utf-8")
    parameters = yaml.safe_load(text)["/**"]["ros__parameters"]
    return parameters["class_groups"], parameters["enabled_classes"]


def test_every_class_that_it_publishes_has_autowares_id() -> None:
    table = ClassTable.of(CITYSCAPES, *given())
    assert {label.name: label.id for label in table.labels} == IDS
    ids = {label.name: int(table.lookup[label.id]) for label in CITYSCAPES}
    assert ids == {each: IDS[name] for name, classes in OURS.items() for each in classes}


def test_without_traffic_lights_it_suits_a_model_trained_on_camvid_alone() -> None:
    labels = cityscapes_labels(CAMVID_11_TRAIN_IDS)
    groups, enabled = given()
    with pytest.raises(ConfigError, match="TRAFFIC_LIGHT"):
        ClassTable.of(labels, groups, enabled)
    groups = [each for each in groups if not each.startswith("TRAFFIC_LIGHT")]
    enabled.remove("TRAFFIC_LIGHT")
    table = ClassTable.of(labels, groups, enabled)
    assert {label.name: label.id for label in table.labels} == {
        name: number for name, number in IDS.items() if name != "TRAFFIC_LIGHT"
    }


def test_it_is_installed_beside_the_nodes_file() -> None:
    setup = share_file("config/segment.param.yaml").parents[1] / "setup.py"
    if not setup.is_file():
        pytest.skip("this is an installed package, which has it")
    installed = " ".join(setup.read_text(encoding="utf-8").split())
    assert '"config/segment.param.yaml", "config/autoware.param.yaml"' in installed


def test_given_after_the_nodes_file_it_gives_autowares_ids_and_runs(
    start_node: StartNode, driver: Driver
) -> None:
    files = [share_file(f"config/{name}.param.yaml") for name in ("segment", "autoware")]
    node = start_node(
        "--ros-args", *(part for path in files for part in ("--params-file", str(path)))
    )
    bench = Bench(driver, node, ("mask", "mask_rle"), Image, "/image", RELIABLE)
    bench.connect(good_frame)
    tables = driver.listen(String, "/segmentation/labels", LATCHED)
    driver.wait(lambda: tables, "the label table")
    classes = {entry["name"]: entry["id"] for entry in json.loads(tables[-1].data)["classes"]}
    assert classes == IDS

    rgb = picture(320, 240, 2)
    (mask,) = bench.ask(rgb_image(rgb))
    (runs,) = bench.answers["mask_rle"]
    segmenter = Segmenter.from_pretrained()
    result = segmenter.segment(rgb).mask
    expected = np.full_like(result, UNLABELLED)
    for name, members in OURS.items():
        expected[np.isin(result, [TRAIN_ID[each] for each in members])] = IDS[name]
    assert np.array_equal(pixels_of(mask), expected)
    assert np.array_equal(decode(runs.data, runs.height, runs.width), expected)
    assert "unknown parameter" not in node.output
