"""The meaning of the mask's ids: as JSON, and with vision_msgs as `vision_msgs/LabelInfo`."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header, String

from camseg_core.labels import UNLABELLED, Label

LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For topics published once: late subscribers with the same durability receive the last message."""

Info = TypeVar("Info")


def label_table(model: str, labels: Sequence[Label]) -> String:
    """Return the classes as JSON.

    `{"model": name, "unlabelled": 255, "classes": [{"id": 0, "name": "road", "color": [r, g, b]},
    ...]}`: `unlabelled` is the id of pixels without a class; it is not in `classes`.
    """
    classes = [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels]
    table = {"model": model, "unlabelled": UNLABELLED, "classes": classes}
    return String(data=json.dumps(table, ensure_ascii=False))


def label_info_types() -> tuple[Any, Any] | None:
    """Return LabelInfo and VisionClass of `vision_msgs`; None if it is missing or too old."""
    try:
        from vision_msgs.msg import LabelInfo, VisionClass
    except ImportError:
        return None
    return LabelInfo, VisionClass


def label_info(
    make_info: Callable[..., Info],
    make_class: Callable[..., object],
    labels: Sequence[Label],
    header: Header,
    threshold: float = 0.0,
) -> Info:
    """Return the classes as `vision_msgs/LabelInfo`, which Nav2's semantic segmentation layer
    reads.

    Its definition reserves the largest uint8 id, 255, for unlabelled pixels; that id has no entry.

    Args:
        make_info: LabelInfo, with the fields header, class_map and threshold.
        make_class: VisionClass, with the fields class_id and class_name.
        labels: the classes that the mask can contain.
        header: stamp and frame.
        threshold: confidence, 0 to 1, below which pixels are unlabelled; 0 for none.
    """
    class_map = [make_class(class_id=label.id, class_name=label.name) for label in labels]
    return make_info(header=header, class_map=class_map, threshold=float(threshold))


class LabelTopics:
    """The latched `segmentation/labels`, and with vision_msgs `segmentation/label_info`."""

    def __init__(self, node: Node) -> None:
        self._node, self._types = node, label_info_types()
        self._table = node.create_publisher(String, "segmentation/labels", LATCHED)
        self._info: Publisher[Any] | None = None
        if self._types is not None:
            self._info = node.create_publisher(self._types[0], "segmentation/label_info", LATCHED)

    def publish(self, model: str, labels: Sequence[Label]) -> None:
        """Publish the meaning of the ids from now on."""
        self._table.publish(label_table(model, labels))
        if self._info is not None and self._types is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._info.publish(label_info(*self._types, labels, header))

    def destroy(self) -> None:
        """Remove the publishers from the middleware."""
        for publisher in (self._table, self._info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
