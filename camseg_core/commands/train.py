"""`camseg train`: a labelled data set to a checkpoint folder."""

import argparse
import functools
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from camseg_core.commands.options import at_least, not_negative, share
from camseg_core.commands.training import add_training_options, training_packages, training_run

if TYPE_CHECKING:
    from camseg_core.training.recipe import Recipe


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Train a model, and write its checkpoint folder: weights, ONNX graphs, model card, and its scores on the\n"
        "validation frames (weights alone for the published layout). Without --autoencoder, a model with a mask\n"
        "autoencoder begins by training one."
    )
    add_training_options(parser, "train", "config/train/camseg-lite.yaml", "training.loop.steps", folders=False)
    parser.add_argument("--autoencoder", type=Path, metavar="FOLDER", help="a trained autoencoder, as camseg train-autoencoder writes it")
    _add_estimate_options(parser)
    parser.set_defaults(run=functools.partial(_train, parser))


def _add_estimate_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("estimate before the run", "counted, not measured; --data, --run and --out can be left out")
    group.add_argument("--dry-run", action="store_true", help="print memory by what it is for, operations and least times, and end")
    group.add_argument("--processes", type=at_least(1), metavar="N", help="on so many devices (default: those of torchrun, or 1)")
    group.add_argument("--frames", type=at_least(1), metavar="N", help="of so many frames (default: those in --data)")
    group.add_argument("--device-tflops", type=_positive, metavar="X", help="a device's peak for dense bf16 matrices, sums in fp32")
    group.add_argument("--device-memory", type=_positive, metavar="GB", help="and its memory, in 1e9 bytes")
    group.add_argument(
        "--utilisation", type=_positive_share, default=1.0, metavar="U", help="share of the peak rate (default: %(default)s)"
    )


def _positive(text: str) -> float:
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _positive_share(text: str) -> float:
    value = share(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to 1")
    return value


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config_file import load_yaml
        from camseg_core.training.recipe import Recipe, run
    recipe = load_yaml(options.config, Recipe, options.set)
    if options.dry_run:
        _estimate(recipe, options)
        return
    given = {"--data": options.data, "--run": options.run_folder, "--out": options.out}
    missing = [option for option, value in given.items() if value is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    with training_packages(), training_run(options):
        run(recipe, options.data, options.run_folder, options.out, options.autoencoder, options.device, options.workers)


def _estimate(recipe: "Recipe", options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.evaluation.roofline import DEVICES, Device
        from camseg_core.training.estimate import CAVEAT, estimate_lines
        from camseg_core.training.recipe import estimate_run
    devices: tuple[Device, ...] = DEVICES
    if options.device_tflops is not None:
        memory = None if options.device_memory is None else 1e9 * options.device_memory
        devices = (Device("device", 0.0, {}, training=1e12 * options.device_tflops, memory=memory),)
    processes = options.processes or int(os.environ.get("WORLD_SIZE", "1"))
    with training_packages():
        found = estimate_run(recipe, processes, options.data, options.frames)
    lines = [*estimate_lines(found, devices, options.utilisation), "", *textwrap.wrap(CAVEAT, 110)]
    sys.stdout.write("\n".join(lines) + "\n")
