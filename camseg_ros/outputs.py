"""What is published for one camera. Without a subscriber, only the mask is computed."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64, Header

from camseg_core.labels import UNLABELLED
from camseg_core.masks import ClassTable, colorize, overlay
from camseg_core.runtime import Segmentation
from camseg_ros.image_conversion import Pixels
from camseg_ros.messages import (
    compressed_message,
    publish_each,
    publish_failure,
    run_length_message,
    scaled_camera_info,
)

QUEUE_DEPTH = 5


def image_qos(reliability: str) -> QoSProfile:
    """Return the QoS of an image stream, "reliable" or "best_effort"; a short queue, volatile."""
    return QoSProfile(
        depth=QUEUE_DEPTH,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy[reliability.upper()],
        durability=DurabilityPolicy.VOLATILE,
    )


def image_message(pixels: Pixels, encoding: Literal["mono8", "rgb8"], header: Header) -> Image:
    """Return `pixels`, `(H, W)` for mono8 or `(H, W, 3)` for rgb8, as a `sensor_msgs/Image` with
    this header.

    `camseg_ros.images` does the reverse, without ROS.
    """
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0)
    message.step = pixels.nbytes // height
    # Filling the array in place takes 0.2 ms at 1080p; assigning an ndarray to `data` takes 650.
    message.data.frombytes(np.ascontiguousarray(pixels).data)
    return message


def stamp_seconds(header: Header) -> float:
    """Return a header's stamp in seconds."""
    return float(header.stamp.sec + header.stamp.nanosec / 1e9)


class CameraOutputs:
    """The publishers of one camera, under `<camera>/segmentation/`.

    Args:
        node: creates the publishers.
        camera: the camera's name; empty for the unnamed one.
        reliability: reliable or best_effort.
        run_length: also publish the run-length mask.
    """

    def __init__(self, node: Node, camera: str, reliability: str, run_length: bool) -> None:
        self._node, self.qos = node, image_qos(reliability)
        self._prefix = f"{camera}/segmentation" if camera else "segmentation"
        self._publishers: list[Publisher[Any]] = []
        self.mask = self._publisher(Image, "mask")
        self._mask_png = self._publisher(CompressedImage, "mask/compressed")
        self._confidence = self._publisher(Image, "confidence")
        self._confidence_png = self._publisher(CompressedImage, "confidence/compressed")
        self._color = self._publisher(Image, "color")
        self._color_png = self._publisher(CompressedImage, "color/compressed")
        self._overlay = self._publisher(Image, "overlay")
        self._overlay_jpeg = self._publisher(CompressedImage, "overlay/compressed")
        self._camera_info = self._publisher(CameraInfo, "camera_info")
        self._run_length = self._publisher(Image, "mask_rle") if run_length else None

    @property
    def topics(self) -> list[str]:
        """Resolved names of all topics."""
        return [publisher.topic_name for publisher in self._publishers]

    def destroy(self) -> None:
        """Remove the publishers from the middleware."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []

    def publish(
        self,
        header: Header,
        rgb: Pixels,
        result: Segmentation,
        table: ClassTable,
        opacity: float,
        info: CameraInfo | None,
    ) -> tuple[float | None, list[str]]:
        """Publish a frame's mask, and everything else that has a subscriber, with the same header.

        Args:
            header: of all messages.
            rgb: the frame `(H, W, 3)`.
            result: the segmentation; its mask `(h, w)` holds the model's ids.
            table: maps them to the published ids and colours.
            opacity: of the overlay, 0 to 1.
            info: calibration of the frame's camera, if known.

        Returns:
            When the mask was published (`time.monotonic`; None if that failed), and one error text
            per failed topic.
        """
        failures: list[str] = []
        mask, view = table.apply(result.mask), result.view
        height, width = mask.shape

        def send(publisher: Publisher[Any] | None, make: Callable[..., Any], *parts: Any) -> bool:
            if publisher is None:
                return False
            if publisher is not self.mask and not publisher.get_subscription_count():
                return False
            try:
                publisher.publish(make(*parts))
            except Exception as error:  # a saturated reliable writer raises; go on regardless
                failures.append(publish_failure(publisher, error))
                return False
            return True

        def confidence() -> Pixels:
            scaled = np.rint(result.confidence * np.float32(255)).astype(np.uint8)
            scaled[mask == UNLABELLED] = 0
            return scaled

        def color() -> Pixels:
            return colorize(mask, table.colors)

        def picture() -> Pixels:
            return overlay(view.picture(rgb, (height, width)), mask, opacity, table.colors)

        sent = send(self.mask, image_message, mask, "mono8", header)
        published = time.monotonic() if sent else None
        send(self._confidence, lambda: image_message(confidence(), "mono8", header))
        if info is not None:
            place = (view.left, view.top, view.scale_x, view.scale_y, width, height)
            send(self._camera_info, scaled_camera_info, info, header, *place)
        send(self._run_length, run_length_message, mask, header)
        send(self._mask_png, compressed_message, mask, "mono8", header, "png")
        send(self._confidence_png, lambda: compressed_message(confidence(), "mono8", header, "png"))
        send(self._color, lambda: image_message(color(), "rgb8", header))
        send(self._color_png, lambda: compressed_message(color(), "rgb8", header, "png"))
        send(self._overlay, lambda: image_message(picture(), "rgb8", header))
        send(self._overlay_jpeg, lambda: compressed_message(picture(), "rgb8", header, "jpeg"))
        return published, failures

    def _publisher(self, message_type: Any, topic: str) -> Publisher[Any]:
        publisher = self._node.create_publisher(message_type, f"{self._prefix}/{topic}", self.qos)
        self._publishers.append(publisher)
        return publisher


class DebugTopics:
    """The times of each frame: `~/debug/processing_time_ms` and `~/debug/pipeline_latency_ms`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._processing = node.create_publisher(Float64, "~/debug/processing_time_ms", 10)
        self._latency = node.create_publisher(Float64, "~/debug/pipeline_latency_ms", 10)

    def publish(self, began: float, published: float, header: Header) -> list[str]:
        """Publish the times of a frame whose mask was published, if anyone subscribes.

        Args:
            began: when the work on the frame began (`time.monotonic`).
            published: when its mask was published; pictures of it may have followed.
            header: of the frame; a zero stamp has no latency.

        Returns:
            One error text per failed topic.
        """
        messages: list[tuple[Publisher[Any], Float64]] = []
        if self._processing.get_subscription_count():
            messages.append((self._processing, Float64(data=(published - began) * 1e3)))
        if self._latency.get_subscription_count() and (stamp := stamp_seconds(header)):
            now = self._node.get_clock().now().nanoseconds / 1e9
            then = now - (time.monotonic() - published)
            messages.append((self._latency, Float64(data=(then - stamp) * 1e3)))
        return publish_each(messages) if messages else []

    def destroy(self) -> None:
        """Remove the publishers from the middleware."""
        for publisher in (self._processing, self._latency):
            self._node.destroy_publisher(publisher)
