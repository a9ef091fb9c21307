"""`camseg segment`: images, a video or a folder of images to masks."""

import argparse
import sys
from pathlib import Path

from camseg_core.cli.options import add_model_options, at_least, segmenter_of, share
from camseg_core.segment_files import segment_files


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Write the class ids of every frame of SOURCE (mask/NAME.png, Cityscapes train ids, "
        "255 = unlabelled), in colour (color/NAME.png) and over the picture (overlay/NAME.png)."
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="an image, a video or a folder of images"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/segment"),
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--frames", type=at_least(1), help="stop after this many frames")
    parser.add_argument(
        "--opacity",
        type=share,
        default=0.5,
        help="of the colours in the overlay, 0 to 1 (default: %(default)s)",
    )
    add_model_options(parser)
    parser.set_defaults(run=_segment)


def _segment(options: argparse.Namespace) -> None:
    for line in segment_files(
        segmenter_of(options), options.source, options.out, options.opacity, options.frames
    ):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
