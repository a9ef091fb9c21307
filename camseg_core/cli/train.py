"""The commands train and train-autoencoder, and what all commands that train share."""

import argparse
import functools
import logging
import os
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import camseg_core
from camseg_core.cli.console import print_lines
from camseg_core.cli.options import at_least, number, packages_for
from camseg_core.cli.parser import LayoutHelp
from camseg_core.cli.tuning import add_set_options, add_start_option, data_for, finetuning
from camseg_core.errors import camseg_command
from camseg_core.long_runs import writable_folder
from camseg_core.weights import checkpoint_folder

Task = tuple[type[Any], Callable[..., None]]
"""What `--config` describes, and the function that trains it."""

_EPILOG = """\
The same command with the same --run resumes. Ctrl-C, SIGTERM or a file named "stop" beside the
run's state.safetensors ends it after the current step and saves its state; a second Ctrl-C ends
it at once. Watch it with: tensorboard --logdir RUN

Several processes share each batch:
torchrun --nproc-per-node N -m camseg_core.cli -- {command} ...
"""


def configuration_file(text: str) -> Path:
    """Return the named file; one that is shipped, such as `config/train/distill.yaml`, also where
    the project is installed."""
    path, package = Path(text), Path(camseg_core.__file__).parent
    if not path.is_absolute() and not path.exists():
        for folder in package.parents:
            for shipped in (folder / path, folder / "share" / "camseg_ros" / path):
                if path.parts[:1] == ("config",) and shipped.is_file():
                    return shipped
    return path


def add_training_options(
    parser: argparse.ArgumentParser, command: str, config: str, entry: str, folders: bool = True
) -> None:
    """Add the options of every command that trains.

    `config` and `entry` are examples for --config and --set. With `folders`, --config, --data,
    --run and --out are required.
    """
    parser.formatter_class = LayoutHelp
    parser.epilog = _EPILOG.format(command=command)
    parser.add_argument(
        "--config",
        type=configuration_file,
        required=folders,
        metavar="FILE",
        help=f"what to train and how, such as {config}",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=folders,
        metavar="ROOT",
        help="root of a labelled data set (camseg data list has the layouts), or the folder that "
        "holds several",
    )
    add_set_options(parser)
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
        help="background processes per training process that read and augment frames; 0: read "
        "between the steps",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device to train on"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ENTRY=VALUE",
        help=f"change an entry of FILE, as in --set {entry}=100; repeatable",
    )
    parser.set_defaults(kept="the last saved state is in {run_folder}; the same command resumes")


