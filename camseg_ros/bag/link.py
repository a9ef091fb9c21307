"""What every replay shares: a camera and a listener in one ROS domain, and the wait for the node there. Needs rclpy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.errors import CamSegError
from camseg_ros.image_messages import image_message

CHECK_S = 0.2
"""How long to wait for messages before looking whether the node still runs, in s."""

GREETING_NS = 1
GREET_AGAIN_S = 3.0
"""The stamp of the picture that is sent before the bag's, in ns, and how long to wait for its answer before the next, in s."""

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

MASK, OVERLAY = "mask", "overlay"


@dataclass(frozen=True)
class Topics:
    """The names that a replay publishes and listens to."""

    image: str = "/camera/image_raw"
    mask: str = "/segmentation/mask"
    overlay: str = "/segmentation/overlay"
    diagnostics: str = "/diagnostics"


class Link:
    """A camera and a listener in one ROS domain. A context manager.

    Attributes:
        topics: the names used.
        node: the rclpy node behind it.
        image_topic: the name that the images go out on, with its transport.
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
            topics: the names to use.
            answers: what to listen to, of `MASK` and `OVERLAY`; the node makes an overlay only where one is listened to.
            answer_qos: of these subscriptions.
            raw: take the answers as they came, without deserializing them.

        Raises:
            CamSegError: the middleware cannot be started.
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
        except (
            Exception
        ) as error:  # rclpy passes on whatever rcl says, as RuntimeError and its own types
            raise CamSegError(
                f"cannot join the ROS domain {domain}: {error}; is the log folder writable?"
            ) from error
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        kind, self.image_topic = (
            (CompressedImage, f"{topics.image}/compressed") if compressed else (Image, topics.image)
        )
        self._camera = self.node.create_publisher(kind, self.image_topic, RELIABLE)
        names = {MASK: topics.mask, OVERLAY: topics.overlay}
        self._listeners = [
            self.node.create_subscription(
                Image, names[answer], self._receiver(answer), answer_qos, raw=raw
            )
            for answer in answers
        ]
        self.node.create_subscription(DiagnosticArray, topics.diagnostics, self._diagnose, RELIABLE)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait_for_node(
        self, size: tuple[int, int], timeout_s: float, check: Callable[[], None]
    ) -> None:
        """Wait until a node listens to the images, and has answered a grey picture with all that is listened to.

        Discovery ends at different moments on the two sides, and only an answer shows that it has on both. It also leaves
        the model's warm-up out of what is measured.

        Args:
            size: width and height of the picture to send.
            timeout_s: how long to wait in all, in s.
            check: called now and then; raises where waiting is of no use any more.

        Raises:
            CamSegError: there is none in time; names what is missing.
        """
        end = time.monotonic() + timeout_s
        wanted: list[tuple[Any, str]] = [
            (self._camera, "subscriber"),
            *((each, "publisher") for each in self._listeners),
        ]

        def missing() -> list[str]:
            return [f"{kind} of {each.topic_name}" for each, kind in wanted if not _matched(each)]

        def answered() -> bool:
            return len(self._greeted) == len(self._listeners)

        if not self.spin_until(lambda: not missing(), timeout_s, check):
            raise CamSegError(
                f"no node after {timeout_s:.0f} s: no {', no '.join(missing())}; does it use these topics and reliable QoS?"
            )
        while not answered() and time.monotonic() < end:
            self._camera.publish(self._greeting(*size))
            self.spin_until(answered, min(GREET_AGAIN_S, end - time.monotonic()), check)
        if not answered():
            answers = " and ".join(each.topic_name for each in self._listeners)
            raise CamSegError(
                f"the node did not answer on {answers} within {timeout_s:.0f} s; see its log"
            )

    def watch(self, seconds: float, check: Callable[[], None]) -> None:
        """Listen until the next diagnostics, at most for `seconds`."""
        self.diagnostics.clear()
        self.spin_until(lambda: bool(self.diagnostics), seconds, check)

    def spin_until(
        self, done: Callable[[], bool], timeout_s: float, check: Callable[[], None]
    ) -> bool:
        """Handle messages until `done`, at most for `timeout_s`; says whether it was. `check` as in `wait_for_node`."""
        end = time.monotonic() + timeout_s
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, CHECK_S))
            check()
        return True

    def _header(self, message: Any) -> tuple[int, str]:
        """Stamp in ns and frame_id of an answer."""
        stamp = message.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id

    def _answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        """An answer came that is not that to a greeting; `kind` is `MASK` or `OVERLAY`."""
        raise NotImplementedError

    def _receiver(self, kind: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            stamp_ns, frame_id = self._header(message)
            if stamp_ns == GREETING_NS:
                self._greeted[kind] = frame_id
            else:
                self._answer(message, stamp_ns, frame_id, kind)

        return receive

    def _greeting(self, width: int, height: int) -> Image | CompressedImage:
        header = Header(stamp=Time(nanosec=GREETING_NS), frame_id="greeting")
        grey = np.full((height, width, 3), 128, np.uint8)
        if self.compressed:
            return CompressedImage(
                header=header, format="jpeg", data=cv2.imencode(".jpg", grey)[1].tobytes()
            )
        return image_message(grey, "rgb8", header)

    def _diagnose(self, message: Any) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {
                "message": status.message,
                **{each.key: each.value for each in status.values},
            }


def _matched(endpoint: Any) -> bool:
    """Whether a publisher has a subscriber, or a subscription a publisher."""
    count = (
        endpoint.get_subscription_count
        if hasattr(endpoint, "get_subscription_count")
        else endpoint.get_publisher_count
    )
    return bool(count())
