"""Writes frames into a rosbag2 MCAP bag that `ros2 bag play`, Foxglove and this project read. Needs no ROS."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import Frame
from camseg_core.errors import DataError

IMAGE_TOPIC = "/camera/image_raw"
LABEL_TOPIC = "/camera/labels"
IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
FRAME_ID = "camera"

Storage = Literal["raw", "jpeg", "png"]

STORE = get_typestore(Stores.ROS2_KILTED)
_NEVER = QosTime(0, 0)  # what rosbag2 records where no deadline or lifespan is set
QOS = Qos(
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    _NEVER,
    _NEVER,
    QosLiveliness.AUTOMATIC,
    _NEVER,
    False,
)
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class LabelledFrame(Frame):
    """A frame with its label `(H, W)` uint8, Cityscapes train ids, 255 where there is none."""

    label: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BagTopics:
    """What is written of each frame, and where.

    `storage` is how images are kept: raw (rgb8), jpeg or png. Labels, of frames that have one, go to `labels` as mono8 images of class
    ids. Calibration goes to `camera_info` beside the images unless `focal` is None: the focal length in pixels of a camera without
    distortion, 0 for one that is not calibrated.
    """

    images: str = IMAGE_TOPIC
    labels: str = LABEL_TOPIC
    storage: Storage = "raw"
    focal: float | None = None

    @property
    def image_topic(self) -> str:
        """The topic of the images, with `/compressed` as image_transport has it."""
        return self.images if self.storage == "raw" else f"{self.images}/compressed"

    @property
    def info_topic(self) -> str:
        """The topic of the calibration, beside that of the images."""
        return f"{self.images.rpartition('/')[0]}/camera_info"


def write_bag(
    frames: Iterable[Frame],
    path: Path,
    topic: str = IMAGE_TOPIC,
    frame_id: str = FRAME_ID,
    topics: BagTopics | None = None,
) -> int:
    """Write `frames` into the new bag folder `path`, one at a time; log time and header stamp are the frame's.

    Args:
        frames: a `LabelledFrame` has its label written as well.
        path: does not exist yet.
        topic: of rgb8 images, where there are no `topics`.
        frame_id: of every message.
        topics: what is written and where; images and labels alone if left out.

    Returns:
        How many frames were written.

    Raises:
        DataError: `path` exists already, cannot be written, or there was no frame. Whatever was written is removed again,
            as it is when `frames` raises.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or name another folder for the bag")
    try:
        count = _write(frames, path, topics or BagTopics(topic), frame_id)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(
            f"cannot write the bag {path}: {error.strerror or error}; check the disk and the permissions"
        ) from error
    except BaseException:  # also on Ctrl-C: half a bag helps nobody
        shutil.rmtree(path, ignore_errors=True)
        raise
    if not count:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(f"no frames to write into the bag {path}; check where they come from")
    return count


def image_message(
    pixels: npt.NDArray[np.uint8], encoding: Literal["mono8", "rgb8"], header: Any
) -> Any:
    """A `sensor_msgs/Image` of rosbags, of `(H, W)` for mono8 or `(H, W, 3)` for rgb8."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1)
    return STORE.types[IMAGE_TYPE](
        header, height, width, encoding, 0, pixels.nbytes // height, data
    )


def _write(frames: Iterable[Frame], path: Path, topics: BagTopics, frame_id: str) -> int:
    count = 0
    with Writer(path, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}

        def write(topic: str, kind: str, message: Any, stamp_ns: int) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind, typestore=STORE, offered_qos_profiles=[QOS]
                )
            writer.write(connections[topic], stamp_ns, STORE.serialize_cdr(message, kind))

        for frame in frames:
            stamp = STORE.types["builtin_interfaces/msg/Time"](
                *divmod(frame.stamp_ns, 1_000_000_000)
            )
            header = STORE.types["std_msgs/msg/Header"](stamp, frame_id)
            if topics.storage == "raw":
                write(
                    topics.image_topic,
                    IMAGE_TYPE,
                    image_message(frame.image, "rgb8", header),
                    frame.stamp_ns,
                )
            else:
                message = STORE.types[COMPRESSED_TYPE](
                    header, topics.storage, _encode(frame.image, topics.storage)
                )
                write(topics.image_topic, COMPRESSED_TYPE, message, frame.stamp_ns)
            if topics.focal is not None:
                write(
                    topics.info_topic,
                    INFO_TYPE,
                    _camera_info(frame.image.shape, topics.focal, header),
                    frame.stamp_ns,
                )
            if isinstance(frame, LabelledFrame):
                write(
                    topics.labels,
                    IMAGE_TYPE,
                    image_message(frame.label, "mono8", header),
                    frame.stamp_ns,
                )
            count += 1
    return count


def _encode(image: npt.NDArray[np.uint8], storage: str) -> npt.NDArray[np.uint8]:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if storage == "jpeg" else []
    _, data = cv2.imencode(f".{storage}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return np.asarray(data, np.uint8).reshape(-1)


def _camera_info(shape: tuple[int, ...], focal: float, header: Any) -> Any:
    """Of a camera without distortion that looks through the middle of the image; a focal length of 0 leaves it uncalibrated."""
    height, width = shape[:2]
    k = np.zeros((3, 3))
    r = np.eye(3) if focal else np.zeros((3, 3))
    if focal:
        k = np.array(
            [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]
        )
    p = np.hstack([k, np.zeros((3, 1))])
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    model, d = "plumb_bob", np.zeros(5)
    return STORE.types[INFO_TYPE](
        header, height, width, model, d, k.ravel(), r.ravel(), p.ravel(), 0, 0, region
    )
