"""Writes rosbag2 bags (MCAP), and is `camseg bag make`. Needs no ROS."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
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
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from camseg_core.cli.console import Pictures, print_lines
from camseg_core.cli.options import (
    add_dataset_options,
    add_split_option,
    add_strict_option,
    at_least,
    data_of,
    number,
    require_with,
)
from camseg_core.data import Sample
from camseg_core.data.frame_source import DEFAULT_FPS, START_NS, SourceFrame, open_frames
from camseg_core.data.synthetic.camera import PinholeCamera
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import DataError
from camseg_core.long_runs import atomic_folder, shown_progress
from camseg_ros.bag.command import positive
from camseg_ros.bag.storage import SECOND_NS
from camseg_ros.bag.topics import COMPRESSED, RAW

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
VERSION: Literal[8] = 8
"""Of the metadata. In version 9 the QoS is a list, which Humble and Iron cannot read."""

_JPEG_QUALITY = 95

SYNTHETIC_FRAMES = 60


@dataclass(frozen=True)
class LabelledFrame(SourceFrame):
    """A frame with its label `(H, W)` uint8: train ids, groups from 128 on, 255 for unlabelled."""

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
    count = 0
    with new_bag(path) as writer:
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
def new_bag(path: Path) -> Iterator[Writer]:
    """Open a new bag for writing, which gets its name when it is whole.

    If anything fails, including Ctrl-C, it is removed.

    Raises:
        DataError: `path` exists, or the bag cannot be written.
    """
    if path.exists():
        raise DataError(f"{path} exists already; remove it or name another folder for the bag")
    version, storage = VERSION, StoragePlugin.MCAP
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_folder(path) as unfinished,
            Writer(unfinished, version=version, storage_plugin=storage) as writer,
        ):
            yield writer
    except (OSError, WriterError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or error
        raise DataError(
            f"cannot write the bag {path}: {reason}; check the disk and the permissions"
        ) from error


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


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Write a rosbag2 bag (MCAP) of images with camera_info and, if there are any, labels: "
        "mono8 images of Cityscapes train ids, or of the ids in the set's class table; from 128 on "
        "the groups of its mapping; 255 for unlabelled pixels."
    )
    option = parser.add_argument
    option("bag", type=Path, metavar="BAG", help="folder of the new bag")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--source", type=Path, metavar="PATH", help="folder of images, image or video"
    )
    source.add_argument("--data", type=Path, metavar="ROOT", help="root of a labelled data set")
    source.add_argument("--synthetic", action="store_true", help="the synthetic drive, with labels")
    add_split_option(parser)
    add_dataset_options(parser)
    option(
        "--frames",
        type=at_least(1),
        help=f"stop after this many frames (default: all; synthetic: {SYNTHETIC_FRAMES})",
    )
    option(
        "--fps",
        type=number(0.001, 1e6),  # so that stamps can be stored
        default=DEFAULT_FPS,
        help="frames per second; a video has its own",
    )
    option("--seed", type=at_least(0), help="seed of the synthetic drive (default: 0)")
    option(
        "--topic", default=IMAGE_TOPIC, help="image topic; compressed images use its /compressed"
    )
    option("--label-topic", default=LABEL_TOPIC, help="topic of the labels")
    option("--no-labels", action="store_true", help="leave the labels out")
    option("--format", choices=["raw", "jpeg", "png"], default="raw", help="how images are stored")
    add_strict_option(parser)
    option("--frame-id", default=FRAME_ID, help="of all messages")
    option(
        "--focal",
        type=positive,
        metavar="PIXELS",
        help="focal length for camera_info (default: uncalibrated; the synthetic drive's own)",
    )
    parser.set_defaults(kept="the unfinished bag was removed")


def run(options: argparse.Namespace) -> None:
    """Write the bag and print what it holds.

    Raises:
        CamSegError: there are no frames, or the bag cannot be written.
    """
    require_with("--synthetic", options.synthetic, options, ["seed"])
    require_with("--data", options.data is not None, options, ["split", "labels", "mapping"])
    require_with("--synthetic or --data", options.source is None, options, ["no_labels"])
    focal, pictures = options.focal or 0.0, Pictures(options.strict)
    frames: Iterable[SourceFrame]
    if options.synthetic:
        drive = SyntheticDrive(
            frames=options.frames or SYNTHETIC_FRAMES, seed=options.seed or 0, fps=options.fps
        )
        focal = options.focal or float(
            PinholeCamera(drive.height, drive.width, 0, 0, 0, 0, 0).focal
        )
        frames, count = _labelled(drive, options), len(drive)
    elif options.data is not None:
        data = data_of(options).samples
        frames, count = _labelled(data, options), len(data)
    else:
        source = open_frames(options.source, options.fps, pictures.leave_out)
        frames, count = source, source.count
    if options.frames:
        frames, count = islice(frames, options.frames), min(count or options.frames, options.frames)
    topics = BagTopics(options.topic, options.label_topic, options.format, focal, options.frame_id)
    written = write_bag(shown_progress(frames, count, "make"), options.bag, topics)
    labels = "" if options.source or options.no_labels else f", labels on {topics.labels}"
    text = (
        f"{options.bag}: {written} images on {topics.image_topic}{labels}, "
        f"camera_info on {topics.info_topic}"
    )
    print_lines(text)
    pictures.exit_if_left_out()


def _labelled(samples: Iterable[Sample], options: argparse.Namespace) -> Iterator[SourceFrame]:
    for index, sample in enumerate(samples):
        stamp_ns = START_NS + round(index * 1e9 / options.fps)
        if options.no_labels:
            yield SourceFrame(stamp_ns, sample.image, sample.name)
        else:
            yield LabelledFrame(stamp_ns, sample.image, sample.name, sample.label)
