"""Writes frames into a rosbag2 MCAP bag that `ros2 bag play`, Foxglove and this project read. Needs no ROS."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import Frame
from camseg_core.errors import DataError

IMAGE_TOPIC = "/camera/image_raw"
IMAGE_TYPE = "sensor_msgs/msg/Image"
FRAME_ID = "camera"

_STORE = get_typestore(Stores.ROS2_KILTED)
_NEVER = QosTime(0, 0)  # what rosbag2 records where no deadline or lifespan is set
_QOS = Qos(
    QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.VOLATILE, _NEVER, _NEVER, QosLiveliness.AUTOMATIC, _NEVER, False
)


def write_bag(frames: Iterable[Frame], path: Path, topic: str = IMAGE_TOPIC, frame_id: str = FRAME_ID) -> int:
    """Write `frames` as rgb8 images into the new bag folder `path`, one at a time; log time and header stamp are the frame's.

    Returns:
        How many frames were written.

    Raises:
        DataError: `path` exists already, cannot be written, or there was no frame. Whatever was written is removed again,
            as it is when `frames` raises.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or name another folder for the bag")
    try:
        count = _write(frames, path, topic, frame_id)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(f"cannot write the bag {path}: {error.strerror or error}; check the disk and the permissions") from error
    except BaseException:  # also on Ctrl-C: half a bag helps nobody
        shutil.rmtree(path, ignore_errors=True)
        raise
    if not count:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(f"no frames to write into the bag {path}; check where they come from")
    return count


def _write(frames: Iterable[Frame], path: Path, topic: str, frame_id: str) -> int:
    types = _STORE.types
    message, header, time = types[IMAGE_TYPE], types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    count = 0
    with Writer(path, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, IMAGE_TYPE, typestore=_STORE, offered_qos_profiles=[_QOS])
        for frame in frames:
            height, width, channels = frame.image.shape
            stamp = time(*divmod(frame.stamp_ns, 1_000_000_000))
            data = np.ascontiguousarray(frame.image).reshape(-1)
            image = message(header(stamp, frame_id), height, width, "rgb8", 0, width * channels, data)
            writer.write(connection, frame.stamp_ns, _STORE.serialize_cdr(image, IMAGE_TYPE))
            count += 1
    return count
