"""Distillation from a configuration file: to few steps, or to a light mask decoder."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import scores
from camseg_core.groups import missing_classes
from camseg_core.labels import match_by_name
from camseg_core.model.camseg import CamSeg, stored_type
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import ABOUT_NOTHING, About, History, how_it_was_made
from camseg_core.training.distributed import init_processes
from camseg_core.training.finish import finish, train_in
from camseg_core.training.joined import Data, check_data, labels_of
from camseg_core.training.light_decoder import (
    DecoderComparison,
    LightDecoderTraining,
    train_light_decoder,
    with_light_decoder,
)
from camseg_core.training.milestones import warn_of_unreached
from camseg_core.training.objectives import TaskLoss
from camseg_core.training.output import check_out, result_folder
from camseg_core.training.run import TrainingData, check_batch, keep_config, keep_data
from camseg_core.training.settings import LoopConfig
from camseg_core.training.start import check_start, keep_start, require_mask_autoencoder
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining

logger = logging.getLogger(__name__)


def _distillation() -> TransformerTraining:
    """Return the default training: few steps at a low rate, on crops near their original scale.

    A thousand steps at a higher rate overfitted the 367 frames of CamVid.
    """
    return TransformerTraining(
        loop=LoopConfig(steps=300, lr=2e-4, ema_decay=0.99, validate_every=100),
        batch=4,
        crop=(320, 448),
        crop_area=(0.35, 1.0),
        task=TaskLoss(
            own_share=0.5,
            late_own_share=0.5,
            late_from=0,
            decoder_joins=0,
            balanced_until=0,
            chains=(2, 4),
        ),
    )


@dataclass(frozen=True)
class DistillationRecipe:
    """A configuration of `camseg distill`: end-to-end fine-tuning of a trained model for few steps.

    The teacher is the label, not the model in many steps: the estimates after one step, and after
    later calls of the short `chains`, are decoded and scored by the task loss. The result can be
    better than many steps, which consistency distillation (arXiv 2303.01469) can only match, and
    no second model is needed. arXiv 2409.11355 found the same for depth and normals.
    """

    data: Data = "camvid"
    training: TransformerTraining = field(default_factory=_distillation)

    def __post_init__(self) -> None:
        check_data(self.data)


@dataclass(frozen=True)
class LightDecoderRecipe:
    """A configuration of `camseg distill-decoder`."""

    data: Data = "camvid"
    decoder: LightDecoderTraining = field(default_factory=LightDecoderTraining)

    def __post_init__(self) -> None:
        check_data(self.data)


def run_distillation(
    recipe: DistillationRecipe,
    start: Path,
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
    about: About = ABOUT_NOTHING,
    export: bool = True,
) -> None:
    """Distil the model of the checkpoint folder `start` to few steps, and write it to `out`.

    The folder `out` is as `recipes.run` writes it, with the same `about` and `export`. The same
    `run` resumes.

    Raises:
        ConfigError: the configuration cannot be used, does not fit the model or the data set, or
            differs from the one with which `run` was started; or `out` holds another model.
        DataError: the data cannot be used; the message names the file.
        ModelError: the checkpoint cannot be read.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    check_start(start, out)
    check_out(out, run)
    with init_processes(device, workers) as processes:
        model = CamSeg.from_pretrained(start)
        require_mask_autoencoder(model, "distilled")
        recipe.training.check(model.config)
        check_batch(recipe.training, processes)
        _check_classes(model, start, recipe.data, data)
        found = TrainingData.load(recipe.data, data, model.labels)
        keep_config(recipe, run, processes)
        keep_data(found, run, processes)
        keep_start(start, run, processes)
        task = model.config.mask_autoencoder is not None
        warn_of_unreached(recipe.training, "training", len(found.train), task)
        before = how_it_was_made(start)
        began = f"`{model.config.name}`, fine-tuned in "
        model.config = replace(model.config, name=about.name_for(run))
        trained = train_in(run, recipe.training, model, found, processes)
        if processes.is_main_process:
            history = History(about, recipe, recipe.training, processes, began, before)
            finish(trained, found, run, out, history, export)


def run_light_decoder(
    recipe: LightDecoderRecipe,
    start: Path,
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Train a light decoder for the model in `start`; write both, and `val.json`, to `out`.

    The model's other weights and their dtype stay unchanged. The same `run` resumes.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one with which
            `run` was started; the model needs no light decoder; or `out` holds another model.
        DataError: the data cannot be used; the message names the file.
        ModelError: the checkpoint cannot be read, or the decoder's sizes do not fit it.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    check_start(start, out)
    check_out(out, run)
    with init_processes(device, workers) as processes:
        torch.manual_seed(recipe.decoder.loop.seed)
        model = with_light_decoder(CamSeg.from_pretrained(start), recipe.decoder.model)
        stored = stored_type(start)
        check_batch(recipe.decoder, processes)
        found = TrainingData.load(recipe.data, data, model.labels)
        train = found.train
        missing, _ = missing_classes(train.pixel_counts(), model.labels, train.groups)
        if missing and processes.is_main_process:
            logger.warning(
                "no frame of train shows %s: the light decoder does not learn these classes",
                ", ".join(missing),
            )
        keep_config(recipe, run, processes)
        keep_data(found, run, processes)
        keep_start(start, run, processes)
        warn_of_unreached(recipe.decoder, "decoder", len(train))
        comparison = DecoderComparison(model, found.val)
        place = Run(run, default_callbacks(run, "light decoder"), processes)
        trained = train_light_decoder(
            recipe.decoder, model, found.train, place, comparison.validation
        )
        if processes.is_main_process:
            assert trained.light_decoder is not None
            compared = comparison.scores(trained.light_decoder)
            by_index = tuple(replace(label, id=index) for index, label in enumerate(model.labels))
            result: dict[str, Any] = {
                "agreement": round(compared.agreement, 4),
                "light": scores(compared.light, by_index),
                "exact": scores(compared.exact, by_index),
            }
            with result_folder(out, run) as folder:
                trained.cpu().save_pretrained(folder, stored)
                text = json.dumps(result, indent=1) + "\n"
                (folder / "val.json").write_text(text, encoding="utf-8")
            logger.info(
                "wrote %s; masks of val: %.2f %% of the pixels as from the exact decoder, "
                "mIoU %.4f (exact decoder: %.4f)",
                out,
                100 * compared.agreement,
                compared.light.labelled_mean_iou(),
                compared.exact.labelled_mean_iou(),
            )


def _check_classes(model: CamSeg, start: Path, data: Data, root: Path) -> None:
    """Check that the model and the data have the same classes, in any order.

    Raises:
        ConfigError: one of them lacks a class of the other; the message names it.
    """
    labels = labels_of(data, root)
    for name, wanted, available in (
        (str(root), model.labels, labels),
        (str(start), labels, model.labels),
    ):
        try:
            match_by_name(wanted, available)
        except ConfigError as error:
            raise ConfigError(
                f"{start} and {root} must have the same classes, but {name} has {error}; tune the "
                "model to other classes first, with camseg train --from"
            ) from error
