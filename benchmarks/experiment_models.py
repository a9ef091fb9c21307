"""Trains the models of the experiments: each head from the same recipe, on the same samples."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import plain_head
import torch
from experiment_plan import Model, Plan, name_of
from job_files import note_commit
from plain_head import PlainHead, PlainSegmenter

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import ConfigError
from camseg_core.evaluation.robustness import SupportsSegment
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.callbacks import Display
from camseg_core.training.distributed import Processes
from camseg_core.training.joined import SetConfig, labels_of, located
from camseg_core.training.recipes import Recipe, model_config, run, with_classes
from camseg_core.training.run import TrainingData, keep_config
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining

Outcome = tuple[dict[str, int], dict[str, Any]]
"""Of a job: how many of what were scored, and the figures."""


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

    def sets(self) -> dict[str, SetConfig]:
        """Return the sets of the recipe by name; a recipe of one set has none."""
        data = self.load().data
        return {} if isinstance(data, str) else {each.name: each for each in data}


def check(plan: Plan, place: Place) -> None:
    """Check that the plan's sets are those of the recipe, and that all of them can be opened.

    Raises:
        ConfigError: the plan names another set.
        DataError: a set is missing or cannot be used.
    """
    labels_of(place.load().data, place.data)
    known = place.sets()
    for part in ("models", "adaptation"):
        for name in getattr(plan, part).left_out:
            if name not in known:
                raise ConfigError(
                    f"{part}.left_out must name sets of {place.recipe.name} ({', '.join(known)}), "
                    f"got {name!r}"
                )


def recipe_of(model: Model, seed: int, plan: Plan, place: Place) -> Recipe:
    """Return the recipe of one training: the plan's steps, the seed, the sets, the disturbances."""
    recipe = place.load()
    training = in_steps(recipe.training, plan.models.steps, seed)
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
            disturb=training.disturb if model.disturbed else replace(training.disturb, share=0.0),
        ),
    )


def in_steps(training: TransformerTraining, steps: int, seed: int) -> TransformerTraining:
    """Return the same in so many steps; those at which the loss changes move with their number."""
    scale, task = steps / training.loop.steps, training.task
    moved = {
        name: round(scale * getattr(task, name))
        for name in ("decoder_joins", "late_from", "balanced_until")
    }
    return replace(
        training,
        loop=replace(training.loop, steps=steps, seed=seed, validate_every=steps),
        rare_until=round(scale * training.rare_until),
        task=replace(task, **moved),
    )


def in_torch(folder: Path, sampling: Sampling = Sampling()) -> Segmenter:  # noqa: B008
    """Load a checkpoint folder to run as it was trained, without its graphs."""
    network = CamSeg.from_pretrained(folder)
    return Segmenter(network.config, network.labels, TorchEngine(network), sampling)


def trained(
    model: Model, seed: int, plan: Plan, place: Place
) -> Callable[[Sampling], SupportsSegment]:
    """Return the trained model with a sampling, which the pixel head does not use.

    It is trained first unless its folder in `place.run` has its weights.

    Raises:
        ConfigError: that folder was started with another configuration.
    """
    recipe = recipe_of(model, seed, plan, place)
    folder = place.run / f"train-{name_of(model)}-s{seed}"
    labels = labels_of(recipe.data, place.data)
    # the network by itself is compared, as in the results that there are
    config = with_classes(model_config(recipe.model), labels)
    config = replace(config, noise_filter=False, max_upscale=1.0)
    keep_config(recipe, folder, Processes())
    if model.head == "latents":
        out = folder / "model"
        if not (out / "MODEL_CARD.md").is_file():
            note_commit(folder)
            run(recipe, place.data, folder, out, workers=place.workers, export=False)
        return partial(in_torch, out)
    weights = folder / "plain-head.safetensors"
    if not weights.is_file():
        note_commit(folder)
        data = TrainingData.load(recipe.data, place.data)
        torch.manual_seed(seed)
        head = PlainHead(config)
        head.image_encoder.load_imagenet()
        shown = (Display(folder.name, every=50),)
        state = Run(folder / "head", shown, Processes(workers=place.workers))
        plain_head.trained(head, recipe.training, data.train, state).save(weights)
    segmenter = PlainSegmenter(config, labels, weights)
    return lambda sampling: segmenter
