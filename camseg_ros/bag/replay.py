"""Replays the images of a bag over DDS into a running segmentation node and hands back what it answers. Needs rclpy."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.errors import CamSegError
from camseg_ros.bag.read import BagImage
from camseg_ros.image_messages import image_message

CHECK_S = 0.2
"""How long to wait for messages before looking whether the node still runs, in s."""

LONGEST_GAP_S = 2.0
"""A longer pause in the recording is shortened to this, in s."""

GREETING_NS = 1
GREET_AGAIN_S = 3.0
"""The stamp of the picture that is sent before the bag's, in ns, and how long to wait for its answer before the next, in s."""

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Topics:
    """The names that a replay publishes and listens to."""

    image: str = "/camera/image_raw"
    mask: str = "/segmentation/mask"
    overlay: str = "/segmentation/overlay"
    diagnostics: str = "/diagnostics"


@dataclass(frozen=True)
class FrameResult:
    """What came back for one image.

    `latency_s` is the time from sending the image to having its mask, in s; None where the frame was lost. `mask` is
    `(H, W)` uint8, `overlay` RGB `(H, W, 3)` uint8. `problem` says what is wrong with the answer, or why there is none.
    """

    image: BagImage
    latency_s: float | None = None
    mask: Pixels | None = None
    overlay: Pixels | None = None
    problem: str | None = None

    @property
    def lost(self) -> bool:
        """Whether no mask came back in time."""
        return self.latency_s is None


@dataclass
class _Pending:
    """An image on its way: when it was sent (s, monotonic) and what has come back so far."""

    sent: float
    answered: float | None = None
    mask: Any = None
    overlay: Any = None

    @property
    def complete(self) -> bool:
        return self.mask is not None and self.overlay is not None


@dataclass
class Replay:
    """A camera and a listener in one ROS domain. A context manager.

    Attributes:
        strays: masks with a stamp that was never sent.
        late: masks that came after their frame had been given up.
        diagnostics: the newest keys and values of every component on /diagnostics, by its name.
    """

    domain: int
    compressed: bool = False
    topics: Topics = field(default_factory=Topics)
    strays: int = 0
    late: int = 0
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Join the domain.

        Raises:
            CamSegError: the middleware cannot be started.
        """
        self._pending: dict[int, _Pending] = {}
        self._given_up: set[int] = set()
        self._context = Context()
        try:
            rclpy.init(args=[], context=self._context, domain_id=self.domain)
            self._node = rclpy.create_node("camseg_replay", context=self._context, use_global_arguments=False)
        except Exception as error:  # rclpy passes on whatever rcl says, as RuntimeError and its own types
            raise CamSegError(f"cannot join the ROS domain {self.domain}: {error}; is the log folder writable?") from error
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        kind, name = (CompressedImage, f"{self.topics.image}/compressed") if self.compressed else (Image, self.topics.image)
        self._camera = self._node.create_publisher(kind, name, RELIABLE)
        subscribe = self._node.create_subscription
        self._listeners = [
            subscribe(Image, self.topics.mask, lambda message: self._answer(message, "mask"), RELIABLE),
            subscribe(Image, self.topics.overlay, lambda message: self._answer(message, "overlay"), RELIABLE),
        ]
        subscribe(DiagnosticArray, self.topics.diagnostics, self._diagnose, RELIABLE)

    def __enter__(self) -> "Replay":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_for_node(self, size: tuple[int, int], timeout_s: float, check: Callable[[], None]) -> None:
        """Wait until a node listens to the images, and has answered a grey picture with mask and overlay.

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
        wanted: list[tuple[Any, str]] = [(self._camera, "subscriber"), *((each, "publisher") for each in self._listeners)]

        def missing() -> list[str]:
            return [f"{kind} of {each.topic_name}" for each, kind in wanted if not _matched(each)]

        if not self._spin_until(lambda: not missing(), timeout_s, check):
            raise CamSegError(f"no node after {timeout_s:.0f} s: no {', no '.join(missing())}; does it use these topics and reliable QoS?")
        pending = self._pending[GREETING_NS] = _Pending(time.monotonic())
        while not pending.complete and time.monotonic() < end:
            self._camera.publish(self._greeting(*size))
            self._spin_until(lambda: pending.complete, min(GREET_AGAIN_S, end - time.monotonic()), check)
        del self._pending[GREETING_NS]
        self._given_up.add(GREETING_NS)
        if not pending.complete:
            answers = f"{self.topics.mask} and {self.topics.overlay}"
            raise CamSegError(f"the node did not answer on {answers} within {timeout_s:.0f} s; see its log")

    def _greeting(self, width: int, height: int) -> Image | CompressedImage:
        header = Header(stamp=Time(nanosec=GREETING_NS), frame_id="greeting")
        grey = np.full((height, width, 3), 128, np.uint8)
        if self.compressed:
            return CompressedImage(header=header, format="jpeg", data=cv2.imencode(".jpg", grey)[1].tobytes())
        return image_message(grey, "rgb8", header)

    def play(self, images: Iterable[BagImage], timeout_s: float, check: Callable[[], None]) -> Iterator[FrameResult]:
        """Closed loop: send an image, wait for its answer, hand it back; never faster than the images were recorded.

        Args:
            images: in recorded order.
            timeout_s: how long an answer may take before its frame counts as lost, in s.
            check: called now and then; raises to end the replay.

        Raises:
            DataError: the bag is damaged.
        """
        recorded_ns, sent = None, 0.0
        for image in images:
            if recorded_ns is not None:
                gap = min((image.recorded_ns - recorded_ns) / 1e9, LONGEST_GAP_S)
                self._spin_until(lambda: False, sent + gap - time.monotonic(), check)
            recorded_ns, sent = image.recorded_ns, time.monotonic()
            yield self._ask(image, timeout_s, check)

    def watch(self, seconds: float, check: Callable[[], None]) -> None:
        """Listen until the next diagnostics, at most for `seconds`."""
        self.diagnostics.clear()
        self._spin_until(lambda: bool(self.diagnostics), seconds, check)

    def _ask(self, image: BagImage, timeout_s: float, check: Callable[[], None]) -> FrameResult:
        pending = self._pending[image.stamp_ns] = _Pending(time.monotonic())
        try:
            self._camera.publish(image.cdr)
            complete = self._spin_until(lambda: pending.complete, timeout_s, check)
        except RuntimeError as error:  # rclpy's RCLError, when the writer is saturated
            return FrameResult(image, problem=f"could not be sent: {error}")
        finally:
            del self._pending[image.stamp_ns]
        if pending.answered is None:
            self._given_up.add(image.stamp_ns)
            return FrameResult(image, problem=f"no mask within {timeout_s:g} s")
        return _result(image, pending, None if complete else f"no overlay within {timeout_s:g} s")

    def _answer(self, message: Any, kind: str) -> None:
        now = time.monotonic()
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        pending = self._pending.get(stamp_ns)
        if pending is None:
            if stamp_ns in self._given_up:
                self.late += kind == "mask" and stamp_ns != GREETING_NS
            else:
                self.strays += kind == "mask"
            return
        setattr(pending, kind, message)
        if kind == "mask":
            pending.answered = now

    def _diagnose(self, message: Any) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {"message": status.message, **{each.key: each.value for each in status.values}}

    def _spin_until(self, done: Callable[[], bool], timeout_s: float, check: Callable[[], None]) -> bool:
        """Handle messages until `done`, at most for `timeout_s`; says whether it was."""
        end = time.monotonic() + timeout_s
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, CHECK_S))
            check()
        return True


