"""One camera of the node: its subscription, its publishers and its counts."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from collections.abc import Callable

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.runtime import Segmentation
from camseg_core.runtime.overlay import colorize, overlay
from camseg_ros.image_conversion import Converter, Pixels
from camseg_ros.image_messages import compressed_to_rgb, image_message, image_to_rgb
from camseg_ros.parameters import Parameters
from camseg_ros.statistics import StreamStatistics

DEPTH = 5


def _qos(reliability: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=DEPTH, history=HistoryPolicy.KEEP_LAST, reliability=reliability, durability=DurabilityPolicy.VOLATILE)


class Camera:
    """The topics of one camera. Publishers exist from the start; images are taken between `subscribe` and `unsubscribe`.

    Attributes:
        topic: the input's resolved name.
        statistics: of the camera's stream.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node = node
        self._compressed = parameters.image_transport == "compressed"
        self._input_qos = _qos(ReliabilityPolicy.RELIABLE if parameters.image_reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT)
        self._max_bytes = parameters.max_image_bytes
        self._subscription: Subscription[Image | CompressedImage] | None = None
        # As image_transport does it: the remapped name of the raw topic, then the transport.
        self.topic: str = node.resolve_topic_name("image") + ("/compressed" if self._compressed else "")
        self.statistics = StreamStatistics()
        # Reliable publishers match reliable and best-effort subscribers alike.
        qos = _qos(ReliabilityPolicy.RELIABLE)
        self._mask = node.create_publisher(Image, "segmentation/mask", qos)
        self._color = node.create_publisher(Image, "segmentation/color", qos)
        self._overlay = node.create_publisher(Image, "segmentation/overlay", qos)

    def subscribe(self, on_message: Callable[[Image | CompressedImage], None]) -> None:
        """Hand every message of the camera to `on_message`, in the executor's thread."""
        message_type = CompressedImage if self._compressed else Image
        self._subscription = self._node.create_subscription(message_type, self.topic, on_message, self._input_qos)

    def unsubscribe(self) -> None:
        """Take no more images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def publisher_count(self) -> int:
        """How many publishers the middleware has found on the input topic, of whatever QoS."""
        return self._node.count_publishers(self.topic)

    def decode(self, message: Image | CompressedImage, converter: Converter) -> Pixels:
        """The message's picture as RGB `(H, W, 3)`.

        Raises:
            BadImage: the message is not the picture it claims to be.
            ConfigError: nothing installed here converts its encoding.
        """
        if self._compressed:
            return compressed_to_rgb(message, self._max_bytes)
        return image_to_rgb(message, converter, self._max_bytes)

    def publish(self, header: Header, rgb: Pixels, result: Segmentation, opacity: float) -> tuple[float | None, list[str]]:
        """Publish the mask, and the pictures of it that have a subscriber, with the image's own stamp and frame.

        Returns:
            The moment when the mask was out (`time.monotonic`; None if it could not be published), and one text for each
            topic on which nothing could be published.
        """
        failures: list[str] = []
        mask_sent = self._send(self._mask, image_message(result.mask, "mono8", header), failures)
        mask_out = time.monotonic() if mask_sent else None
        if self._color.get_subscription_count():
            self._send(self._color, image_message(colorize(result.mask), "rgb8", header), failures)
        if self._overlay.get_subscription_count():
            self._send(self._overlay, image_message(overlay(rgb, result.mask, opacity), "rgb8", header), failures)
        return mask_out, failures

    @staticmethod
    def _send(publisher: Publisher[Image], message: Image, failures: list[str]) -> bool:
        try:
            publisher.publish(message)
        except rclpy_implementation.RCLError as error:  # a saturated reliable writer
            failures.append(f"cannot publish on {publisher.topic_name}: {error}; a reliable subscriber may be too slow")
            return False
        return True