@contextmanager
def training_run(options: argparse.Namespace) -> Iterator[None]:
    """Log to stderr and RUN/train.log; end a run that was asked to stop with exit code 130.

    Raises:
        ConfigError: RUN or FOLDER cannot be written to.
    """
    from camseg_core.training.trainer import Stopped

    for option, folder in (("--run", options.run_folder), ("--out", options.out)):
        writable_folder(folder, option)  # now, not after hours of training
    handlers = _log_to(options.run_folder)
    try:
        yield
    except Stopped as stopped:
        sys.stderr.write(f"{camseg_command()}: {stopped}\n")
        sys.exit(130)
    finally:
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _log_to(folder: Path) -> list[logging.Handler]:
    """Send the project's log to stderr and `folder`/train.log, from the main process alone."""
    handlers: list[logging.Handler] = [logging.NullHandler()]  # without any, stderr gets warnings
    if os.environ.get("RANK", "0") == "0":
        log = folder / "train.log"
        handlers = [_StderrHandler(), _LogFile(log, encoding="utf-8", errors="backslashreplace")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger("camseg_core").setLevel(logging.INFO)
    return handlers


class _LogFile(logging.FileHandler):
    """Goes on without the file if it cannot be written, as on a full disk, and says so once."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        self._fail(sys.exc_info()[1])

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        if not self._failed:
            self._failed = True
            why = getattr(error, "strerror", None) or error
            sys.stderr.write(
                f"{camseg_command()}: cannot write {self.baseFilename}: {why}; the log goes on "
                "without it\n"
            )


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which the live display replaces to keep its bar below."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that write a model with its card."""
    parser.add_argument(
        "--name",
        default="",
        help="name of the model, for diagnostics and reports (default: the name of RUN)",
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="TEXT",
        help="licence of the weights, for the model card (default: not stated)",
    )
    parser.add_argument(
        "--no-export",
        dest="export",
        action="store_false",
        help="only write the weights: leave out the ONNX graphs and the scores",
    )


def described(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that all functions take that write a model with its card."""
    from camseg_core.training.card import About

    several = "TORCHELASTIC_RUN_ID" in os.environ
    program = "torchrun … -m camseg_core.cli --" if several else "camseg"
    command = f"{program} {shlex.join(options.typed)}"
    about = About(options.name, " ".join(options.license.split()), command)
    return {"about": about, "export": options.export}


def run_training(
    task_of: Callable[[argparse.Namespace], Task], options: argparse.Namespace
) -> None:
    """Read the configuration, and train what `task_of` returns for the options."""
    with packages_for("training", "train"):
        from camseg_core.config.yaml_file import load_yaml

        kind, train = task_of(options)
        recipe = load_yaml(options.config, kind, options.set)
        folder = options.config.parent if options.config is not None else Path()
        recipe = replace(recipe, data=data_for(options, recipe.data, folder))
    with packages_for("training", "train"), training_run(options):
        train(
            recipe,
            data=options.data,
            run=options.run_folder,
            out=options.out,
            device=options.device,
            workers=options.workers,
        )


def add_train(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg train`."""
    parser.description = (
        "Train a model and write its checkpoint folder: weights, ONNX graphs, model card and\n"
        "scores on the validation frames (only weights and a card for the published layout).\n"
        "Without --autoencoder, a model with a mask autoencoder trains one first. With --from,\n"
        "fine-tunes a trained model on the data, whose classes may differ, and compares it before\n"
        "and after."
    )
    add_training_options(
        parser, "train", "config/train/camseg-lite.yaml", "training.loop.steps", folders=False
    )
    parser.add_argument(
        "--autoencoder",
        type=Path,
        metavar="FOLDER",
        help="a trained autoencoder, as written by camseg train-autoencoder, or a model to take it "
        "from: a checkpoint folder or the name of a bundled model",
    )
    add_start_option(parser)
    add_card_options(parser)
    group = parser.add_argument_group(
        "estimate before the run", "counted, not measured; --data, --run and --out can be left out"
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print memory by purpose, operations and least time, then exit; with --from: what is "
        "kept and new, and the time, measured over a few steps",
    )
    count, positive = at_least(1), number(0, above=True)
    for option, kind, metavar, text in (
        ("--processes", count, "N", "number of devices (default: torchrun's processes, or 1)"),
        ("--frames", count, "N", "number of training frames (default: those in --data)"),
        ("--device-tflops", positive, "X", "peak rate of another device, for dense bf16 matrices"),
        ("--device-memory", positive, "GB", "memory of that device, in 1e9 bytes"),
    ):
        group.add_argument(option, type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--utilisation",
        type=number(0, 1, above=True),
        metavar="U",
        help="share of the peak rate that is reached (default: 1)",
    )
    parser.set_defaults(run=functools.partial(_train, parser))


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    needed = {"--config": options.config} if options.start is None else {"--data": options.data}
    if not options.dry_run:
        needed |= {"--data": options.data, "--run": options.run_folder, "--out": options.out}
    missing = [option for option, value in needed.items() if value is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    _check_estimate_options(parser, options)
    if not options.dry_run:
        return run_training(_model_task, options)
    options.kept = "a dry run keeps nothing"
    if options.start is None:
        return _estimate(options)
    with tempfile.TemporaryDirectory() as folder:
        options.run_folder, options.out = Path(folder, "run"), Path(folder, "out")
        return run_training(_model_task, options)


def _check_estimate_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options of the estimate that have no effect."""
    names = ("processes", "frames", "device_tflops", "device_memory", "utilisation")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    if given and not (options.dry_run and options.start is None):
        parser.error(
            f"{', '.join(given)}: only for the estimate of --dry-run without --from, which trains "
            "nothing; leave out"
        )
    if options.device_memory is not None and options.device_tflops is None:
        parser.error("--device-memory: needs --device-tflops, the rate of that device")


def _model_task(options: argparse.Namespace) -> Task:
    if options.start is not None:
        return finetuning(options, described(options))
    from camseg_core.training.recipes import Recipe, run

    given = options.autoencoder
    autoencoder = None if given is None else checkpoint_folder(given)
    return Recipe, functools.partial(run, autoencoder=autoencoder, **described(options))


def _estimate(options: argparse.Namespace) -> None:
    with packages_for("training", "train"):
        from camseg_core.config.yaml_file import load_yaml
        from camseg_core.evaluation.roofline import DEVICES, Device
        from camseg_core.training.estimate import CAVEAT, estimate_lines
        from camseg_core.training.recipes import Recipe, estimate_run

        recipe = load_yaml(options.config, Recipe, options.set)
        recipe = replace(recipe, data=data_for(options, recipe.data, options.config.parent))
        processes = options.processes or int(os.environ.get("WORLD_SIZE", "1"))
        found = estimate_run(recipe, processes, options.data, options.frames)
    devices: tuple[Device, ...] = DEVICES
    if options.device_tflops is not None:
        memory = None if options.device_memory is None else 1e9 * options.device_memory
        devices = (Device("device", 0.0, {}, training=1e12 * options.device_tflops, memory=memory),)
    lines = estimate_lines(found, devices, options.utilisation or 1.0)
    print_lines(*lines, "", *textwrap.wrap(CAVEAT, 110))


def add_train_autoencoder(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg train-autoencoder`."""
    parser.description = "Train only an autoencoder, and write its folder for --autoencoder."
    add_training_options(
        parser, "train-autoencoder", "config/train/mask-autoencoder.yaml", "mask.loop.steps"
    )
    parser.set_defaults(run=functools.partial(run_training, _autoencoder_task))


def _autoencoder_task(_: argparse.Namespace) -> Task:
    from camseg_core.training.recipes import AutoencoderRecipe, run_autoencoder

    return AutoencoderRecipe, run_autoencoder
