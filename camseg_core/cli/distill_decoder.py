"""`camseg distill-decoder`: a light decoder for a trained model whose masks are pictures."""

import argparse
from pathlib import Path

from camseg_core.cli.train import add_training_options, training_packages, training_run


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Train a light decoder for a model of the published layout, which decodes its masks as pictures: latents straight to\n"
        "classes, taught by the exact decoder. Write the model's checkpoint folder with it, the other weights as they were, and\n"
        "how well the two decoders agree on the validation masks (val.json)."
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
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.yaml_file import load_yaml
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
