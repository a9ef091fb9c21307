"""What the commands that train share: their options, their log, and what they say when a run is stopped or cannot begin."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from camseg_core.commands.extras import packages_for
from camseg_core.commands.options import at_least
from camseg_core.errors import ConfigError

_EPILOG = """\
Started again with the same --run, it goes on where it was.
Ctrl-C (or SIGTERM, or a file named "stop" beside the run's state.safetensors) ends it after the current step and saves its
state; a second Ctrl-C ends it at once. Watch it with: tensorboard --logdir RUN

Several processes: torchrun --nproc-per-node N -m camseg_core.cli -- {command} ... (the batch is shared by all of them)
"""


def add_training_options(parser: argparse.ArgumentParser, command: str, config: str, entry: str, folders: bool = True) -> None:
    """Add what both commands take; `config` is the file that the project brings along, and `entry` an entry in it for --set.

    Without `folders` it is the command that asks for --data, --run and --out where they are missing.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG.format(command=command)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"what to train and how, such as {config}")
    parser.add_argument(
        "--data", type=Path, required=folders, metavar="ROOT", help="the data set: train/ and val/, each with images/ and labels/"
    )
    parser.add_argument(
        "--run",
        type=Path,
        required=folders,
        dest="run_folder",
        metavar="RUN",
        help="folder for the state, the log and the curves; as runs/NAME",
    )
    parser.add_argument("--out", type=Path, required=folders, metavar="FOLDER", help="where the trained model goes")
    parser.add_argument(
        "--workers",
        type=at_least(0),
        default=0,
        metavar="N",
        help="processes that read and augment frames in the background, for each that trains; 0: between the steps (default: %(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what computes (default: %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE", help=f"change an entry of FILE, as in --set {entry}=100; repeatable"
    )


def training_packages() -> AbstractContextManager[None]:
    """For the imports of what only training needs, see `packages_for`."""
    return packages_for("training", "train")


@contextmanager
def training_run(options: argparse.Namespace) -> Iterator[None]:
    """Logs to stderr and RUN/train.log inside. A run that was stopped on request ends with exit code 130 and one line that says so.

    Raises:
        ConfigError: a folder for the results cannot be written to.
    """
    from camseg_core.training.loop import Stopped

    for option, folder in (("--run", options.run_folder), ("--out", options.out)):  # now, not after hours of training
        _make_writable(option, folder)
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
    """Send the project's log to stderr and into the run's folder; of several processes only the first reports."""
    if os.environ.get("RANK", "0") != "0":
        return []
    handlers: list[logging.Handler] = [_StderrHandler(), logging.FileHandler(folder / "train.log", encoding="utf-8")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger("camseg_core").setLevel(logging.INFO)
    return handlers


class _StderrHandler(logging.Handler):
    """Writes to what is stderr at that moment: while the display is live, that puts lines above its bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)
