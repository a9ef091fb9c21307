"""Connects a replay to the node: a camera and a listener in one ROS domain. Needs rclpy."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.errors import CamSegError, ConfigError
from camseg_ros.bag.storage import SECOND_NS
from camseg_ros.outputs import image_message

CHECK_S = 0.2
"""How long to wait for messages before checking that the node still runs."""

MAX_GAP_S = 2.0
"""Longer pauses of a recording are shortened to this when it is replayed."""

GREETING_NS = 1
"""Stamp of the picture sent before those of the bag."""

GREETING_RETRY_S = 3.0
"""How long to wait for its answer before it is sent again."""

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

MASK, OVERLAY = "mask", "overlay"


@dataclass(frozen=True)
class Topics:
    """The topics that a replay publishes and subscribes to."""

    image: str = "/camera/image_raw"
    mask: str = "/segmentation/mask"
    overlay: str = "/segmentation/overlay"
    diagnostics: str = "/diagnostics"

    def check(self) -> None:
        """Raise ConfigError if a name is not valid for a topic."""
        for name in vars(self).values():
            try:
                validate_topic_name(name)
            except InvalidTopicNameException as error:
                reason = str(error).partition("\n")[0].rstrip(":")
                raise ConfigError(
                    f"a topic must have a valid name, got {name!r}: {reason}"
                ) from error


class Link(ABC):
    """A camera and a listener in one ROS domain; leaving the `with` block leaves the domain.

    Attributes:
        topics: the topics in use.
        node: the rclpy node behind it.
        image_topic: the topic of the images, with its transport.
        diagnostics: the newest keys and values of every component on /diagnostics, by its name.
    """

    def __init__(
        self,
        domain: int,
        compressed: bool,
        topics: Topics,
        answers: Sequence[str],
        answer_qos: QoSProfile = RELIABLE,
        raw: bool = False,
    ) -> None:
        """Join the domain.

        Args:
            domain: the ROS domain.
            compressed: whether the images are `CompressedImage`.
            topics: the topics to use.
            answers: what to subscribe to: `MASK`, `OVERLAY` or both. The node only makes an overlay
                that has a subscriber.
            answer_qos: QoS of these subscriptions.
            raw: receive the answers serialized.

        Raises:
            CamSegError: the middleware cannot be started.
            ConfigError: a topic is invalid.
        """
        self.topics, self.compressed = topics, compressed
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._greeted: dict[str, str] = {}
        self._context = Context()
        try:
            rclpy.init(args=[], context=self._context, domain_id=domain)
            self.node = rclpy.create_node(
                "camseg_replay", context=self._context, use_global_arguments=False
            )
        except Exception as error:  # RuntimeError, and rclpy's own types
            raise CamSegError(
                f"cannot join the ROS domain {domain}: {error}; is the log folder writable?"
            ) from error
        self._executor = SingleThreadedExecutor(context=self._context)
        try:
            self._connect(answers, answer_qos, raw)
        except Exception as error:
            self.__exit__()
            raise ConfigError(f"cannot create a topic: {' '.join(str(error).split())}") from error

    def _connect(self, answers: Sequence[str], answer_qos: QoSProfile, raw: bool) -> None:
        topics = self.topics
        self._executor.add_node(self.node)
        self.image_topic = f"{topics.image}/compressed" if self.compressed else topics.image
        kind = CompressedImage if self.compressed else Image
        self._camera = self.node.create_publisher(kind, self.image_topic, RELIABLE)
        names = {MASK: topics.mask, OVERLAY: topics.overlay}
        self._listeners = [
            self.node.create_subscription(
                Image, names[answer], self._receiver(answer), answer_qos, raw=raw
            )
            for answer in answers
        ]
        self.node.create_subscription(
            DiagnosticArray, topics.diagnostics, self._on_diagnostics, RELIABLE
        )

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait_for_node(
        self, size: tuple[int, int], timeout_s: float, check: Callable[[], None]
    ) -> None:
        """Wait until a node has answered a grey picture on every subscribed topic.

        Discovery ends at different times on the two sides, and only an answer shows that it ended
        on both. It also keeps the model's warm-up out of the measurement.

        Args:
            size: width and height of the picture, in pixels.
            timeout_s: how long to wait in all.
            check: called regularly; raises to end the wait.

        Raises:
            CamSegError: no node answered in time; names what is missing.
        """
        end = time.monotonic() + timeout_s
        endpoints = [("subscriber", self._camera.topic_name, self._camera.get_subscription_count)]
        endpoints += [
            ("publisher", each.topic_name, self._publisher_count(each)) for each in self._listeners
        ]

        def missing() -> list[str]:
            return [f"no {kind} of {topic}" for kind, topic, count in endpoints if not count()]

        def answered() -> bool:
            return len(self._greeted) == len(self._listeners)

        if not self.spin_until(lambda: not missing(), timeout_s, check):
            raise CamSegError(
                f"no node after {timeout_s:.0f} s: {', '.join(missing())}; "
                "does it use these topics and reliable QoS?"
            )
        while not answered() and time.monotonic() < end:
            self._camera.publish(self._greeting(*size))
            self.spin_until(answered, min(GREETING_RETRY_S, end - time.monotonic()), check)
        if not answered():
            topics = " and ".join(each.topic_name for each in self._listeners)
            raise CamSegError(
                f"the node did not answer on {topics} within {timeout_s:.0f} s; see its log"
            )

    def _publisher_count(self, listener: Subscription[Image]) -> Callable[[], int]:
        """Return what counts a subscription's publishers: the matched ones, from Jazzy on."""
        matched: Callable[[], int] | None = getattr(listener, "get_publisher_count", None)
        return matched or partial(self.node.count_publishers, listener.topic_name)

    def wait_for_diagnostics(self, seconds: float, check: Callable[[], None]) -> None:
        """Receive messages until the next diagnostics, for at most `seconds`."""
        self.diagnostics.clear()
        self.spin_until(lambda: bool(self.diagnostics), seconds, check)

    def spin_until(
        self, done: Callable[[], bool], timeout_s: float, check: Callable[[], None]
    ) -> bool:
        """Handle messages until `done`, for at most `timeout_s`; return whether it was done.

        `check` is called regularly and raises to end the wait.
        """
        end = time.monotonic() + timeout_s
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, CHECK_S))
            check()
        return True

    def _header(self, message: Any) -> tuple[int, str]:
        """Return the stamp in ns and the frame_id of an answer."""
        stamp = message.header.stamp
        return stamp.sec * SECOND_NS + stamp.nanosec, message.header.frame_id

    @abstractmethod
    def _on_answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        """Handle an answer to an image; `kind` is `MASK` or `OVERLAY`."""

    def _receiver(self, kind: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            stamp_ns, frame_id = self._header(message)
            if stamp_ns == GREETING_NS:
                self._greeted[kind] = frame_id
            else:
                self._on_answer(message, stamp_ns, frame_id, kind)

        return receive

    def _greeting(self, width: int, height: int) -> Image | CompressedImage:
        header = Header(stamp=Time(nanosec=GREETING_NS), frame_id="greeting")
        grey = np.full((height, width, 3), 128, np.uint8)
        if self.compressed:
            data = cv2.imencode(".jpg", grey)[1].tobytes()
            return CompressedImage(header=header, format="jpeg", data=data)
        return image_message(grey, "rgb8", header)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            values = {each.key: each.value for each in status.values}
            self.diagnostics[status.name] = {"message": status.message, **values}
