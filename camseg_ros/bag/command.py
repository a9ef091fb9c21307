"""`camseg bag`: makes, evaluates and replays bags of camera images.

Every `camseg` command loads this module through its entry point, so it imports nothing that is slow
or may not be installed.
"""

import argparse
import functools
import math
from importlib import import_module
from pathlib import Path

from camseg_core.cli.options import at_least, packages_for
from camseg_core.cli.parser import Parser

_COMMANDS = (
    ("evaluate", "evaluate_command", "bag", "score a model on the images of bags"),
    (
        "replay",
        "replay_command",
        "ros",
        "play a bag into the node over DDS; measure latency, drops, highest rate",
    ),
    ("mine", "mine", "bag", "find the frames of bags that are worth labelling"),
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


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare the bags whose images a command segments, and how these are read."""
    option = parser.add_argument
    option("bags", nargs="+", type=Path, metavar="BAG", help="bag folder, or .mcap or .db3 file")
    option("--topic", help="image topic, if a bag has several")
    option(
        "--input-range",
        type=at_least(0),
        metavar="WHITE",
        default=0,
        help="white in images of 16 bits, such as 4095 for a camera of 12 bits (default: 65535)",
    )


def positive(text: str) -> float:
    """Parse an option that must be a finite number > 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value
