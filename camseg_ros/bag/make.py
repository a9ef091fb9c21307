"""Writes rosbag2 bags (MCAP): of frames, or a copy of a bag with masks. Needs no ROS."""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import SourceFrame
from camseg_core.errors import DataError
from camseg_ros.bag.read import COMPRESSED, RAW
from camseg_ros.bag.storage import SECOND_NS, open_bag

logger = logging.getLogger(__name__)

IMAGE_TOPIC = "/camera/image_raw"
LABEL_TOPIC = "/camera/labels"
MASK_TOPIC = "/segmentation/mask"
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
FRAME_ID = "camera"

Storage = Literal["raw", "jpeg", "png"]

STORE = get_typestore(Stores.ROS2_KILTED)
_UNSET = QosTime(0, 0)  # what rosbag2 records for an unset deadline or lifespan
QOS = Qos(
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    _UNSET,
    _UNSET,
    QosLiveliness.AUTOMATIC,
    _UNSET,
    False,
)
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class LabelledFrame(SourceFrame):
    """A frame with its label `(H, W)` uint8, Cityscapes train ids, 255 for unlabelled pixels."""

    label: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BagTopics:
    """What to write for each frame.

    Attributes:
        images: topic of the images.
        labels: topic of the labels of frames that have one, as mono8 images of class ids.
        storage: how images are stored: raw (rgb8), jpeg or png.
        focal: write `camera_info` with this focal length in pixels, without distortion; 0 for an
            uncalibrated camera, None for no `camera_info`.
        frame_id: frame_id of every message.
    """

    images: str = IMAGE_TOPIC
    labels: str = LABEL_TOPIC
    storage: Storage = "raw"
    focal: float | None = None
    frame_id: str = FRAME_ID

    @property
    def image_topic(self) -> str:
        """The topic of the images, with `/compressed` as image_transport has it."""
        return self.images if self.storage == "raw" else f"{self.images}/compressed"

    @property
    def info_topic(self) -> str:
        """The topic of the calibration, beside that of the images."""
        return f"{self.images.rpartition('/')[0]}/camera_info"


DEFAULT_TOPICS = BagTopics()


def write_bag(frames: Iterable[SourceFrame], path: Path, topics: BagTopics = DEFAULT_TOPICS) -> int:
    """Write frames into a new bag, one at a time; recording time and stamp are the frame's.

    Args:
        frames: the label of a `LabelledFrame` is written as well.
        path: folder of the bag, which must not exist yet.
        topics: what to write.

    Returns:
        The number of frames written.

    Raises:
        DataError: `path` exists or cannot be written, or there are no frames. The unfinished bag is
            removed, also if `frames` raises.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or name another folder for the bag")
    count = 0
    with _new_bag(path) as writer:
        connections: dict[str, Any] = {}
        for frame in frames:
            for topic, message in _messages(frame, topics):
                if topic not in connections:
                    connections[topic] = writer.add_connection(
                        topic, message.__msgtype__, typestore=STORE, offered_qos_profiles=[QOS]
                    )
                cdr = STORE.serialize_cdr(message, message.__msgtype__)
                writer.write(connections[topic], frame.stamp_ns, cdr)
            count += 1
        if not count:
            raise DataError(f"no frames to write into the bag {path}; check where they come from")
    return count


@contextmanager
def _new_bag(path: Path) -> Iterator[Writer]:
    """Open a new bag for writing; remove it if anything fails, including Ctrl-C."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        version, storage = Writer.VERSION_LATEST, StoragePlugin.MCAP
        with Writer(path, version=version, storage_plugin=storage) as writer:
            yield writer
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(
            f"cannot write the bag {path}: {error.strerror or error}; "
            "check the disk and the permissions"
        ) from error
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _messages(frame: SourceFrame, topics: BagTopics) -> Iterator[tuple[str, Any]]:
    """Yield the messages of a frame with their topics."""
    stamp = STORE.types["builtin_interfaces/msg/Time"](*divmod(frame.stamp_ns, SECOND_NS))
    header = STORE.types["std_msgs/msg/Header"](stamp, topics.frame_id)
    if topics.storage == "raw":
        yield topics.image_topic, image_message(frame.image, "rgb8", header)
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if topics.storage == "jpeg" else []
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        data = np.asarray(cv2.imencode(f".{topics.storage}", bgr, options)[1], np.uint8)
        message = STORE.types[COMPRESSED](header, topics.storage, data.reshape(-1))
        yield topics.image_topic, message
    if topics.focal is not None:
        yield topics.info_topic, _camera_info(frame.image.shape, topics.focal, header)
    if isinstance(frame, LabelledFrame):
        yield topics.labels, image_message(frame.label, "mono8", header)


