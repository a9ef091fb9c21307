"""`camseg bag make`: parses and has the bag written."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from camseg_core.cli.options import add_dataset_options, add_split_option, at_least, data_of
from camseg_core.data.frame_source import DEFAULT_FPS, START_NS, Frame, open_frames
from camseg_core.data.sample import Sample
from camseg_core.data.synthetic.canvas import Camera
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.progress import shown_progress
from camseg_ros.bag.make import (
    FRAME_ID,
    IMAGE_TOPIC,
    LABEL_TOPIC,
    BagTopics,
    LabelledFrame,
    write_bag,
)

SYNTHETIC_FRAMES = 60


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Write a rosbag2 bag (MCAP) of images with camera_info, and with labels where there are some: mono8 images of Cityscapes train "
        "ids, 255 where there is none."
    )
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder to make")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--source", type=Path, metavar="PATH", help="a folder of images, an image or a video"
    )
    source.add_argument("--data", type=Path, metavar="ROOT", help="root of a labelled data set")
    source.add_argument(
        "--synthetic", action="store_true", help="the project's synthetic drive, with labels"
    )
    add_split_option(parser)
    add_dataset_options(parser)
    parser.add_argument(
        "--frames",
        type=at_least(1),
        help=f"stop after this many frames (default: all; synthetic: {SYNTHETIC_FRAMES})",
    )
    parser.add_argument(
        "--fps",
        type=_positive,
        default=DEFAULT_FPS,
        help="frames per second, but of a video (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of the synthetic drive (default: %(default)s)"
    )
    parser.add_argument(
        "--topic",
        default=IMAGE_TOPIC,
        help="of the images (default: %(default)s; compressed ones get /compressed)",
    )
    parser.add_argument("--label-topic", default=LABEL_TOPIC, help="(default: %(default)s)")
    parser.add_argument("--no-labels", action="store_true", help="leave the labels out")
    parser.add_argument(
        "--format",
        choices=["raw", "jpeg", "png"],
        default="raw",
        help="how images are kept (default: %(default)s)",
    )
    parser.add_argument("--frame-id", default=FRAME_ID, help="(default: %(default)s)")
    parser.add_argument(
        "--focal",
        type=_positive,
        metavar="PIXELS",
        help="focal length for camera_info (default: not calibrated; the synthetic drive's own)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the bag and say so.

    Raises:
        CamSegError: there are no frames, or the bag cannot be written.
    """
    focal = options.focal or 0.0
    frames: Iterable[Frame]
    if options.synthetic:
        drive = SyntheticDrive(
            frames=options.frames or SYNTHETIC_FRAMES, seed=options.seed, fps=options.fps
        )
        focal = options.focal or _focal(drive)
        frames, count = _labelled(drive, options), len(drive)
    elif options.data is not None:
        data = data_of(options).samples
        frames, count = _labelled(data, options), len(data)
    else:
        source = open_frames(options.source, options.fps)
        frames, count = source, source.count
    count = min(count, options.frames or count)
    topics = BagTopics(options.topic, options.label_topic, options.format, focal)
    written = write_bag(
        shown_progress(_first(iter(frames), count), count, "make"),
        options.bag,
        frame_id=options.frame_id,
        topics=topics,
    )
    labels = "" if options.source or options.no_labels else f", labels on {topics.labels}"
    sys.stdout.write(
        f"{options.bag}: {written} images on {topics.image_topic}{labels}, camera_info on {topics.info_topic}\n"
    )


def _labelled(samples: Iterable[Sample], options: argparse.Namespace) -> Iterator[Frame]:
    for index, sample in enumerate(samples):
        stamp_ns = START_NS + round(index * 1e9 / options.fps)
        if options.no_labels:
            yield Frame(stamp_ns, sample.image, sample.name)
        else:
            yield LabelledFrame(stamp_ns, sample.image, sample.name, sample.label)


def _first(frames: Iterator[Frame], count: int) -> Iterator[Frame]:
    """The first frames; nothing is read beyond the last."""
    for number, frame in enumerate(frames, start=1):
        yield frame
        if number == count:
            return


def _focal(drive: SyntheticDrive) -> float:
    return float(Camera(drive.height, drive.width, 0, 0, 0, 0, 0).focal)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
