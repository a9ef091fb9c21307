"""The label table in both forms; late subscribers receive it from the latched topic."""

import json
from dataclasses import dataclass, field

import pytest
from rclpy.node import Node
from ros_harness import Driver, header
from std_msgs.msg import Header, String

from camseg_core.labels import CITYSCAPES, Label
from camseg_ros.messages import LATCHED, label_info, label_info_types, label_table


@dataclass
class VisionClass:
    """The fields of `vision_msgs/VisionClass`: uint16 class_id, string class_name."""

    class_id: int = 0
    class_name: str = ""


@dataclass
class LabelInfo:
    """The fields of `vision_msgs/LabelInfo`."""

    header: Header = field(default_factory=Header)
    class_map: list[VisionClass] = field(default_factory=list)
    threshold: float = 0.0


def test_the_json_holds_model_classes_and_the_unlabelled_id() -> None:
    table = json.loads(label_table("camseg-lite", CITYSCAPES).data)
    assert list(table) == ["model", "unlabelled", "classes"]
    assert (table["model"], table["unlabelled"]) == ("camseg-lite", 255)
    assert len(table["classes"]) == 19
    assert table["classes"][0] == {"id": 0, "name": "road", "color": [128, 64, 128]}
    assert [(c["id"], c["name"], tuple(c["color"])) for c in table["classes"]] == [
        (la.id, la.name, la.color) for la in CITYSCAPES
    ]


def test_any_name_survives_the_json() -> None:
    labels = (Label(4, 'Straße "A"\n', (1, 2, 3)),)
    message = label_table('C:\\models\\"x"', labels)
    assert "Straße" in message.data
    assert json.loads(message.data) == {
        "model": 'C:\\models\\"x"',
        "unlabelled": 255,
        "classes": [{"id": 4, "name": 'Straße "A"\n', "color": [1, 2, 3]}],
    }


def test_label_info_has_every_class_by_id_and_none_for_unlabelled() -> None:
    info = label_info(LabelInfo, VisionClass, CITYSCAPES, header(5), threshold=0.25)
    assert info.header == header(5)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [
        (label.id, label.name) for label in CITYSCAPES
    ]
    assert info.threshold == 0.25
    assert label_info(LabelInfo, VisionClass, CITYSCAPES[:2], header(5)) == LabelInfo(
        header(5), [VisionClass(0, "road"), VisionClass(1, "sidewalk")], 0.0
    )


def test_label_info_in_the_real_message() -> None:
    types = label_info_types()
    if types is None:
        pytest.skip("vision_msgs is not installed")
    info = label_info(*types, CITYSCAPES, header(5), threshold=1)
    assert info.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "class_map": "sequence<vision_msgs/VisionClass>",
        "threshold": "float",
    }
    assert (info.class_map[18].class_id, info.class_map[18].class_name, info.threshold) == (
        18,
        "bicycle",
        1.0,
    )


def test_late_subscribers_receive_the_table(driver: Driver) -> None:
    publisher_node = Node("table_publisher")
    try:
        publisher_node.create_publisher(String, "late_labels", LATCHED).publish(
            label_table("m", CITYSCAPES)
        )
        heard = driver.listen(String, "late_labels", LATCHED)
        driver.wait(lambda: heard, "the table")
        assert json.loads(heard[0].data)["model"] == "m"
    finally:
        publisher_node.destroy_node()
