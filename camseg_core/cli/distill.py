"""Commands that train a trained model further: distill (fewer steps) and distill-decoder."""

import argparse
import functools
from pathlib import Path

from camseg_core.cli.options import add_model_option
from camseg_core.cli.train import (
    Task,
    add_card_options,
    add_training_options,
    described,
    run_training,
)
from camseg_core.weights import checkpoint_folder


def add_distill(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg distill`."""
    parser.description = (
        "Fine-tune a trained model end to end for one, two or four denoising steps, and write its\n"
        "checkpoint folder as camseg train does. The labels are the teacher: the estimates of one\n"
        "step and of short chains of steps are decoded and compared with them."
    )
    add_training_options(parser, "distill", "config/train/distill.yaml", "training.loop.steps")
    add_model_option(parser)
    add_card_options(parser)
    parser.set_defaults(run=functools.partial(run_training, _distillation_task))


def _distillation_task(options: argparse.Namespace) -> Task:
    from camseg_core.training.distill import DistillationRecipe, run_distillation

    start = checkpoint_folder(options.model)
    return DistillationRecipe, functools.partial(
        run_distillation, start=start, **described(options)
    )


def add_distill_decoder(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg distill-decoder`."""
    parser.description = (
        "Train a light decoder, latents straight to classes, for a model of the published layout,\n"
        "which decodes masks as colour images. The exact decoder is the teacher. Write a\n"
        "checkpoint folder with the light decoder and the other weights unchanged, and val.json:\n"
        "how far the two decoders agree on the validation masks."
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="CHECKPOINT",
        help="the checkpoint folder of the trained model",
    )
    add_training_options(
        parser, "distill-decoder", "config/train/light-decoder.yaml", "decoder.loop.steps"
    )
    parser.set_defaults(run=functools.partial(run_training, _decoder_task))


def _decoder_task(options: argparse.Namespace) -> Task:
    from camseg_core.training.distill import LightDecoderRecipe, run_light_decoder

    return LightDecoderRecipe, functools.partial(run_light_decoder, start=options.model)
