"""Chooses the image topic of a bag: the named one, the only one, or the only one in colour."""

from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from camseg_core.errors import DataError, camseg_command
from camseg_ros.bag.salvage import SalvageReader
from camseg_ros.images import ENCODINGS

Reader = AnyReader | SalvageReader

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"

_CDR = "cdr"
_TRIED = 3
"""Messages of a topic that are read to learn what it holds; the first may be damaged."""

_FOREIGN = {
    "ros1": "ROS 1 messages: convert the ROS 1 bag that they come from with "
    "`rosbags-convert --src NAME.bag --dst NAME`",
}
"""What to do with messages of another format than ROS 2's."""


class ImageTopic(NamedTuple):
    """A bag's image topic, whether it is compressed, and why it was chosen, empty if obvious."""

    name: str
    compressed: bool
    note: str = ""


def choose_topic(
    reader: Reader, bag: Path, topic: str | None, exclude: Collection[str] = ()
) -> ImageTopic:
    """Return the image topic to read.

    Args:
        reader: the open bag.
        bag: its path, for errors.
        topic: the name of the topic; None to choose one.
        exclude: topics to ignore when `topic` is None.

    Raises:
        DataError: there is no such topic or no image topic, it holds messages of two types, or
            there are several topics to choose from.
    """
    types: dict[str, set[str]] = {}
    for each in reader.connections:
        if _format(each) == _CDR:
            types.setdefault(each.topic, set()).add(each.msgtype)
    images = sorted(
        name
        for name, kinds in types.items()
        if kinds & {RAW, COMPRESSED} and (topic or name not in exclude)
    )
    if topic is not None and topic not in images:
        kinds = ", ".join(sorted(types.get(topic, ())))
        why = f"has type {kinds}, not an image's" if kinds else "is not in it"
        raise DataError(
            f"the topic {topic} of the bag {bag} {why}; "
            f"its image topics: {', '.join(images) or 'none'}"
        )
    if not images:
        raise _no_images(reader.connections, bag)
    chosen, note = (topic or images[0]), ""
    if topic is None and len(images) > 1:
        chosen, note = _colour(reader, bag, images)
    if len(types[chosen]) > 1:
        raise DataError(
            f"the topic {chosen} of the bag {bag} holds messages of several types, "
            f"{' and '.join(sorted(types[chosen]))}: record each type on a topic of its own"
        )
    return ImageTopic(chosen, COMPRESSED in types[chosen], note)


def _format(connection: Connection) -> str:
    """Return how messages are serialized: `cdr` in ROS 2, or such as `ros1` and `json`."""
    return str(getattr(connection.ext, "serialization_format", _CDR))


def _no_images(connections: Sequence[Connection], bag: Path) -> DataError:
    """The error for a bag without images that can be read."""
    for each in connections:
        kind = _format(each)
        if kind != _CDR:
            what = _FOREIGN.get(
                kind,
                f"{kind} messages, which ROS 2 cannot read: export the images into a folder, and "
                f"make a bag of them with `{camseg_command()} bag make BAG --source FOLDER`",
            )
            return DataError(f"{each.topic} of the bag {bag} holds {what}")
    names = ", ".join(sorted({each.topic for each in connections}))
    others = f"only {names}" if names else "no topic at all"
    return DataError(
        f"no image topic in the bag {bag} ({others}); "
        "record the camera's topic (sensor_msgs Image or CompressedImage)"
    )


def _colour(reader: Reader, bag: Path, names: Sequence[str]) -> tuple[str, str]:
    """Return the only topic in colour, and a line that says so.

    Raises:
        DataError: there is none, or several.
    """
    encodings = {name: _encoding(reader, name) for name in names}
    best = min(map(_rank, encodings.values()))
    first, *more = [name for name in names if _rank(encodings[name]) == best]
    listed = {name: f"{name} ({encodings[name]})" for name in names}
    if best == 0 and not more:
        others = ", ".join(text for name, text in listed.items() if name != first)
        return first, f"{bag}: reading {listed[first]}, the only topic in colour, not {others}"
    raise DataError(
        f"several image topics in the bag {bag}: {', '.join(listed.values())}; "
        f"name one, for example --topic {first}"
    )


def _rank(encoding: str) -> int:
    """Return 0 for colours, 1 for grey pictures and ids, 2 for depth and what is not known."""
    if encoding in ("16UC1", "32FC1") or encoding not in ENCODINGS:
        return 2
    return int(ENCODINGS[encoding].converted_as == "mono8")


def _encoding(reader: Reader, topic: str) -> str:
    """Return the encoding of the first readable image of a topic, `unreadable` if none is."""
    connections = [each for each in reader.connections if each.topic == topic]
    try:
        for connection, _, data in islice(reader.messages(connections), _TRIED):
            message: Any = reader.deserialize(bytes(data), connection.msgtype)
            if connection.msgtype == RAW:
                return str(message.encoding)
            named, _, _ = str(message.format).partition(";")
            if named in (*ENCODINGS, "32FC1"):  # as image_transport writes it
                return named
            picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
            if picture is not None:
                return "rgb8" if picture.ndim == 3 else "mono8"
    except Exception:  # a damaged file can raise anything; reading the images reports it
        pass
    return "unreadable"
