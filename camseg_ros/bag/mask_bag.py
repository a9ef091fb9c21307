"""Writes a copy of a bag with the masks of its images."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import Writer

from camseg_core.errors import DataError
from camseg_ros.bag.make import MASK_TOPIC, QOS, STORE, image_message, new_bag
from camseg_ros.bag.storage import open_bag
from camseg_ros.bag.topics import RAW

logger = logging.getLogger(__name__)


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
    opened = open_bag(source, salvage=True)
    reader = opened.reader
    if opened.files.lost:
        logger.warning("the copy of %s is incomplete: %s", source, opened.files.lost)
    with closing(reader), new_bag(target) as writer:
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
