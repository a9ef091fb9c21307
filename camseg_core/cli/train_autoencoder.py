"""`camseg train-autoencoder`: label masks to an autoencoder that `camseg train` can start from."""

import argparse

from camseg_core.cli.train import add_training_options, training_packages, training_run


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Train an autoencoder alone, and write its folder, which camseg train takes as --autoencoder."
    add_training_options(
        parser, "train-autoencoder", "config/train/mask-autoencoder.yaml", "mask.loop.steps"
    )
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    with training_packages():
        from camseg_core.config.yaml_file import load_yaml
        from camseg_core.training.recipes import AutoencoderRecipe, run_autoencoder
    recipe = load_yaml(options.config, AutoencoderRecipe, options.set)
    with training_packages(), training_run(options):
        run_autoencoder(
            recipe, options.data, options.run_folder, options.out, options.device, options.workers
        )
