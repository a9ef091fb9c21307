"""The command `camseg calibrate`."""

import argparse
import logging
from dataclasses import replace

from camseg_core.cli.console import print_lines
from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    check_frames,
    data_of,
    packages_for,
    segmenter_of,
)
from camseg_core.cli.scoring import shared_of
from camseg_core.config.model import load_config, save_config
from camseg_core.data import SamplesOf, spread_numbers
from camseg_core.errors import ConfigError
from camseg_core.long_runs import atomic_write, writable_file
from camseg_core.weights import checkpoint_folder, is_bundled

logger = logging.getLogger(__name__)


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg calibrate`."""
    parser.description = (
        "Calibrate a model's confidence: find the logit_scale with which its confidence best "
        "predicts how often it is right, and write it into config.json of the checkpoint folder, "
        "which must not be that of a bundled model. Masks do not change. camseg train and camseg "
        "distill do this at their end."
    )
    add_data_options(parser)
    parser.add_argument(
        "--frames", type=at_least(1), help="use this many frames, evenly spread (default: all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the result, write nothing")
    add_model_options(parser)
    parser.set_defaults(run=_calibrate, kept="the model is unchanged")


def _calibrate(options: argparse.Namespace) -> None:
    with packages_for("calibration", "evaluate", "rich.progress"):
        from camseg_core.evaluation.calibration import PASSES, fit_logit_scale
        from camseg_core.evaluation.scorer import scored_facts
        from camseg_core.long_runs import shown_progress
    if not options.dry_run:
        folder = checkpoint_folder(options.model)
        if is_bundled(folder):
            raise ConfigError(
                f"--model must be a folder of your own, as its config.json is changed, got the "
                f"bundled {folder.name}: copy {folder} and name the copy, or add --dry-run"
            )
        path = folder / "config.json"
        writable_file(path, "the model's configuration (--dry-run writes nothing)")
    data = data_of(options)
    shared = shared_of(data, [options.model], options.groups)
    scored = shared.scored[0]
    check_frames(options, data, scored)
    samples = SamplesOf(data.samples, spread_numbers(len(data.samples), options.frames))
    segmenter = segmenter_of(options)
    fit = fit_logit_scale(
        segmenter,
        samples,
        scored,
        lambda frames: shown_progress(frames, len(samples) * PASSES, "calibrate"),
    )
    errors = f"expected calibration error {fit.error:.4f}, against {fit.error_at_one:.4f} at 1"
    print_lines(f"logit_scale {fit.logit_scale}: {errors} ({len(samples)} frames)")
    facts = scored_facts(fit.frames, len(samples))
    print_lines(*(f"{name}: {text}" for name, text in facts), *shared.lines)
    if fit.caution:
        logger.warning("%s", fit.caution)
    if not options.dry_run:
        try:
            with atomic_write(path) as temporary:
                save_config(replace(load_config(path), logit_scale=fit.logit_scale), temporary)
        except OSError as error:
            raise ConfigError(
                f"cannot write {path}: {error.strerror}; --dry-run only prints the result"
            ) from error
        print_lines(f"written to {path}")
