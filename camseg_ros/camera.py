"""One camera of the node: its topics, calibration and counts; reads its frames and answers them."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.masks import ClassTable
from camseg_core.runtime import Segmentation
from camseg_ros.compressed_images import decode_compressed
from camseg_ros.endpoints import (
    Endpoints,
    image_topics,
    publishers_of,
    rivals_of,
    subscribers_of,
    topic_remedy,
)
from camseg_ros.image_conversion import Converter, Pixels
from camseg_ros.images import (
    SIXTEEN_BIT,
    BadImage,
    image_to_rgb,
    range_problem,
)
from camseg_ros.messages import LATCHED, check_camera_info, oversized_info
from camseg_ros.outputs import CameraOutputs, image_qos, stamp_seconds
from camseg_ros.parameters import CameraParameters, Parameters
from camseg_ros.process import rcl_text, warn_throttled
from camseg_ros.statistics import TOO_OLD, StreamStatistics
from camseg_ros.worker import Frame

KEPT_INFOS = 16
"""Calibrations kept to find the one of an image, which may have waited for others."""

MAX_FRAME_ID = 256
"""Longest accepted frame_id; it is published again with every output."""

OTHER_CLOCK_MS = 10_000.0
"""Delay from which a stamp is taken to come from another clock."""

HINT_PERIOD_S = 60.0
"""Shortest time between two log lines about the range of the images."""

CAMERA_INFO = "camera_info"
"""Name of the calibration's topic, in the namespace of the images unless it is remapped."""

ImageMessage: TypeAlias = Image | CompressedImage


@dataclass(frozen=True)
class Picture:
    """A decoded frame `(H, W, 3)`; arrival, start and end of decoding are `time.monotonic`."""

    header: Header
    rgb: Pixels
    received: float
    began: float
    ended: float

    @property
    def time(self) -> float:
        """Capture time in seconds: the header stamp if set, else the arrival time."""
        return stamp_seconds(self.header) or self.received


