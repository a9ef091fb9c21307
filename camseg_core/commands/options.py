"""What commands share: types of options, and the options that choose a model."""

import argparse
from collections.abc import Callable

from camseg_core.model.samplers import SAMPLERS
from camseg_core.runtime.engine_onnx import PROVIDERS
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import DEFAULT_MODEL, bundled_models


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` up."""

    def whole(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return whole


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `segmenter_of` reads: which model, on what, and how it samples."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"a checkpoint folder or one of {', '.join(bundled_models())} (default: %(default)s)"
    )
    model.add_argument("--provider", choices=list(PROVIDERS), default="cpu", help="what computes (default: %(default)s)")
    model.add_argument("--threads", type=at_least(0), default=0, help="CPU threads; 0 = all cores (default: %(default)s)")
    model.add_argument("--sampler", choices=list(SAMPLERS), default="one_step", help="(default: %(default)s)")
    model.add_argument(
        "--steps", type=at_least(1), default=1, help="denoising steps, for samplers other than one_step (default: %(default)s)"
    )
    model.add_argument("--seed", type=at_least(0), default=0, help="of the noise; same seed, same mask (default: %(default)s)")


def segmenter_of(options: argparse.Namespace) -> Segmenter:
    """The model that the options of `add_model_options` ask for.

    Raises:
        ModelError: the folder is missing, incomplete or damaged.
        ConfigError: the provider is not installed, or the number of steps does not fit the model's schedule.
    """
    return Segmenter.from_pretrained(
        options.model, provider=options.provider, threads=options.threads, sampler=options.sampler, steps=options.steps, seed=options.seed
    )
