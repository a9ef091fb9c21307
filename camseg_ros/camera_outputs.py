"""What is published for one camera. For a topic that nobody listens to nothing is computed, but for the mask itself."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.class_table import ClassTable
from camseg_core.runtime import Segmentation
from camseg_core.runtime.overlay import colorize, overlay
from camseg_ros.camera_info import scaled
from camseg_ros.compressed_output import compressed_message
from camseg_ros.image_conversion import Pixels
from camseg_ros.image_messages import image_message
from camseg_ros.run_length import run_length_message

DEPTH = 5


def image_qos(reliability: str) -> QoSProfile:
    """The QoS of a stream of images: the last few, and nothing for those who come late."""
    policy = (
        ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    )
    return QoSProfile(
        depth=DEPTH,
        history=HistoryPolicy.KEEP_LAST,
        reliability=policy,
        durability=DurabilityPolicy.VOLATILE,
    )


class CameraOutputs:
    """The publishers of one camera, under `<camera>/segmentation/`.

    Args:
        node: makes the publishers.
        camera: its name; empty for the one without.
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
        """Their resolved names."""
        return [publisher.topic_name for publisher in self._publishers]

    def destroy(self) -> None:
        """Take the publishers out of the middleware."""
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
        """Publish a frame's mask, and what else has a subscriber, with the same header.

        Args:
            header: of all messages.
            rgb: the frame `(H, W, 3)`.
            result: of the model; its mask `(h, w)` holds the model's ids.
            table: which ids and colours they are published with.
            opacity: of the overlay, 0 to 1.
            info: the calibration of the frame's camera, if there is one.

        Returns:
            The moment when the mask was out (`time.monotonic`; None if it could not be published), and one text for each
            topic on which nothing could be published.
        """
        failures: list[str] = []
        mask, view = table.apply(result.mask), result.view
        height, width = mask.shape

        def send(publisher: Publisher[Any] | None, make: Callable[[], Any]) -> bool:
            if publisher is None or not (
                publisher is self.mask or publisher.get_subscription_count()
            ):
                return False
            try:
                publisher.publish(make())
            except Exception as error:  # a saturated reliable writer raises; whatever else goes wrong, the next frame is served
                failures.append(
                    f"cannot publish on {publisher.topic_name}: {error}; a reliable subscriber may be too slow"
                )
                return False
            return True

        def confidence() -> Pixels:
            return np.rint(result.confidence * np.float32(255)).astype(np.uint8)

        def color() -> Pixels:
            return colorize(mask, table.colors)

        def picture() -> Pixels:
            return overlay(view.picture(rgb, (height, width)), mask, opacity, table.colors)

        mask_out = (
            time.monotonic()
            if send(self.mask, lambda: image_message(mask, "mono8", header))
            else None
        )
        send(self._confidence, lambda: image_message(confidence(), "mono8", header))
        if info is not None:
            send(
                self._camera_info,
                lambda: scaled(
                    info, header, view.left, view.top, view.scale_x, view.scale_y, width, height
                ),
            )
        send(self._run_length, lambda: run_length_message(mask, header))
        send(self._mask_png, lambda: compressed_message(mask, "mono8", header, "png"))
        send(self._confidence_png, lambda: compressed_message(confidence(), "mono8", header, "png"))
        send(self._color, lambda: image_message(color(), "rgb8", header))
        send(self._color_png, lambda: compressed_message(color(), "rgb8", header, "png"))
        send(self._overlay, lambda: image_message(picture(), "rgb8", header))
        send(self._overlay_jpeg, lambda: compressed_message(picture(), "rgb8", header, "jpeg"))
        return mask_out, failures

    def _publisher(self, message_type: Any, topic: str) -> Publisher[Any]:
        publisher = self._node.create_publisher(message_type, f"{self._prefix}/{topic}", self.qos)
        self._publishers.append(publisher)
        return publisher
