"""`camseg bag images`: writes images of bags as files."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from camseg_core.cli.console import print_lines, say
from camseg_core.cli.options import at_least
from camseg_core.data.image_files import write_image
from camseg_core.errors import DataError, camseg_command
from camseg_core.long_runs import new_folder, require_new, shown_progress
from camseg_ros.bag.command import add_images
from camseg_ros.bag.evaluation import BagInfo, inspect_bags
from camseg_ros.bag.frames import DecodedFrame, ReadOptions, read_frames
from camseg_ros.bag.names import frame_name


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Write images of bags as PNG files, evenly spread over all of them, and images.json with "
        "bag, number and stamp of each."
    )
    add_images(parser)
    parser.add_argument(
        "--frames", type=at_least(1), metavar="N", help="images to write (default: all)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/images"),
        metavar="FOLDER",
        help="new folder for the images",
    )
    parser.add_argument("--json", action="store_true", help="print images.json")
    parser.set_defaults(kept="nothing was written")


def run(options: argparse.Namespace) -> None:
    """Write the images; `--out` appears when all are there.

    Raises:
        CamSegError: a bag cannot be used, or `--out` is not a new folder.
    """
    require_new(options.out, "--out")
    reading = ReadOptions(options.topic, None, white_level=options.white_level)
    bags = inspect_bags(options.bags, reading)
    counts = [bag.count for bag in bags]
    wanted = spread(counts, options.frames)
    problems = list[str]()
    with new_folder(options.out, "--out") as folder:
        written = []
        frames = _frames(bags, wanted, reading, problems)
        for number, frame in shown_progress(frames, sum(map(len, wanted)), "images"):
            assert frame.image is not None  # of _frames
            name = frame_name(number, bags[number].path, frame.index, frame.stamp_ns)
            write_image(folder / f"{name}.png", frame.image)
            written.append(
                {
                    "name": f"{name}.png",
                    "bag": str(bags[number].path),
                    "index": frame.index,
                    "stamp_ns": frame.stamp_ns,
                }
            )
        if not written:
            why = problems[0] if problems else "they hold none"
            raise DataError(f"no image of the bags can be read: {why}")
        result: dict[str, Any] = {
            "bags": {str(bag.path): bag.count for bag in bags},
            "topics": {str(bag.path): bag.topic for bag in bags},
            "asked": options.frames,
            "topic": options.topic,
            "white_level": options.white_level,
            "left_out": problems,
            "images": written,
        }
        text = json.dumps(result, indent=1) + "\n"
        (folder / "images.json").write_text(text, encoding="utf-8")
    if options.json:
        sys.stdout.write(text)
    else:
        print_lines(f"{len(written)} of {sum(counts)} images: {options.out}")
    for problem in problems:
        say(f"{camseg_command()}: left out: {problem}")


def spread(counts: list[int], most: int | None) -> list[list[int]]:
    """Return numbers of images in each bag, at most so many, evenly spread over all bags."""
    total = sum(counts)
    asked = total if most is None else min(most, total)
    chosen = [(2 * i + 1) * total // (2 * asked) for i in range(asked)]
    ends = [*accumulate(counts)]
    return [
        [place - end + count for place in chosen if end - count <= place < end]
        for count, end in zip(counts, ends, strict=True)
    ]


def _frames(
    bags: Sequence[BagInfo], wanted: list[list[int]], reading: ReadOptions, problems: list[str]
) -> Iterator[tuple[int, DecodedFrame]]:
    """Yield the wanted images with the number of their bag; `problems` gets a line for others.

    Reads each bag that has some to its end, as only that shows whether it is damaged.
    """
    for number, (bag, numbers) in enumerate(zip(bags, wanted, strict=True)):
        if not numbers:
            continue
        with reading.open(bag.path) as images:
            try:
                for frame in read_frames(images, reading, only={*numbers}):
                    if frame.image is None:
                        problems.append(frame.problem)
                    else:
                        yield number, frame
            except DataError as error:
                problems.append(str(error))
