"""The files for Nav2, RViz and Foxglove name topics and classes that the node publishes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from rclpy.node import Node

from camseg_core.labels import CITYSCAPES
from camseg_ros.camera import Camera
from camseg_ros.middleware import share_file
from camseg_ros.outputs import DebugTopics
from camseg_ros.parameters import Parameters

FILES = ("nav2.param.yaml", "camseg.rviz", "foxglove.json")


@pytest.fixture
def topics(ros: None) -> Iterator[dict[str, str]]:
    """The node's topics and their types."""
    node = Node("segmentation")
    camera, debug = Camera(node, "", Parameters()), DebugTopics(node)
    yield {
        **{
            name: types[0]
            for name, types in node.get_publisher_names_and_types_by_node("segmentation", "/")
        },
        "/segmentation/label_info": "vision_msgs/msg/LabelInfo",
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }
    camera.destroy()
    debug.destroy()
    node.destroy_node()


def content(name: str) -> Any:
    return yaml.safe_load(share_file(f"config/{name}").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_installed(name: str) -> None:
    setup = share_file(f"config/{name}").parents[1] / "setup.py"
    if setup.is_file():
        assert f'"config/{name}"' in setup.read_text(encoding="utf-8")


def test_nav2_gets_every_class_once_and_masks_confidence_and_labels(topics: dict[str, str]) -> None:
    parameters = content("nav2.param.yaml")["local_costmap"]["local_costmap"]["ros__parameters"]
    layer = parameters[parameters["plugins"][0]]
    source = layer[layer["observation_sources"]]
    assert layer["use_approximate_time_sync"] is True
    for name, kind in (("segmentation", "Image"), ("confidence", "Image"), ("labels", "LabelInfo")):
        assert topics[source[f"{name}_topic"]].endswith(f"/{kind}")
    classes = [name for kind in source["class_types"] for name in source[kind]["classes"]]
    # the layer would count sky as free, and skips what is in none
    assert sorted([*classes, "sky"]) == sorted(label.name for label in CITYSCAPES)
    for kind in source["class_types"]:
        assert 0 <= source[kind]["base_cost"] <= source[kind]["max_cost"] <= 254


def test_rviz_shows_images_of_the_node(topics: dict[str, str]) -> None:
    displays = content("camseg.rviz")["Visualization Manager"]["Displays"]
    shown = {each["Topic"]["Value"] for each in displays}
    assert {topics[name] for name in shown} == {"sensor_msgs/msg/Image"}
    assert shown >= {"/segmentation/overlay", "/segmentation/color"}


def test_foxglove_shows_topics_of_the_node_in_panels_that_the_layout_has(
    topics: dict[str, str],
) -> None:
    text = share_file("config/foxglove.json").read_text(encoding="utf-8")
    layout = json.loads(text)
    used = set(re.findall(r'"(/[a-z_/]+)(?:\.data)?"', text))
    assert used <= set(topics)
    assert "/segmentation/overlay/compressed" in used

    def panels(part: Any) -> set[str]:
        if isinstance(part, str):
            return {part}
        return panels(part["first"]) | panels(part["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
