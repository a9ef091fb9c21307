"""`camseg bag` and `camseg compare`: what they take, and the modules that do it.

Every `camseg` command loads this module through its entry point, so it imports nothing that is slow
or may not be installed.
"""

import argparse
import functools
from importlib import import_module
from pathlib import Path

from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    not_negative,
    number,
    packages_for,
    share,
)
from camseg_core.cli.parser import Parser

positive = number(0, above=True)
"""An argparse type: a finite number > 0."""

_COMMANDS = (
    ("evaluate", "evaluate_command", "bag", "score a model on the images of bags"),
    (
        "replay",
        "replay_command",
        "ros",
        "play a bag into the node over DDS; measure latency, drops, highest rate",
    ),
    ("mine", "mine", "bag", "find the frames of bags that are worth labelling"),
    ("images", "extract", "bag", "write images of bags as files"),
    ("make", "make", "bag", "make a bag from images, a video, a data set or the synthetic drive"),
)
"""Name of the command, its module, the extra with its packages, and what it does."""


def add(parser: argparse.ArgumentParser) -> None:
    """Work with rosbag2 bags of camera images."""
    parser.description = "Work with rosbag2 bags of camera images."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, extra, summary in _COMMANDS:
        # without a prefix for options, all arguments, even --help, reach the command's own parser
        command = commands.add_parser(name, help=summary, add_help=False, prefix_chars="\0")
        command.add_argument("arguments", nargs=argparse.REMAINDER)
        command.set_defaults(run=functools.partial(_run, command.prog, module, extra))


def _run(program: str, module: str, extra: str, given: argparse.Namespace) -> None:
    with packages_for("this command", extra):
        command = import_module(f"{__package__}.{module}")
    parser = Parser(prog=program)
    command.add(parser)
    options = parser.parse_args(given.arguments)
    given.kept = getattr(options, "kept", "").format(**vars(options))
    command.run(options)


TOLERANCE_MS = 5.0
"""Largest difference between the stamps of an image and its label, in ms, by default."""


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare the bags whose images a command segments, and how these are read."""
    help_text = "bag folder, or .mcap or .db3 file"
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help=help_text)
    add_reading(parser)


def add_reading(parser: argparse._ActionsContainer) -> None:
    """Declare how the images of bags are read."""
    option = parser.add_argument
    option("--topic", help="image topic, if a bag has several")
    option(
        "--white-level",
        type=at_least(0),
        metavar="VALUE",
        default=0,
        help="value of white in 16-bit images, such as 4095 for a 12-bit camera (default: 65535)",
    )


def add_tolerance(parser: argparse._ActionsContainer) -> None:
    """Declare how far apart an image of a bag and its label may be."""
    parser.add_argument(
        "--tolerance",
        type=not_negative,
        metavar="MS",
        help="largest difference between the stamps of image and label "
        f"(default: {TOLERANCE_MS:g})",
    )


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Compare two models on labelled frames, on bags, or on both."""
    parser.description = (
        "Compare two models on the same frames: IoU by class with 95 % intervals, calibration, "
        "flicker, interleaved latency, and the frames that got better and worse. Models of "
        "different classes are compared over those that both distinguish. Prints a table, writes "
        "comparison.html and comparison.json. Exits with 1 if a limit fails."
    )
    option = parser.add_argument
    option("old", metavar="OLD", help="the model to compare with: a checkpoint folder or a name")
    option("new", metavar="NEW", help="the model that may replace it")
    add_data_options(parser.add_argument_group("labelled frames"), required=False)
    bags = parser.add_argument_group("bags")
    bags.add_argument("--bag", nargs="+", type=Path, metavar="BAG", help="bags of camera images")
    bags.add_argument(
        "--bag-labels",
        metavar="TOPIC|FOLDER",
        help="labels of the bags: a topic, which begins with /, or a folder; ids without a class "
        "table are those of NEW",
    )
    add_tolerance(bags)
    add_reading(bags)
    limits = parser.add_argument_group("limits, on what was measured")
    for name, kind, metavar, text in (
        ("drop", share, "X", "largest drop of the mean IoU"),
        ("class-drop", share, "X", "largest drop of the IoU of a class"),
        ("slowdown", number(0, above=True), "FACTOR", "largest median latency, divided by OLD's"),
        ("flicker-rise", share, "X", "largest rise of the share of pixels that flicker"),
        ("calibration-rise", share, "X", "largest rise of the expected calibration error"),
    ):
        limits.add_argument(f"--max-{name}", type=kind, metavar=metavar, help=text)
    option(
        "--frames",
        type=at_least(1),
        help="compare on this many frames: evenly spread over --data, the first of each bag",
    )
    option("--out", type=Path, default=Path("out/compare"), help="folder for the report")
    option("--json", action="store_true", help="print comparison.json instead of the table")
    add_model_options(parser, choose=False)
    parser.set_defaults(run=_compare, kept="no comparison was written")


def _compare(options: argparse.Namespace) -> None:
    with packages_for("compare", "evaluate", "rich.progress"):
        from camseg_ros.bag.compare import run
    run(options)