class Camera:
    """The topics of one camera. Publishers always exist; images arrive between `subscribe` and
    `unsubscribe`.

    Attributes:
        name: prefix of the topics; empty for the unnamed camera.
        topic: resolved name of the image topic.
        info_topic: resolved name of the calibration topic.
        compressed: whether the images are `CompressedImage` messages.
        outputs: the publishers.
        statistics: counts of the stream.
        info_problem: why the calibration is not published; empty if it is, or if none is known.
        range_problem: why images of 16 bits may be misread; empty if they are not.
    """

    def __init__(self, node: Node, name: str, parameters: Parameters) -> None:
        self._node, self.name = node, name
        given = parameters.camera(name)
        compressed = given.image_transport == "compressed"
        self.compressed = compressed
        self._type: type[ImageMessage] = CompressedImage if compressed else Image
        self._qos = image_qos(given.image_reliability)
        self._max_bytes = parameters.max_image_bytes
        image_topic = node.resolve_topic_name(camera_topic(name, given.image_topic))
        # Like image_transport: the remapped raw topic plus the transport, which may be remapped
        # itself; camera_info in the same namespace.
        self.topic: str = image_topic
        if compressed:  # the parameter may name either topic
            own = f"{image_topic.removesuffix('/compressed')}/compressed"
            self.topic = node.resolve_topic_name(own)
            image_topic = self.topic.removesuffix("/compressed")
        info_topic = camera_topic(name, given.camera_info_topic or CAMERA_INFO)
        if not given.camera_info_topic and not remapped(node, info_topic):
            info_topic = f"{image_topic.rpartition('/')[0]}/{CAMERA_INFO}"
        self.info_topic: str = node.resolve_topic_name(info_topic)
        self.outputs = CameraOutputs(
            node, name, parameters.output_reliability, parameters.run_length_mask
        )
        self._mask_topic: str = self.outputs.mask.topic_name  # cached for the monitor's thread
        self.statistics = StreamStatistics()
        self.info_problem = self.range_problem = ""
        self._brightest, self._range_of = 0, ""
        self._ahead_ms, self._seeks = 0.0, False
        self._infos: deque[CameraInfo] = deque(maxlen=KEPT_INFOS)
        self._subscriptions: list[Subscription[Any]] = []

    def subscribe(self, on_message: Callable[[ImageMessage], None]) -> None:
        """Call `on_message` for every image message, in the executor's thread."""
        self.statistics.begin()
        self.info_problem = self.range_problem = ""
        self._brightest, self._ahead_ms = 0, 0.0  # the camera may have been replaced
        self._infos.clear()
        self._seeks = False
        # best effort receives from every publisher, but not what was published before
        for message_type, topic, callback, qos in (
            (self._type, self.topic, on_message, self._qos),
            (CameraInfo, self.info_topic, self.keep_info, image_qos("best_effort")),
        ):
            self._subscribe(message_type, topic, callback, qos)

    def _subscribe(
        self, message_type: type[Any], topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        try:
            subscription = self._node.create_subscription(message_type, topic, callback, qos)
        except Exception as error:  # RCLError, which before Kilted does not name the topic
            kind = message_type.__name__
            text = f"cannot subscribe to {topic} as {kind}: {rcl_text(error)}"
            raise ConfigError(f"{text}; does this node use it with another type?") from error
        self._subscriptions.append(subscription)

    def seek_latched_calibration(self) -> None:
        """Subscribe as a late subscriber if a publisher latches the calibration, from any thread.

        Not from the start: other publishers would warn of a subscription that cannot match.
        """
        if self._infos or self._seeks or self._node.executor is None:
            return
        offered = self._node.get_publishers_info_by_topic(self.info_topic)
        if any(each.qos_profile.durability == LATCHED.durability for each in offered):
            self._seeks = True
            self._node.executor.create_task(self._subscribe_latched)

    def _subscribe_latched(self) -> None:
        if self._subscriptions:
            self._subscribe(CameraInfo, self.info_topic, self.keep_info, LATCHED)

    def unsubscribe(self) -> None:
        """Stop receiving images."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def destroy(self) -> None:
        """Remove all topics from the middleware."""
        self.unsubscribe()
        self.outputs.destroy()

    def publishers(self) -> Endpoints:
        """Return the publishers discovered on the image topic."""
        return publishers_of(self._node, self.topic, self._type, self._qos)

    def calibration(self) -> str:
        """Return where the calibration comes from, or why none is published."""
        if self.info_problem or self._infos:
            return self.info_problem or f"from {self.info_topic}"
        count = self._node.count_publishers(self.info_topic)
        publishers = "publisher" if count == 1 else "publishers"
        return f"none received from {self.info_topic}, which has {count} {publishers}"

    def topic_remedy(self) -> str:
        """Return what to do while nothing publishes the image topic."""
        parameter = f"{self.name}.image_topic" if self.name else "image_topic"
        return topic_remedy(self.topic, self._type, parameter, image_topics(self._node))

    def rivals(self) -> str:
        """Return which other node publishes the mask topic as well; empty if none does."""
        return rivals_of(self._node, self._mask_topic)

    def listeners(self) -> Endpoints:
        """Return the subscribers discovered on the mask topic."""
        return subscribers_of(self._node, self._mask_topic, Image, self.outputs.qos)

    def clock_problem(self, max_age_ms: float) -> str:
        """Return why `max_age_ms` cannot judge the last image; empty if it can, or is 0."""
        if not max_age_ms or self._ahead_ms < OTHER_CLOCK_MS:
            return ""
        ahead = f"{self._ahead_ms / 1e3:.0f} s ahead of this node's clock"
        return (
            f"{self.topic}: max_age_ms is {max_age_ms:g}, but stamps are {ahead}, so that no image "
            "counts as too old: synchronise the clocks, or set max_age_ms: 0.0"
        )

    def age_ms(self, frame: Frame[ImageMessage]) -> float:
        """Return a frame's age since its stamp (if not zero) or its arrival, if longer."""
        age = (time.monotonic() - frame.received) * 1e3
        stamp = stamp_seconds(frame.message.header)
        self._ahead_ms = 0.0
        if not stamp:
            return age
        now_ms = self._node.get_clock().now().nanoseconds / 1e6
        since_stamp = now_ms - stamp * 1e3
        if now_ms:  # else /clock has not come yet
            self._ahead_ms = -since_stamp
        return max(age, since_stamp)

    def read(
        self, frame: Frame[ImageMessage], converter: Converter, parameters: CameraParameters
    ) -> Pixels | None:
        """Decode a frame into RGB `(H, W, 3)`; None if it is too old or bad, which is counted and
        logged.

        Args:
            frame: of this camera.
            converter: from `choose_converter`.
            parameters: of this camera.
        """
        message, white, max_age_ms = frame.message, parameters.white_level, parameters.max_age_ms
        if max_age_ms and (age_ms := self.age_ms(frame)) > max_age_ms:
            waited_ms = (time.monotonic() - frame.received) * 1e3
            self.statistics.frame_dropped(TOO_OLD, why_too_old(age_ms, waited_ms, max_age_ms))
            return None
        try:
            if (length := len(message.header.frame_id)) > MAX_FRAME_ID:
                limit = f"must have at most {MAX_FRAME_ID} characters"
                raise BadImage("header", f"frame_id {limit}, has {length}")
            if isinstance(message, CompressedImage):
                decoded = decode_compressed(message, self._max_bytes)
                brightest = self._brightest_of("compressed")
                self._report_range(
                    "compressed",
                    ("", brightest) if white else decoded.range_problem(brightest),
                )
                return decoded.to_rgb(converter, white)
            if message.encoding in SIXTEEN_BIT or self.range_problem:
                kind = f"{message.encoding} of {message.width}x{message.height}"
                brightest = self._brightest_of(kind)
                self._report_range(
                    message.encoding,
                    ("", brightest)
                    if white
                    else range_problem(message, self._max_bytes, brightest),
                )
            return image_to_rgb(message, converter, self._max_bytes, white)
        except Exception as error:  # one bad frame must not affect the next
            reason = error.reason if isinstance(error, BadImage) else "cannot convert"
            text = (
                str(error) if isinstance(error, CamSegError) else f"{type(error).__name__}: {error}"
            )
            text = f"{self.topic}: {' '.join(text.split())}"
            self.statistics.frame_rejected(reason, text)
            warn_throttled(self._node, reason, f"image rejected ({reason}): {text}")
            return None

    def _brightest_of(self, kind: str) -> int:
        """Return the largest value so far; images of another kind are of a camera set anew."""
        if kind != self._range_of:
            self._brightest, self._range_of = 0, kind
        return self._brightest

    def _report_range(self, kind: str, found: tuple[str, int]) -> None:
        """Warn of images of 16 bits that hold depth or do not fill the range."""
        text, self._brightest = found
        self.range_problem = f"{self.topic}: {text}" if text else ""
        if text:
            warn_throttled(self._node, f"range.{kind}", self.range_problem, HINT_PERIOD_S)

    def publish(
        self,
        picture: Picture,
        result: Segmentation,
        table: ClassTable,
        parameters: CameraParameters,
        opacity: float,
        segmented: float,
    ) -> float | None:
        """Publish the segmentation of a frame, which was ready at `segmented`, and count it.

        Returns:
            When the mask was published (`time.monotonic`), or None if that failed.
        """
        height, width = picture.rgb.shape[:2]
        info = self.info_of(picture.header) if self._infos else None
        self.info_problem = "" if info is None else check_camera_info(info, width, height)
        published, failures = self.outputs.publish(
            Header(
                stamp=picture.header.stamp,
                frame_id=parameters.frame_id or picture.header.frame_id,
            ),
            picture.rgb,
            result,
            table,
            opacity,
            None if self.info_problem else info,
        )
        if failures:
            self.count_failures(failures)
        if published is not None:
            stages_ms = {
                "wait": (picture.began - picture.received) * 1e3,
                "read": (picture.ended - picture.began) * 1e3,
                "publish": (published - segmented) * 1e3,
                "pictures": (time.monotonic() - published) * 1e3,
                **result.timings,
            }
            latency_ms = (published - picture.received) * 1e3
            size, noisy = (width, height), result.noise_removed
            self.statistics.frame_published(latency_ms, stages_ms, size, noisy)
        return published

    def count_failures(self, failures: Sequence[str]) -> None:
        """Count and log messages that the middleware refused."""
        for failure in failures:
            self.statistics.publish_failed(failure)
            warn_throttled(self._node, "publish", failure)

    def keep_info(self, info: CameraInfo) -> None:
        """Keep a calibration for the images of about its stamp."""
        if oversized_info(info):  # one of these is enough to say what is wrong
            self._infos.clear()
        elif self._infos and self._infos[-1].header == info.header:  # from both subscriptions
            self._infos.pop()
        self._infos.append(info)

    def info_of(self, header: Header) -> CameraInfo | None:
        """Return the calibration of an image: the newest of its stamp, else of the nearest.

        Without stamps, it is the newest.
        """
        stamp, newest = stamp_seconds(header), self._infos[-1] if self._infos else None
        if newest is None or not stamp or not stamp_seconds(newest.header):
            return newest
        infos = reversed([*self._infos])
        return min(infos, key=lambda info: abs(stamp_seconds(info.header) - stamp))


def why_too_old(age_ms: float, waited_ms: float, max_age_ms: float) -> str:
    """Return the likely cause why a frame is older than the limit, and what to do.

    Args:
        age_ms: since the frame's stamp, or its arrival if that is longer.
        waited_ms: since its arrival.
        max_age_ms: the limit.
    """
    limit = f"max_age_ms is {max_age_ms:g}"
    if waited_ms > max_age_ms:
        return f"{limit}, but they wait {waited_ms:.0f} ms for the model; raise max_age_ms"
    if age_ms - waited_ms < OTHER_CLOCK_MS:
        late = f"they arrive {age_ms - waited_ms:.0f} ms after their stamps"
        return f"{limit}, but {late}; look for the delay in driver and network, or raise max_age_ms"
    return (
        f"{limit}, but their stamps are {age_ms / 1e3:.0f} s behind this node's clock: they come "
        "from another one; for a bag or a simulation set use_sim_time: true and publish /clock "
        "(ros2 bag play --clock), else synchronise the clocks, or set max_age_ms: 0.0"
    )


def remapped(node: Node, topic: str) -> str:
    """Return the full name to which a relative topic is remapped; empty if it is not."""
    target = str(node.resolve_topic_name(topic))
    return "" if target == f"{node.get_namespace().rstrip('/')}/{topic}" else target


def camera_topic(camera: str, topic: str) -> str:
    """Return a relative topic under the camera's name; absolute and private ones unchanged."""
    return topic if not camera or topic[:1] in "/~" else f"{camera}/{topic}"