def image_message(
    pixels: npt.NDArray[np.uint8], encoding: Literal["mono8", "rgb8"], header: Any
) -> Any:
    """Return `(H, W)` mono8 or `(H, W, 3)` rgb8 pixels as a `sensor_msgs/Image` of rosbags."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1)
    return STORE.types[RAW](header, height, width, encoding, 0, pixels.nbytes // height, data)


def _camera_info(shape: tuple[int, ...], focal: float, header: Any) -> Any:
    """Return the calibration of a camera without distortion; all 0 if `focal` is 0."""
    height, width = shape[:2]
    k, r = np.zeros((3, 3)), np.zeros((3, 3))
    if focal:
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        k = np.array([[focal, 0.0, centre_x], [0.0, focal, centre_y], [0.0, 0.0, 1.0]])
        r = np.eye(3)
    p = np.hstack([k, np.zeros((3, 1))])
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    matrices = np.zeros(5), k.ravel(), r.ravel(), p.ravel()
    return STORE.types[INFO_TYPE](header, height, width, "plumb_bob", *matrices, 0, 0, region)


def write_mask_bag(
    source: Path,
    target: Path,
    image_topic: str,
    masks: Iterator[tuple[int, bytes]],
    mask_topic: str = MASK_TOPIC,
) -> None:
    """Write a copy of a bag with masks, for `ros2 bag play` and Foxglove.

    A mask follows its image, as a mono8 image with the same stamp, frame_id and recording time.
    Leaves out, with a warning, topics whose type neither the bag nor ROS defines, and copies only
    the intact messages of a damaged bag.

    Args:
        source: a bag.
        target: folder of the new bag, which must not exist yet.
        image_topic: topic of the images that the masks belong to.
        masks: number of an image on its topic and its mask as PNG, in order.
        mask_topic: topic of the masks, which `source` must not have.

    Raises:
        DataError: the bag cannot be written; the unfinished bag is removed.
    """
    reader, _ = open_bag(source, salvage=True)
    with closing(reader), _new_bag(target) as writer:
        if any(connection.topic == mask_topic for connection in reader.connections):
            raise DataError(
                f"the bag {source} has a topic {mask_topic} already; name another with --mask-topic"
            )
        copies = _copy_connections(reader, writer)
        mask_connection = writer.add_connection(
            mask_topic, RAW, typestore=STORE, offered_qos_profiles=[QOS]
        )
        index, (next_index, png) = 0, next(masks, (-1, b""))
        messages = reader.messages([each for each in reader.connections if _key(each) in copies])
        while True:
            try:
                connection, recorded_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # a damaged file can raise anything
                logger.warning("%s is copied up to its damage: %s", source, error)
                return
            writer.write(copies[_key(connection)], recorded_ns, data)
            if connection.topic != image_topic:
                continue
            if index == next_index:
                image: Any = reader.deserialize(data, connection.msgtype)
                mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
                message = image_message(np.asarray(mask, np.uint8), "mono8", image.header)
                writer.write(mask_connection, recorded_ns, STORE.serialize_cdr(message, RAW))
                next_index, png = next(masks, (-1, b""))
            index += 1


def _key(connection: Connection) -> tuple[str, str]:
    return connection.topic, connection.msgtype


def _copy_connections(reader: Any, writer: Writer) -> dict[tuple[str, str], Connection]:
    """Add a connection to the new bag for each topic and type of the old one."""
    copies: dict[tuple[str, str], Connection] = {}
    for connection in reader.connections:
        topic, kind = key = _key(connection)
        if key in copies:
            continue
        recorded = isinstance(connection.ext, ConnectionExtRosbag2)
        qos = connection.ext.offered_qos_profiles if recorded else []
        store = reader.typestore if kind in reader.typestore.fielddefs else STORE
        try:
            copies[key] = writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=qos
            )
        except Exception as error:  # rosbags has no error of its own for this
            logger.warning("topic %s is left out: type %s is unknown (%r)", topic, kind, error)
    return copies
