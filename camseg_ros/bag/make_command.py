"""`camseg bag make`: parses the options and writes the bag."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from camseg_core.cli.options import add_dataset_options, add_split_option, at_least, data_of
from camseg_core.data.frame_source import DEFAULT_FPS, START_NS, SourceFrame, open_frames
from camseg_core.data.sample import Sample
from camseg_core.data.synthetic.camera import PinholeCamera
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.progress import shown_progress
from camseg_ros.bag.command import positive
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
        "Write a rosbag2 bag (MCAP) of images with camera_info and, if there are any, labels: "
        "mono8 images of Cityscapes train ids, 255 for unlabelled pixels."
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
        type=positive,
        default=DEFAULT_FPS,
        help="frames per second; a video has its own (default: %(default)s)",
    )
    option(
        "--seed",
        type=at_least(0),
        default=0,
        help="seed of the synthetic drive (default: %(default)s)",
    )
    option(
        "--topic",
        default=IMAGE_TOPIC,
        help="image topic (default: %(default)s); compressed images use its /compressed",
    )
    option("--label-topic", default=LABEL_TOPIC, help="default: %(default)s")
    option("--no-labels", action="store_true", help="leave the labels out")
    option(
        "--format",
        choices=["raw", "jpeg", "png"],
        default="raw",
        help="how images are stored (default: %(default)s)",
    )
    option("--frame-id", default=FRAME_ID, help="default: %(default)s")
    option(
        "--focal",
        type=positive,
        metavar="PIXELS",
        help="focal length for camera_info (default: uncalibrated; the synthetic drive's own)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the bag and print what it holds.

    Raises:
        CamSegError: there are no frames, or the bag cannot be written.
    """
    focal = options.focal or 0.0
    frames: Iterable[SourceFrame]
    if options.synthetic:
        drive = SyntheticDrive(
            frames=options.frames or SYNTHETIC_FRAMES, seed=options.seed, fps=options.fps
        )
        focal = options.focal or float(
            PinholeCamera(drive.height, drive.width, 0, 0, 0, 0, 0).focal
        )
        frames, count = _labelled(drive, options), len(drive)
    elif options.data is not None:
        data = data_of(options).samples
        frames, count = _labelled(data, options), len(data)
    else:
        source = open_frames(options.source, options.fps)
        frames, count = source, source.count
    count = min(count, options.frames or count)
    topics = BagTopics(options.topic, options.label_topic, options.format, focal, options.frame_id)
    shown = shown_progress(islice(frames, count), count, "make")
    written = write_bag(shown, options.bag, topics)
    labels = "" if options.source or options.no_labels else f", labels on {topics.labels}"
    sys.stdout.write(
        f"{options.bag}: {written} images on {topics.image_topic}{labels}, "
        f"camera_info on {topics.info_topic}\n"
    )


def _labelled(samples: Iterable[Sample], options: argparse.Namespace) -> Iterator[SourceFrame]:
    for index, sample in enumerate(samples):
        stamp_ns = START_NS + round(index * 1e9 / options.fps)
        if options.no_labels:
            yield SourceFrame(stamp_ns, sample.image, sample.name)
        else:
            yield LabelledFrame(stamp_ns, sample.image, sample.name, sample.label)
