"""A copy of a bag with the masks beside what was recorded, for `ros2 bag play` and Foxglove."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import StoragePlugin, Writer

from camseg_core.errors import DataError
from camseg_ros.bag.make import IMAGE_TYPE, QOS, STORE, image_message
from camseg_ros.bag.read import open_bag

logger = logging.getLogger(__name__)

MASK_TOPIC = "/segmentation/mask"


def write_mask_bag(
    source: Path,
    target: Path,
    image_topic: str,
    masks: Iterator[tuple[int, bytes]],
    mask_topic: str = MASK_TOPIC,
) -> None:
    """Write the new bag folder `target`: every message of `source`, and after an image that has a mask, the mask.

    A mask is a mono8 image with the stamp and the frame of its image, recorded at the same time. Topics of types that neither the bag nor
    ROS defines are left out, with a warning; of a damaged bag, what is whole is copied.

    Args:
        source: a bag.
        target: does not exist yet.
        image_topic: that the masks are of.
        masks: number of the image on its topic and mask as PNG, by rising number.
        mask_topic: of the masks; the bag must not have it.

    Raises:
        DataError: the bag cannot be written; what was written of it is removed again.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(source, target, image_topic, masks, mask_topic)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(
            f"cannot write the bag {target}: {error.strerror or error}; check the disk and the permissions"
        ) from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _write(
    source: Path,
    target: Path,
    image_topic: str,
    masks: Iterator[tuple[int, bytes]],
    mask_topic: str,
) -> None:
    reader, _ = open_bag(source, salvage=True)
    with (
        closing(reader),
        Writer(target, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        if any(connection.topic == mask_topic for connection in reader.connections):
            raise DataError(
                f"the bag {source} has a topic {mask_topic} already; name another with --mask-topic"
            )
        copies = _copies(reader, writer)
        mask_connection = writer.add_connection(
            mask_topic, IMAGE_TYPE, typestore=STORE, offered_qos_profiles=[QOS]
        )
        index, (next_index, png) = 0, next(masks, (-1, b""))
        messages = reader.messages([each for each in reader.connections if _key(each) in copies])
        while True:
            try:
                connection, recorded_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # damage has no type of its own; the report has told of it
                logger.warning("%s is copied up to its damage: %s", source, error)
                return
            writer.write(copies[_key(connection)], recorded_ns, data)
            if connection.topic != image_topic:
                continue
            if index == next_index:
                image: Any = reader.deserialize(data, connection.msgtype)
                mask = np.asarray(
                    cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8
                )
                message = image_message(mask, "mono8", image.header)
                writer.write(mask_connection, recorded_ns, STORE.serialize_cdr(message, IMAGE_TYPE))
                next_index, png = next(masks, (-1, b""))
            index += 1


def _key(connection: Connection) -> tuple[str, str]:
    return connection.topic, connection.msgtype


def _copies(reader: Any, writer: Writer) -> dict[tuple[str, str], Connection]:
    """A connection of the new bag for each topic and type of the old one."""
    copies: dict[tuple[str, str], Connection] = {}
    for connection in reader.connections:
        if _key(connection) in copies:
            continue
        qos = (
            connection.ext.offered_qos_profiles
            if isinstance(connection.ext, ConnectionExtRosbag2)
            else []
        )
        store = reader.typestore if connection.msgtype in reader.typestore.fielddefs else STORE
        try:
            copies[_key(connection)] = writer.add_connection(
                connection.topic, connection.msgtype, typestore=store, offered_qos_profiles=qos
            )
        except Exception as error:  # rosbags raises what its type system runs into
            logger.warning(
                "topic %s is left out: its type %s is not defined (%r)",
                connection.topic,
                connection.msgtype,
                error,
            )
    return copies
