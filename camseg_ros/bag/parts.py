"""Stores what an evaluation has found so far, so that it can be stopped, resumed and spread."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import Writer

from camseg_core.errors import DataError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.groups import ScoredLabels
from camseg_core.labels import Label
from camseg_core.long_runs import atomic_write
from camseg_ros.bag.make import MASK_TOPIC, QOS, STORE, image_message, new_bag
from camseg_ros.bag.storage import open_bag
from camseg_ros.bag.topics import RAW

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInfo:
    """What the report says about the model; `compared` is the name of the other one, if any.

    `labels` are the model's classes, `scored` what its masks are scored over.
    """

    name: str
    engine: str
    precision: str
    labels: tuple[Label, ...]
    scored: ScoredLabels
    compared: str | None


@dataclass(frozen=True)
class ScoredFrame:
    """One evaluated image of a bag.

    Attributes:
        index: its number on its topic.
        line: its entry of `frames.jsonl`; None if it could not be decoded.
        scorer: its counts; None if it could not be decoded.
        times: times in ms by name; see `evaluation.READ`.
        mask: the mask as PNG, if masks are kept.
        problem: why it could not be decoded.
    """

    index: int
    line: dict[str, Any] | None = None
    scorer: Scorer | None = None
    times: dict[str, float] = field(default_factory=dict)
    mask: bytes | None = None
    problem: str = ""


@dataclass
class BagPart:
    """The evaluated images of a bag from number `start` to before `stop`.

    Attributes:
        info: the model that made the masks.
        scorer: the counts.
        lines, times: an entry for each frame, with its number in the bag as `index`.
        masks: a PNG for each frame, if masks are kept.
        skipped: number of images that could not be decoded.
        problem: why the first of them could not.
        ended: whether the bag has no more images.
        damage: the damage that ended it, or empty.
    """

    start: int
    stop: int
    info: ModelInfo
    scorer: Scorer
    lines: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)
    skipped: int = 0
    problem: str = ""
    ended: bool = False
    damage: str = ""

    @staticmethod
    def empty(start: int, info: ModelInfo) -> "BagPart":
        """Return a part without images."""
        return BagPart(start, start, info, Scorer(info.scored))

    def add(self, frame: ScoredFrame) -> None:
        """Add the next image."""
        self.stop = frame.index + 1
        if frame.line is None or frame.scorer is None:
            self.skipped += 1
            self.problem = self.problem or frame.problem
            return
        self.scorer.merge(frame.scorer)
        self.lines.append({"index": frame.index, **frame.line})
        self.times.append({"index": frame.index, **frame.times})
        if frame.mask is not None:
            self.masks.append(frame.mask)


class PartFolder:
    """The parts of several bags in a folder, by the number of the bag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, bag: int, part: BagPart) -> None:
        """Write a part atomically."""
        if part.masks:
            with (
                atomic_write(self._path(bag, part.start, "zip")) as path,
                zipfile.ZipFile(path, "w") as file,
            ):
                for line, mask in zip(part.lines, part.masks, strict=True):
                    file.writestr(str(line["index"]), mask)
        labels = [[label.id, label.name, list(label.color)] for label in part.info.labels]
        info = {**vars(part.info), "labels": labels, "scored": part.info.scored.to_json()}
        content = {**vars(part), "info": info}
        content["scorer"] = part.scorer.to_json()
        del content["masks"]
        with atomic_write(self._path(bag, part.start, "json")) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def load(self, bag: int, start: int) -> BagPart | None:
        """Read the part that begins with image `start`, without its masks; None if it is missing.

        Raises:
            DataError: another version of this program wrote it.
        """
        path = self._path(bag, start, "json")
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            info = content["info"]
            labels = tuple(Label(id, name, tuple(color)) for id, name, color in info["labels"])
            scored = ScoredLabels.from_json(info["scored"])
            content["info"] = ModelInfo(**{**info, "labels": labels, "scored": scored})
            content["scorer"] = Scorer.from_json(content["scorer"], scored)
            return BagPart(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} was written by another version of camseg, so this evaluation cannot be "
                f"resumed; remove {self.folder} to start again"
            ) from error

    def has(self, bag: int, start: int) -> bool:
        """Return whether there is a part that begins with image `start`."""
        return self._path(bag, start, "json").is_file()

    def in_order(self, bag: int) -> Iterator[BagPart]:
        """Yield the parts of a bag from its beginning up to the first gap or its end."""
        at = 0
        while (part := self.load(bag, at)) is not None:
            yield part
            if part.ended or part.stop <= at:
                return
            at = part.stop

    def masks(self, bag: int) -> Iterator[tuple[int, bytes]]:
        """Yield number and mask of every frame of a bag, in order."""
        for part in self.in_order(bag):
            if part.lines:
                with zipfile.ZipFile(self._path(bag, part.start, "zip")) as file:
                    for name in file.namelist():
                        yield int(name), file.read(name)

    def _path(self, bag: int, start: int, suffix: str) -> Path:
        return self.folder / f"{bag:04}-{start:09}.{suffix}"


def parts_name(options: Mapping[str, str], used: Iterable[Path]) -> str:
    """Return the name of a folder for the parts of these options and files as they are now."""
    files = str([_file_states(path) for path in used])
    key = json.dumps({**options, "files": files}, sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _file_states(path: Path) -> list[tuple[str, int, int]]:
    """Return the files at `path` with size and modification time."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [
        (str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.exists()
    ]


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
