"""`camseg distill` (fewer denoising steps) and `camseg distill-decoder` (a light mask decoder)."""

import argparse
from pathlib import Path

from camseg_core.cli.train import add_training_options, training_packages, training_run
from camseg_core.weights import DEFAULT_MODEL, bundled_models, checkpoint_folder


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg distill`."""
    parser.description = (
        "Tune a trained model end to end for one, two or four denoising steps, and write its\n"
        "checkpoint folder as camseg train does. The labels are the teacher: the estimates of one\n"
        "step and of short chains of steps are decoded and compared with them."
    )
    add_training_options(parser, "distill", "config/train/distill.yaml", "training.loop.steps")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a checkpoint folder or one of {', '.join(bundled_models())} (default: %(default)s)",
    )
    parser.set_defaults(run=_distill)


def _distill(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.reader import load_yaml
        from camseg_core.training.distill import DistillationRecipe, run_distillation
    recipe = load_yaml(options.config, DistillationRecipe, options.set)
    with training_packages(), training_run(options):
        run_distillation(
            recipe,
            checkpoint_folder(options.model),
            options.data,
            options.run_folder,
            options.out,
            options.device,
            options.workers,
        )


def add_decoder(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg distill-decoder`."""
    parser.description = (
        "Train a light decoder, latents straight to classes, for a model of the published layout,\n"
        "which decodes masks as pictures. The exact decoder is the teacher. Write the model's\n"
        "checkpoint folder with it, the other weights unchanged, and val.json: how well the two\n"
        "decoders agree on the validation masks."
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
    parser.set_defaults(run=_distill_decoder)


def _distill_decoder(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.reader import load_yaml
        from camseg_core.training.distill import LightDecoderRecipe, run_light_decoder
    recipe = load_yaml(options.config, LightDecoderRecipe, options.set)
    with training_packages(), training_run(options):
        run_light_decoder(
            recipe,
            options.model,
            options.data,
            options.run_folder,
            options.out,
            options.device,
            options.workers,
        )
