"""Trains the models of the experiments: each head from the same recipe, on the same samples."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import plain_head
import torch
from experiment_plan import Model, Plan, name_of
from plain_head import PlainHead, PlainSegmenter

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import ConfigError
from camseg_core.evaluation.robustness import Contender
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.callbacks import Display
from camseg_core.training.distributed import Processes
from camseg_core.training.joined import labels_of, located
from camseg_core.training.recipes import Recipe, model_config, run, with_classes
from camseg_core.training.run import TrainingData, keep_config
from camseg_core.training.trainer import Run


class Place(NamedTuple):
    """Folders of data and working files, the recipe, and processes that prepare samples."""

    data: Path
    run: Path
    recipe: Path
    workers: int = 0

    def load(self) -> Recipe:
        """Read the recipe."""
        recipe = load_yaml(self.recipe, Recipe)
        return replace(recipe, data=located(recipe.data, self.recipe.parent))


def check(plan: Plan, place: Place) -> None:
    """Check that the plan's sets are those of the recipe, and that all of them can be opened.

    Raises:
        ConfigError: the plan names another set.
        DataError: a set is missing or cannot be used.
    """
    recipe = place.load()
    labels_of(recipe.data, place.data)
    known = [] if isinstance(recipe.data, str) else [each.name for each in recipe.data]
    for name in plan.models.left_out:
        if name not in known:
            raise ConfigError(
                f"models.left_out must name sets of {place.recipe.name} ({', '.join(known)}), "
                f"got {name!r}"
            )


def recipe_of(model: Model, seed: int, plan: Plan, place: Place) -> Recipe:
    """Return the recipe of one training: the plan's steps, the seed, the sets, the disturbances.

    Steps at which the loss changes move with the number of steps.
    """
    recipe, steps = place.load(), plan.models.steps
    training, task = recipe.training, recipe.training.task
    scale = steps / training.loop.steps
    moved = {
        name: round(scale * getattr(task, name))
        for name in ("decoder_joins", "late_from", "balanced_until")
    }
    data = recipe.data
    if model.left_out is not None and not isinstance(data, str):
        data = tuple(
            replace(each, weight=0.0) if each.name == model.left_out else each for each in data
        )
    own = recipe.autoencoder
    return replace(
        recipe,
        data=data,
        autoencoder=replace(
            own, loop=replace(own.loop, steps=plan.models.autoencoder_steps, seed=seed)
        ),
        training=replace(
            training,
            loop=replace(training.loop, steps=steps, seed=seed, validate_every=steps),
            task=replace(task, **moved),
            disturb=training.disturb if model.disturbed else replace(training.disturb, share=0.0),
        ),
    )


def trained(model: Model, seed: int, plan: Plan, place: Place) -> Callable[[Sampling], Contender]:
    """Return the trained model with a sampling, which the pixel head does not use.

    It is trained first unless its folder in `place.run` has its weights.

    Raises:
        ConfigError: that folder was started with another configuration.
    """
    recipe = recipe_of(model, seed, plan, place)
    folder = place.run / f"train-{name_of(model)}-s{seed}"
    labels = labels_of(recipe.data, place.data)
    config = with_classes(model_config(recipe.model), labels)
    keep_config(recipe, folder, Processes())
    if model.head == "latents":
        out = folder / "model"
        if not (out / "MODEL_CARD.md").is_file():
            run(recipe, place.data, folder, out, workers=place.workers, export=False)
        network = CamSeg.from_pretrained(out)
        return lambda sampling: Segmenter(
            network.config, network.labels, TorchEngine(network), sampling
        )
    weights = folder / "plain-head.safetensors"
    if not weights.is_file():
        data = TrainingData.load(recipe.data, place.data)
        torch.manual_seed(seed)
        head = PlainHead(config)
        head.image_encoder.load_imagenet()
        shown = (Display(folder.name, every=50),)
        state = Run(folder / "head", shown, Processes(workers=place.workers))
        plain_head.trained(head, recipe.training, data.train, state).save(weights)
    segmenter = PlainSegmenter(config, labels, weights)
    return lambda sampling: segmenter
