"""What the ids in the mask mean, for other nodes: as JSON, and as `vision_msgs/LabelInfo` where that package is installed."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64, Header, String

from camseg_core.labels import UNLABELLED, Label

LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For what is published once: who subscribes later, with the same durability, still gets it."""

Info = TypeVar("Info")


def label_table(model: str, labels: Sequence[Label]) -> String:
    """The classes as JSON: `{"model": name, "unlabelled": 255, "classes": [{"id": 0, "name": "road", "color": [r, g, b]}, ...]}`.

    `unlabelled` is the id of pixels without a class; it is not among the classes.
    """
    classes = [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels]
    return String(
        data=json.dumps(
            {"model": model, "unlabelled": UNLABELLED, "classes": classes}, ensure_ascii=False
        )
    )


def label_info_types() -> tuple[Any, Any] | None:
    """`vision_msgs`' classes LabelInfo and VisionClass; None where the package is missing or too old to have them."""
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
    """The classes as a `vision_msgs/LabelInfo`, which Nav2's semantic segmentation layer reads.

    Its definition gives the greatest id of a uint8 mask, 255, to unlabelled pixels; no entry is made for it.

    Args:
        make_info: the class LabelInfo, with the fields header, class_map and threshold.
        make_class: the class VisionClass, with the fields class_id and class_name.
        labels: the classes that the mask can hold.
        header: its stamp and frame.
        threshold: the confidence, 0 to 1, below which pixels were left unlabelled; 0: none were.
    """
    class_map = [make_class(class_id=label.id, class_name=label.name) for label in labels]
    return make_info(header=header, class_map=class_map, threshold=float(threshold))


class LabelTopics:
    """The latched label table, `segmentation/labels`, and `segmentation/label_info` where vision_msgs is installed."""

    def __init__(self, node: Node) -> None:
        self._node, self._types = node, label_info_types()
        self._table = node.create_publisher(String, "segmentation/labels", LATCHED)
        self._info: Publisher[Any] | None = None
        if self._types is not None:
            self._info = node.create_publisher(self._types[0], "segmentation/label_info", LATCHED)

    def publish(self, model: str, labels: Sequence[Label]) -> None:
        """Tell what the ids mean from now on."""
        self._table.publish(label_table(model, labels))
        if self._info is not None and self._types is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._info.publish(label_info(*self._types, labels, header))

    def destroy(self) -> None:
        """Take them out of the middleware."""
        for publisher in (self._table, self._info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


class DebugTopics:
    """How long each frame took, for a subscriber: `~/debug/processing_time_ms` and `~/debug/pipeline_latency_ms`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._processing = node.create_publisher(Float64, "~/debug/processing_time_ms", 10)
        self._latency = node.create_publisher(Float64, "~/debug/pipeline_latency_ms", 10)

    def publish(self, processing_ms: float, stamp: float) -> None:
        """Tell of a frame whose mask has just gone out.

        Args:
            processing_ms: from the start of work on it to its mask, in ms.
            stamp: of the frame, in seconds of the node's clock; zero stamps have no latency.
        """
        if self._processing.get_subscription_count():
            self._processing.publish(Float64(data=processing_ms))
        if stamp and self._latency.get_subscription_count():
            self._latency.publish(
                Float64(data=self._node.get_clock().now().nanoseconds / 1e6 - stamp * 1e3)
            )

    def destroy(self) -> None:
        """Take them out of the middleware."""
        for publisher in (self._processing, self._latency):
            self._node.destroy_publisher(publisher)
