"""`camseg calibrate`: fit a model's confidence to its accuracy."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from camseg_core.atomic_write import atomic_write
from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    data_of,
    packages_for,
    segmenter_of,
)
from camseg_core.config.model import load_config, save_config
from camseg_core.data.sample import Sample, evenly_spread
from camseg_core.errors import ConfigError
from camseg_core.weights import checkpoint_folder


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Calibrate a model's confidence: find the logit_scale with which its confidence best "
        "predicts how often it is right, and write it into config.json of the checkpoint folder. "
        "Masks do not change. camseg train and camseg distill do this at their end."
    )
    add_data_options(parser)
    parser.add_argument("--frames", type=at_least(1), help="use this many frames, evenly spread")
    parser.add_argument("--dry-run", action="store_true", help="print the result, write nothing")
    add_model_options(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    with packages_for("calibration", "evaluate"):
        from camseg_core.evaluation.calibration import PASSES, fit_logit_scale
        from camseg_core.progress import shown_progress
    data = data_of(options)
    samples = evenly_spread(data.samples, options.frames)

    def progress(frames: Iterable[Sample]) -> Iterator[Sample]:
        return shown_progress(frames, len(samples) * PASSES, "calibrate")

    fit = fit_logit_scale(segmenter_of(options), samples, data.labels, progress)
    errors = f"expected calibration error {fit.error:.4f}, against {fit.error_at_one:.4f} at 1"
    sys.stdout.write(f"logit_scale {fit.logit_scale}: {errors} ({len(samples)} frames)\n")
    if not options.dry_run:
        path = checkpoint_folder(options.model) / "config.json"
        try:
            with atomic_write(path) as temporary:
                save_config(replace(load_config(path), logit_scale=fit.logit_scale), temporary)
        except OSError as error:
            raise ConfigError(
                f"cannot write {path}: {error.strerror}; --dry-run only prints the result"
            ) from error
        sys.stdout.write(f"written to {path}\n")
