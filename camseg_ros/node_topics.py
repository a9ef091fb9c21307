"""Topics of the node that belong to no camera: what the ids mean, and how long frames take."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Float64, Header, String

from camseg_core.labels import Label
from camseg_ros.label_table import LATCHED, label_info, label_info_types, label_table


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
            self._latency.publish(Float64(data=self._node.get_clock().now().nanoseconds / 1e6 - stamp * 1e3))

    def destroy(self) -> None:
        """Take them out of the middleware."""
        for publisher in (self._processing, self._latency):
            self._node.destroy_publisher(publisher)
