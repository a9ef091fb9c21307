"""One camera of the node: its subscriptions, its publishers and its counts."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.class_table import ClassTable
from camseg_core.errors import CamSegError, ConfigError
from camseg_core.runtime import Segmentation
from camseg_ros import camera_info
from camseg_ros.camera_outputs import CameraOutputs, image_qos
from camseg_ros.endpoints import Endpoints, publishers_of, subscribers_of
from camseg_ros.frame_slots import Frame
from camseg_ros.image_conversion import Converter, Pixels
from camseg_ros.images import BadImage, compressed_to_rgb, image_to_rgb
from camseg_ros.parameters import Parameters
from camseg_ros.process import ThrottledLog
from camseg_ros.statistics import StreamStatistics

MAX_FRAME_ID = 256
"""Longest frame_id that is believed: it goes out again with every message."""

ImageMessage: TypeAlias = Image | CompressedImage


@dataclass(frozen=True)
class ReadFrame:
    """A frame whose picture could be read, `(H, W, 3)`, and the moments (`time.monotonic`) when that began and ended."""

    camera: Camera
    frame: Frame[ImageMessage]
    rgb: Pixels
    began: float
    ended: float

    @property
    def stamp(self) -> float:
        """Of the message, in seconds; 0 if it has none."""
        return stamp_seconds(self.frame.message.header)

    @property
    def time(self) -> float:
        """When the picture was taken, in seconds of whatever clock: by its stamp, or by its arrival where that is zero."""
        return self.stamp or self.frame.received


class Camera:
    """The topics of one camera. Publishers exist from the start; images are taken between `subscribe` and `unsubscribe`.

    Attributes:
        name: as in the topics; empty for the camera without one.
        topic: the input's resolved name.
        info_topic: of its calibration.
        outputs: its publishers.
        statistics: of the camera's stream.
        info_problem: why the camera's calibration is not passed on; empty if it is, or if there is none.
    """

    def __init__(self, node: Node, name: str, parameters: Parameters, log: ThrottledLog) -> None:
        self._node, self.name, self._log = node, name, log
        given = parameters.camera(name)
        compressed = given.image_transport == "compressed"
        self._type: type[ImageMessage] = CompressedImage if compressed else Image
        self._qos = image_qos(given.image_reliability)
        self._max_bytes = parameters.max_image_bytes
        image_topic = self._resolve("image_topic", _under(name, given.image_topic))
        # As image_transport does it: the remapped name of the raw topic, then the transport; the calibration lies beside it.
        self.topic: str = image_topic + ("/compressed" if compressed else "")
        beside = f"{image_topic.rpartition('/')[0]}/camera_info"
        info_topic = _under(name, given.camera_info_topic) if given.camera_info_topic else beside
        self.info_topic: str = self._resolve("camera_info_topic", info_topic)
        self.outputs = CameraOutputs(
            node, name, parameters.output_reliability, parameters.run_length_mask
        )
        self._mask_topic: str = (
            self.outputs.mask.topic_name
        )  # kept, as it is asked for in another thread
        self.statistics = StreamStatistics()
        self.info_problem = ""
        self._info: CameraInfo | None = None
        self._subscriptions: list[Subscription[Any]] = []

    def subscribe(self, on_message: Callable[[ImageMessage], None]) -> None:
        """Hand every message of the camera to `on_message`, in the executor's thread."""
        self.statistics.begin()
        images = self._node.create_subscription(self._type, self.topic, on_message, self._qos)
        self._subscriptions.append(images)
        # best effort hears every publisher
        infos = self._node.create_subscription(
            CameraInfo, self.info_topic, self._keep_info, image_qos("best_effort")
        )
        self._subscriptions.append(infos)

    def unsubscribe(self) -> None:
        """Take no more images."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def destroy(self) -> None:
        """Take its topics out of the middleware."""
        self.unsubscribe()
        self.outputs.destroy()

    def publishers(self) -> Endpoints:
        """Who publishes on its input, as the middleware has found it."""
        return publishers_of(self._node, self.topic, self._type, self._qos)

    def listeners(self) -> Endpoints:
        """Who listens to its mask."""
        return subscribers_of(self._node, self._mask_topic, Image, self.outputs.qos)

    def age_ms(self, frame: Frame[ImageMessage]) -> float:
        """How old a frame is: by its stamp in the node's clock, and at least since it arrived; a zero stamp says nothing."""
        since_arrival = (time.monotonic() - frame.received) * 1e3
        stamp = stamp_seconds(frame.message.header)
        return (
            max(since_arrival, self._node.get_clock().now().nanoseconds / 1e6 - stamp * 1e3)
            if stamp
            else since_arrival
        )

    def read(self, frame: Frame[ImageMessage], converter: Converter) -> ReadFrame | None:
        """The frame with its picture; None if the message is none, which is counted and logged."""
        began = time.monotonic()
        try:
            rgb = self._decode(frame.message, converter)
        except Exception as error:  # one bad frame must not cost the others, whatever it is
            reason = error.reason if isinstance(error, BadImage) else "cannot convert"
            text = " ".join(
                (
                    str(error)
                    if isinstance(error, CamSegError)
                    else f"{type(error).__name__}: {error}"
                ).split()
            )
            self.statistics.frame_rejected(reason, f"{self.topic}: {text}")
            self._log.warn(reason, f"image rejected ({reason}): {self.topic}: {text}")
            return None
        return ReadFrame(self, frame, rgb, began, time.monotonic())

    def publish(
        self,
        read: ReadFrame,
        result: Segmentation,
        table: ClassTable,
        settings: Parameters,
        segmented: float,
    ) -> float | None:
        """Publish what the model made of a frame at the moment `segmented`; the moment when the mask was out, None if it could not go."""
        stamp, frame_id = (
            read.frame.message.header.stamp,
            settings.camera(self.name).frame_id or read.frame.message.header.frame_id,
        )
        info = self._info_for(read.rgb)
        mask_out, failures = self.outputs.publish(
            Header(stamp=stamp, frame_id=frame_id),
            read.rgb,
            result,
            table,
            settings.overlay_opacity,
            info,
        )
        for failure in failures:
            self.statistics.publish_failed(failure)
            self._log.warn("publish", failure)
        if mask_out is not None:
            stages = {
                "wait": read.began - read.frame.received,
                "read": read.ended - read.began,
                "publish": mask_out - segmented,
                "pictures": time.monotonic() - mask_out,
            }
            milliseconds = {
                name: seconds * 1e3 for name, seconds in stages.items()
            } | result.timings
            size = read.rgb.shape[1], read.rgb.shape[0]
            self.statistics.frame_published(
                (mask_out - read.frame.received) * 1e3, milliseconds, size
            )
        return mask_out

    def _resolve(self, parameter: str, topic: str) -> str:
        """The full name of a topic, by the node's namespace and the user's remapping."""
        try:
            return str(self._node.resolve_topic_name(topic))
        except Exception as error:  # rclpy's own has no public name
            where = f" of camera '{self.name}'" if self.name else ""
            raise ConfigError(
                f"parameter '{parameter}'{where} gives {topic!r}, which cannot be a topic: {error}"
            ) from error

    def _decode(self, message: ImageMessage, converter: Converter) -> Pixels:
        if len(message.header.frame_id) > MAX_FRAME_ID:
            length = len(message.header.frame_id)
            raise BadImage(
                "header",
                f"frame_id has {length} characters; it names a frame, with {MAX_FRAME_ID} at most",
            )
        if isinstance(message, CompressedImage):
            return compressed_to_rgb(message, self._max_bytes)
        return image_to_rgb(message, converter, self._max_bytes)

    def _info_for(self, rgb: Pixels) -> CameraInfo | None:
        """The calibration, if there is one and it belongs to this picture `(H, W, 3)`."""
        info = self._info
        self.info_problem = (
            "" if info is None else camera_info.check(info, rgb.shape[1], rgb.shape[0])
        )
        return None if self.info_problem else info

    def _keep_info(self, info: CameraInfo) -> None:
        self._info = info


def stamp_seconds(header: Header) -> float:
    """A header's stamp in seconds."""
    return header.stamp.sec + header.stamp.nanosec / 1e9


def _under(camera: str, topic: str) -> str:
    """A relative topic under the camera's name; others, and those of the camera without a name, as they are."""
    return topic if not camera or topic[:1] in "/~" else f"{camera}/{topic}"