def _matched(endpoint: Any) -> bool:
    """Whether a publisher has a subscriber, or a subscription a publisher."""
    count = endpoint.get_subscription_count if hasattr(endpoint, "get_subscription_count") else endpoint.get_publisher_count
    return bool(count())


def _result(image: BagImage, pending: _Pending, problem: str | None) -> FrameResult:
    """The answer as arrays, held against what was sent."""
    mask, wrong_mask = _pixels(pending.mask, "mono8", image)
    overlay, wrong_overlay = _pixels(pending.overlay, "rgb8", image) if pending.overlay is not None else (None, None)
    latency = (pending.answered or 0.0) - pending.sent
    return FrameResult(image, latency, mask, overlay, wrong_mask or wrong_overlay or problem)


def _pixels(message: Any, encoding: str, image: BagImage) -> tuple[Pixels | None, str | None]:
    """The picture in an answer, or None; and what is wrong with it, or None."""
    kind = "mask" if encoding == "mono8" else "overlay"
    channels = 1 if encoding == "mono8" else 3
    width, height = message.width, message.height
    if message.encoding != encoding or len(message.data) < message.step * height or message.step < width * channels:
        return None, f"the {kind} is not a whole {encoding} image but {width}x{height} {message.encoding} of {len(message.data)} bytes"
    rows = np.frombuffer(message.data, np.uint8)[: message.step * height].reshape(height, message.step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels) if channels > 1 else rows
    if image.size != (width, height):
        sent = "{}x{}".format(*image.size) if image.size else "unreadable"
        return pixels, f"the {kind} is {width}x{height}, the image was {sent}"
    if message.header.frame_id != image.frame_id:
        return pixels, f"the {kind} has frame_id {message.header.frame_id!r}, the image had {image.frame_id!r}"
    return pixels, None
