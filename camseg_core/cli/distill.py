"""`camseg distill`: a trained model to one that needs fewer denoising steps."""

import argparse

from camseg_core.cli.train import add_training_options, training_packages, training_run
from camseg_core.weights import DEFAULT_MODEL, bundled_models, checkpoint_folder


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Tune a trained model end to end, so that one, two or four denoising steps give what many gave or better, and\n"
        "write its checkpoint folder as camseg train does. The labels are the teacher: what one step and short chains of\n"
        "steps give is decoded and judged by the task loss."
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
        from camseg_core.config.yaml_file import load_yaml
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
