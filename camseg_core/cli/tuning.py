"""Options of `camseg train --from`, and those that replace a configuration's data set."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camseg_core.cli.options import add_dataset_options
from camseg_core.errors import ConfigError
from camseg_core.weights import bundled_models, checkpoint_folder


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name one data set to train on, in place of the configuration's."""
    group = parser.add_argument_group(
        "data set", "ROOT is then this one set, in place of `data:` in the configuration"
    )
    add_dataset_options(group, default=None)


def data_for(options: argparse.Namespace, data: Any, folder: Path) -> Any:
    """Return the entry `data` of a configuration in `folder`, or what the options name instead."""
    from camseg_core.training.joined import SetConfig, located

    if options.dataset is None and options.mapping is None and options.labels is None:
        return located(data, folder)
    kind = options.dataset or "auto"
    if options.mapping is None and options.labels is None:
        return kind
    mapping, labels = (
        None if path is None else os.path.realpath(path)
        for path in (options.mapping, options.labels)
    )
    return (SetConfig("own", kind, mapping=mapping, labels=labels),)


def add_start_option(parser: argparse.ArgumentParser) -> None:
    """Add `--from`."""
    parser.add_argument(
        "--from",
        "--model",
        dest="start",
        metavar="MODEL",
        help="fine-tune this trained model, a checkpoint folder or the name of a bundled model "
        f"({', '.join(bundled_models())}), as config/train/finetune.yaml (the default of "
        "--config) describes",
    )


def finetuning(
    options: argparse.Namespace, described: dict[str, Any]
) -> tuple[type[Any], Callable[..., None]]:
    """Return the configuration of `camseg train --from`, and the function that trains it.

    Raises:
        ConfigError: options do not go together.
        ModelError: there is no such model.
    """
    from camseg_core.training.finetune import FinetuneRecipe, run_finetuning

    if options.autoencoder is not None:
        raise ConfigError("--from brings its own autoencoder: leave --autoencoder out")
    folder = options.config.parent if options.config is not None else Path()
    start = checkpoint_folder(options.start)
    more = {**described, "dry_run": options.dry_run}

    def train(recipe: FinetuneRecipe, **places: Any) -> None:
        run_finetuning(recipe.located(folder), start, **places, **more)

    return FinetuneRecipe, train
