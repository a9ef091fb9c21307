"""`camseg adapt`: adapts a trained model to images without labels."""

import argparse
import functools
import json
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from camseg_core.cli.options import add_model_option, at_least
from camseg_core.cli.parser import OTHER_COMMANDS
from camseg_core.cli.train import (
    Task,
    add_card_options,
    add_training_options,
    described,
    run_training,
)
from camseg_core.data import spread_numbers
from camseg_core.data.folders import real_path
from camseg_core.data.frame_source import Unlabelled, find_images
from camseg_core.data.image_files import read_rgb
from camseg_core.errors import ConfigError, DataError
from camseg_core.long_runs import shown_progress
from camseg_core.weights import checkpoint_folder

_EPILOG = """\
Experimental: where it was measured, the same number of steps on the labelled frames alone gained
more (docs/results.md).

The same command with the same --run resumes. Ctrl-C, SIGTERM or a file named "stop" beside the
run's state.safetensors ends it after the current step and saves its state; a second Ctrl-C ends
it at once.
"""


def add_adapt(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg adapt`."""
    parser.description = (
        "Experimental. Adapt a trained model to images without labels, such as those of a drive.\n"
        "The running average of its weights labels each image where it is confident; the model\n"
        "learns these labels on a disturbed copy. Labelled frames (--data) like those that it was\n"
        "trained on are mixed in, and no checkpoint is written if the result loses too much on\n"
        "their val split."
    )
    add_training_options(
        parser, "adapt", "config/train/adapt.yaml (the default)", "training.loop.steps", False
    )
    parser.epilog = _EPILOG
    add_model_option(parser)
    add_card_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    group = parser.add_argument_group("images without labels", "--bag or --images")
    group.add_argument(
        "--bag", nargs="+", type=Path, metavar="BAG", help="bag folders, .mcap or .db3 files"
    )
    group.add_argument("--images", type=Path, metavar="FOLDER", help="a folder of images")
    group.add_argument(
        "--frames",
        type=at_least(1),
        default=400,
        metavar="N",
        help="use at most this many, evenly spread",
    )
    group.add_argument("--topic", help="image topic, if a bag has several")
    group.add_argument(
        "--white-level",
        type=at_least(0),
        metavar="VALUE",
        help="value of white in a bag's 16-bit images, such as 4095 for a 12-bit camera",
    )
    parser.set_defaults(run=functools.partial(_adapt, parser))


def _adapt(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    needed = {"--data": options.data, "--run": options.run_folder, "--out": options.out}
    missing = [option for option, value in needed.items() if value is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if (options.bag is None) == (options.images is None):
        parser.error("name the images with either --bag or --images")
    if options.bag is None and (options.topic or options.white_level):
        parser.error("--topic and --white-level are for --bag")
    for path in options.bag or [options.images]:
        if not path.exists():
            raise DataError(f"{path} does not exist; name a bag or a folder of images")
    if options.bag is not None and not entry_points(group=OTHER_COMMANDS, name="bag"):
        raise ConfigError(
            "--bag needs the command camseg bag, which is not installed: install the whole project "
            "with the extra [bag], or name a folder with --images"
        )
    try:
        run_training(_task, options)
    finally:
        with suppress(OSError):  # not empty: the checkpoint is there
            options.out.rmdir()


def _task(options: argparse.Namespace) -> Task:
    from camseg_core.training.adaptation import AdaptationRecipe, run_adaptation

    start, more = checkpoint_folder(options.model), described(options)

    def adapt(recipe: AdaptationRecipe, **places: Any) -> None:
        images = functools.partial(_images, options)
        result = run_adaptation(recipe, start, images, **places, **more)
        if options.json:
            result["out"] = str(options.out)
            sys.stdout.write(json.dumps(result, indent=1, allow_nan=False) + "\n")

    return AdaptationRecipe, adapt


def _images(options: argparse.Namespace) -> Any:
    """Return the readable images, evenly spread; those of bags are written to RUN/images."""
    from camseg_core.training.adaptation_result import Images

    if options.bag is None:
        folder, left_out = options.images, list[str]()
        title = f"the folder {real_path(folder).name}"
    else:
        folder = options.run_folder / "images"
        left_out = _extracted(options, folder)
        names = (real_path(bag).name for bag in options.bag)
        title = f"the bag {' and '.join(names)}"
    files = find_images(folder)
    chosen = [files[i] for i in spread_numbers(len(files), options.frames)]
    kept = []
    for path in shown_progress(chosen, len(chosen), "read images"):
        try:
            read_rgb(path)
            kept.append(path)
        except DataError as error:
            left_out.append(str(error))
    return Images(Unlabelled(kept), title, tuple(left_out))


def _extracted(options: argparse.Namespace, folder: Path) -> list[str]:
    """Write the bags' images to `folder` with `camseg bag images`; return what it left out.

    The command belongs to `camseg_ros`, which this package must not import.

    Raises:
        ConfigError: the run was started with other bags or settings.
    """
    if not folder.exists():
        command = ["bag", "images", *map(str, options.bag), "--out", str(folder)]
        command += ["--frames", str(options.frames)]
        command += ["--topic", options.topic] if options.topic else []
        command += ["--white-level", str(options.white_level)] if options.white_level else []
        program = [sys.executable, "-m", "camseg_core.cli", *command]
        done = subprocess.run(program, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:  # the command has printed the reason
            sys.exit(done.returncode)
    found = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    before = {
        # by name, as they may have moved; the run's record compares the images
        "--bag": sorted(real_path(Path(each)).name for each in found["bags"]),
        "--frames": found["asked"],
        "--topic": found["topic"],
        "--white-level": found["white_level"],
    }
    now = {
        "--bag": sorted(real_path(each).name for each in options.bag),
        "--frames": options.frames,
        "--topic": options.topic,
        "--white-level": options.white_level or 0,
    }
    differ = [f"{name} ({before[name]})" for name in now if now[name] != before[name]]
    if differ:
        raise ConfigError(
            f"{options.run_folder} must go on with the images that it was started with: restore "
            f"{' and '.join(differ)}, or choose another --run"
        )
    return list(found["left_out"])
