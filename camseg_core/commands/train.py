"""`camseg train`: a labelled data set to a checkpoint folder."""

import argparse
from pathlib import Path

from camseg_core.commands.training import add_training_options, training_packages, training_run


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Train a model, and write its checkpoint folder: weights, ONNX graphs, model card, and its scores on the\n"
        "validation frames (weights alone for the published layout). Without --autoencoder, a model with a mask\n"
        "autoencoder begins by training one."
    )
    add_training_options(parser, "train", "config/train/camseg-lite.yaml", "training.loop.steps")
    parser.add_argument("--autoencoder", type=Path, metavar="FOLDER", help="a trained autoencoder, as camseg train-autoencoder writes it")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config_file import load_yaml
        from camseg_core.training.recipe import Recipe, run
    recipe = load_yaml(options.config, Recipe, options.set)
    with training_packages(), training_run(options):
        run(recipe, options.data, options.run_folder, options.out, options.autoencoder, options.device, options.workers)
