"""`camseg bag`: bags of camera images, made, evaluated and replayed.

The entry point `camseg.commands` leads here, so every `camseg` command loads this module: it imports nothing that is heavy or may be
missing. What a sub-command needs is imported when it is called.
"""

import argparse
import functools
from importlib import import_module

from camseg_core.cli.options import packages_for

_COMMANDS = (
    ("evaluate", "camseg_ros.bag.evaluate_command", "bag", "score a model on the images of bags"),
    (
        "replay",
        "camseg_ros.bag.replay_command",
        "ros",
        "play a bag into the node over DDS and measure latency, drops and the highest rate",
    ),
    (
        "make",
        "camseg_ros.bag.make_command",
        "bag",
        "a bag from images, a video, a data set or the synthetic drive",
    ),
)
"""Name, module with `add(parser)` and `run(options)`, the extra that brings what it needs, and what it does."""


def add(parser: argparse.ArgumentParser) -> None:
    """Bags of camera images: evaluate a model on them, replay them into the node, make them."""
    parser.description = "Work with rosbag2 bags of camera images."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, extra, summary in _COMMANDS:
        # a parser that takes nothing for an option leaves everything, --help too, to the command's own
        command = commands.add_parser(name, help=summary, add_help=False, prefix_chars="\0")
        command.add_argument("arguments", nargs=argparse.REMAINDER)
        command.set_defaults(run=functools.partial(_run, command.prog, module, extra))


def _run(program: str, module: str, extra: str, given: argparse.Namespace) -> None:
    with packages_for("this command", extra):
        command = import_module(module)
    parser = argparse.ArgumentParser(prog=program)
    command.add(parser)
    command.run(parser.parse_args(given.arguments))
