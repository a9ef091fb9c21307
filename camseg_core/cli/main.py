"""The `camseg` command: parses the command line and calls the chosen command."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from camseg_core import __version__
from camseg_core.cli import (
    adapt,
    calibrate,
    data,
    distill,
    graphs,
    inference,
    scoring,
    train,
    weights,
)
from camseg_core.cli.console import command_line
from camseg_core.cli.parser import OTHER_COMMANDS, LayoutHelp, Parser, as_phrase
from camseg_core.errors import ConfigError, camseg_command

Command = tuple[str, Callable[[argparse.ArgumentParser], None], str]
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

_COMMANDS: tuple[tuple[str, tuple[Command, ...]], ...] = (
    (
        "run a model",
        (
            ("segment", inference.add_segment, "segment images, a video or a folder of images"),
            ("bench", inference.add_bench, "time a model, alone or against another one"),
        ),
    ),
    (
        "score a model",
        (
            ("evaluate", scoring.add_evaluate, "score a model on labelled frames"),
            (
                "robustness",
                scoring.add_robustness,
                "score a model on disturbed frames: noise, blur, colours, weather",
            ),
            ("calibrate", calibrate.add_calibrate, "fit a model's confidence to its accuracy"),
        ),
    ),
    (
        "prepare a model for a vehicle",
        (
            ("weights", weights.add, "download or import published weights; list models"),
            ("export", graphs.add_export, "write a model's ONNX graphs in fp32, fp16 or int8"),
            (
                "build-engine",
                graphs.add_build_engine,
                "build TensorRT engines before a vehicle's first start",
            ),
        ),
    ),
    (
        "train",
        (
            ("data", data.add, "check a labelled data set, or list the supported kinds"),
            ("train", train.add_train, "train a model on labelled frames"),
            ("adapt", adapt.add_adapt, "adapt a model to images without labels (experimental)"),
            ("distill", distill.add_distill, "distil a trained model to few denoising steps"),
            ("train-autoencoder", train.add_train_autoencoder, "train only its autoencoder"),
            (
                "distill-decoder",
                distill.add_distill_decoder,
                "train a light mask decoder for a model with the published layout",
            ),
        ),
    ),
)
"""Commands by task: name, the function that declares the options, and a summary."""

_TASKS_OF_OTHERS = {"compare": "score a model", "bag": "recorded drives"}
"""The task under which a command of another package is listed; by default "more"."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a `CamSegError` ends it with one line on stderr and exit code 2."""
    typed = sys.argv[1:] if arguments is None else arguments
    parser, options = command_parser(), argparse.Namespace(kept="", typed=typed)
    with command_line(camseg_command(), lambda: options.kept.format(**vars(options))):
        parser.parse_args(typed, options)
        options.run(options)


def command_parser() -> Parser:
    """Return the parser of all commands; it sets `run` in what it parses."""
    parser = Parser(
        prog=camseg_command(),
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Semantic segmentation for driving.",
        formatter_class=LayoutHelp,
    )
    parser.add_argument("--version", action="version", version=f"camseg {__version__}")
    commands = parser.add_subparsers(
        prog=camseg_command(),
        required=True,
        metavar="COMMAND",
        help="one of the commands below",
    )
    tasks = {task: [_add(commands, *command) for command in group] for task, group in _COMMANDS}
    for other in entry_points(group=OTHER_COMMANDS):
        task = _TASKS_OF_OTHERS.get(other.name, "more")
        tasks.setdefault(task, []).append(_add_other(commands, other))
    parser.epilog = "\n\n".join(
        "\n".join([f"{task}:", *lines]) for task, lines in tasks.items() if lines
    )
    return parser


def _add(commands: Commands, name: str, add: Callable[[Parser], None], summary: str) -> str:
    """Add a command; return its line in the list of commands."""
    add(commands.add_parser(name))
    return f"  {name:<18} {summary}"


def _add_other(commands: Commands, other: EntryPoint) -> str:
    """Add a command of another package: a function like `add_segment`; its docstring is help."""
    try:
        add = other.load()
    except Exception as error:  # the other commands must keep working
        text = (
            f"the command {other.name} cannot be loaded from {other.value}: "
            f"{' '.join(str(error).split())}; install that package again"
        )
        commands.add_parser(other.name).set_defaults(run=functools.partial(_refuse, text))
        return f"  {other.name:<18} (cannot be loaded)"
    summary, _, _ = (add.__doc__ or "").partition("\n")
    return _add(commands, other.name, add, as_phrase(summary))


def _refuse(text: str, options: argparse.Namespace) -> None:
    raise ConfigError(text)


if __name__ == "__main__":
    main()
