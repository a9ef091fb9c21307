"""`camseg train` and `camseg train-autoencoder`, and what all commands that train share."""

import argparse
import functools
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from camseg_core.cli.options import at_least, not_negative, packages_for, share
from camseg_core.errors import ConfigError

if TYPE_CHECKING:
    from camseg_core.training.recipes import Recipe

_EPILOG = """\
Started again with the same --run, it goes on where it was. Ctrl-C, SIGTERM or a file named "stop"
beside the run's state.safetensors ends it after the current step and saves its state; a second
Ctrl-C ends it at once. Watch it with: tensorboard --logdir RUN

Several processes share each batch:
torchrun --nproc-per-node N -m camseg_core.cli -- {command} ...
"""


def add_training_options(
    parser: argparse.ArgumentParser, command: str, config: str, entry: str, folders: bool = True
) -> None:
    """Add the options of every command that trains.

    `config` is an example for --config, and `entry` one of its entries, for --set. With `folders`,
    argparse requires --data, --run and --out.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG.format(command=command)
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"what to train and how, such as {config}",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=folders,
        metavar="ROOT",
        help="the data set: train/ and val/, each with images/ and labels/",
    )
    parser.add_argument(
        "--run",
        type=Path,
        required=folders,
        dest="run_folder",
        metavar="RUN",
        help="folder for the state, the log and the curves, such as runs/NAME",
    )
    parser.add_argument(
        "--out", type=Path, required=folders, metavar="FOLDER", help="where the result is written"
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        default=0,
        metavar="N",
        help="background processes that read and augment frames, for each process that trains; "
        "0: read between the steps (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="device to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ENTRY=VALUE",
        help=f"change an entry of FILE, as in --set {entry}=100; repeatable",
    )


def training_packages() -> AbstractContextManager[None]:
    """Return the context for imports that only training needs, see `packages_for`."""
    return packages_for("training", "train")


@contextmanager
def training_run(options: argparse.Namespace) -> Iterator[None]:
    """Log to stderr and RUN/train.log inside; end a run that was asked to stop with exit code 130.

    Raises:
        ConfigError: RUN or FOLDER cannot be written to.
    """
    from camseg_core.training.trainer import Stopped

    _make_writable("--run", options.run_folder)  # now, not after hours of training
    _make_writable("--out", options.out)
    handlers = _log_to(options.run_folder)
    try:
        yield
    except Stopped as stopped:
        sys.stderr.write(f"camseg: {stopped}\n")
        sys.exit(130)
    finally:
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _make_writable(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{option} {folder} cannot be written to: check its permissions")


def _log_to(folder: Path) -> list[logging.Handler]:
    """Send the project's log to stderr and `folder`/train.log, from the main process alone."""
    if os.environ.get("RANK", "0") != "0":
        return []
    handlers: list[logging.Handler] = [
        _StderrHandler(),
        logging.FileHandler(folder / "train.log", encoding="utf-8"),
    ]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger("camseg_core").setLevel(logging.INFO)
    return handlers


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which the live display replaces to keep its bar below."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg train`."""
    parser.description = (
        "Train a model, and write its checkpoint folder: weights, ONNX graphs, model card and the\n"
        "scores on the validation frames (only weights for the published layout). Without\n"
        "--autoencoder, a model with a mask autoencoder starts by training one."
    )
    add_training_options(
        parser, "train", "config/train/camseg-lite.yaml", "training.loop.steps", folders=False
    )
    parser.add_argument(
        "--autoencoder",
        type=Path,
        metavar="FOLDER",
        help="a trained autoencoder, as camseg train-autoencoder writes it",
    )
    _add_estimate_options(parser)
    parser.set_defaults(run=functools.partial(_train, parser))


def _add_estimate_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "estimate before the run", "counted, not measured; --data, --run and --out can be left out"
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the memory by its use, the operations and the least time, then exit",
    )
    group.add_argument(
        "--processes",
        type=at_least(1),
        metavar="N",
        help="number of devices (default: torchrun's processes, or 1)",
    )
    group.add_argument(
        "--frames",
        type=at_least(1),
        metavar="N",
        help="number of training frames (default: those in --data)",
    )
    group.add_argument(
        "--device-tflops",
        type=_above_zero(not_negative),
        metavar="X",
        help="peak rate of another device, for dense bf16 matrices with sums in fp32",
    )
    group.add_argument(
        "--device-memory",
        type=_above_zero(not_negative),
        metavar="GB",
        help="memory of that device, in 1e9 bytes",
    )
    group.add_argument(
        "--utilisation",
        type=_above_zero(share),
        default=1.0,
        metavar="U",
        help="share of the peak rate that is reached (default: %(default)s)",
    )


def _above_zero(number: Callable[[str], float]) -> Callable[[str], float]:
    """Return the argparse type `number` without 0."""

    def parse(text: str) -> float:
        value = number(text)
        if value == 0:
            raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
        return value

    return parse


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.reader import load_yaml
        from camseg_core.training.recipes import Recipe, run
    recipe = load_yaml(options.config, Recipe, options.set)
    if options.dry_run:
        _estimate(recipe, options)
        return
    given = {"--data": options.data, "--run": options.run_folder, "--out": options.out}
    missing = [option for option, value in given.items() if value is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    with training_packages(), training_run(options):
        run(
            recipe,
            options.data,
            options.run_folder,
            options.out,
            options.autoencoder,
            options.device,
            options.workers,
        )


def _estimate(recipe: "Recipe", options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.evaluation.roofline import DEVICES, Device
        from camseg_core.training.estimate import CAVEAT, estimate_lines
        from camseg_core.training.recipes import estimate_run
    devices: tuple[Device, ...] = DEVICES
    if options.device_tflops is not None:
        memory = None if options.device_memory is None else 1e9 * options.device_memory
        devices = (Device("device", 0.0, {}, training=1e12 * options.device_tflops, memory=memory),)
    processes = options.processes or int(os.environ.get("WORLD_SIZE", "1"))
    with training_packages():
        found = estimate_run(recipe, processes, options.data, options.frames)
    lines = [*estimate_lines(found, devices, options.utilisation), "", *textwrap.wrap(CAVEAT, 110)]
    sys.stdout.write("\n".join(lines) + "\n")


def add_autoencoder(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg train-autoencoder`."""
    parser.description = (
        "Train only an autoencoder, and write its folder, which camseg train takes as\n"
        "--autoencoder."
    )
    add_training_options(
        parser, "train-autoencoder", "config/train/mask-autoencoder.yaml", "mask.loop.steps"
    )
    parser.set_defaults(run=_train_autoencoder)


def _train_autoencoder(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.reader import load_yaml
        from camseg_core.training.recipes import AutoencoderRecipe, run_autoencoder
    recipe = load_yaml(options.config, AutoencoderRecipe, options.set)
    with training_packages(), training_run(options):
        run_autoencoder(
            recipe, options.data, options.run_folder, options.out, options.device, options.workers
        )
