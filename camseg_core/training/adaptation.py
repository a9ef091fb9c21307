"""Adaptation to images without labels: `camseg adapt`. Experimental: see docs/results.md."""

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camseg_core.data import Samples, SamplesOf
from camseg_core.data.frame_source import Unlabelled
from camseg_core.data.label_table import LabelTable
from camseg_core.data.random_changes import Disturb
from camseg_core.data.sets import AUTO, LabelledSet
from camseg_core.errors import ConfigError, DataError
from camseg_core.long_runs import atomic_write, new_folder, require_new
from camseg_core.model.camseg import CamSeg
from camseg_core.training.adaptation_result import Adapted, Images
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import ABOUT_NOTHING, About, History, how_it_was_made
from camseg_core.training.distributed import Processes, init_processes
from camseg_core.training.estimate import seconds_per_step, timed_loop
from camseg_core.training.finish import compare_with, finish
from camseg_core.training.frames import Frames, Part
from camseg_core.training.joined import Data, JoinedFrames, OpenedSet, check_data
from camseg_core.training.mean_teacher import MeanTeacher, Teaching
from camseg_core.training.milestones import warn_of_unreached
from camseg_core.training.objectives import TaskLoss
from camseg_core.training.run import TrainingData, check_batch, keep_config, keep_data
from camseg_core.training.settings import LoopConfig, check_setting
from camseg_core.training.start import (
    ClassChanges,
    check_start,
    keep_start,
    require_mask_autoencoder,
)
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer
from camseg_core.training.validation import validation

logger = logging.getLogger(__name__)

_UNLABELLED = "images without labels"
"""Name of the images among a run's sets; no configured set can have a name with spaces."""

_LEAST_IMAGES = 8


def _adapting() -> TransformerTraining:
    """Return few steps at a low, constant rate, with a slow average: the teacher."""
    return TransformerTraining(
        loop=LoopConfig(
            steps=600,
            lr=1e-4,
            schedule="constant",
            ema_decay=0.99,
            save_every=50,
            validate_every=50,
        ),
        batch=6,
        crop_area=(0.25, 1.0),
        disturb=Disturb(share=0.5),
        task=TaskLoss(
            own_share=0.5, late_own_share=0.5, late_from=0, decoder_joins=0, balanced_until=0
        ),
    )


@dataclass(frozen=True)
class AdaptationRecipe:
    """A configuration of `camseg adapt`.

    Attributes:
        data: labelled frames like those that the model was trained on: `val` guards the model, and
            `train` is mixed into the samples.
        labelled_share: share of the samples from that `train`; 0: only images without labels.
        teaching: how the averaged model labels the images, and when it stops.
        training: of the whole model except the mask encoder.

    Raises:
        ConfigError: a value is out of range.
    """

    data: Data = AUTO
    labelled_share: float = 0.5
    teaching: Teaching = field(default_factory=Teaching)
    training: TransformerTraining = field(default_factory=_adapting)

    def __post_init__(self) -> None:
        share = self.labelled_share
        check_setting("labelled_share", share, 0 <= share < 1, "at least 0 and below 1")
        augment = self.training.augment
        check_setting("training.augment", augment, augment == "crop", "crop")
        check_data(self.data)


def run_adaptation(
    recipe: AdaptationRecipe,
    start: Path,
    images: Callable[[], Images],
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
    about: About = ABOUT_NOTHING,
    export: bool = True,
) -> dict[str, Any]:
    """Adapt the model of the checkpoint folder `start` to `images`, and write it to `out`.

    `images` is called once all other inputs are checked. What will happen, and how long it takes,
    is logged first. Both models are scored on `val` of the labelled `data`, see `run`/comparison;
    `out` appears when it is complete. The same `run` resumes. Returns what was measured, as in
    `run`/result.json.

    Raises:
        ConfigError: the configuration cannot be used, does not fit the model or the data, or the
            run was started with another configuration, model or data; or `out` is not new.
        DataError: the data cannot be used, or there are too few images.
        ModelError: the checkpoint cannot be read.
        NotAdapted: the agreement did not rise, or the result lost more on `val` than allowed.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    check_start(start, out)
    require_new(out, "--out")
    with init_processes(device, workers) as processes:
        model = _startable(start, processes)
        recipe.training.check(model.config)
        check_batch(recipe.training, processes)
        labelled = TrainingData.load(recipe.data, data, model.labels)
        keep_config(recipe, run, processes)
        keep_start(start, run, processes)
        given = images()
        learnt, held_out = _split(given, recipe.teaching.held_out)
        found, first = _with_unlabelled(labelled, learnt, recipe.labelled_share)
        keep_data(found, run, processes)
        before, old_name = how_it_was_made(start), model.config.name
        place = run / "transformer"
        teacher = MeanTeacher(
            recipe.teaching,
            Frames.load(held_out, model.labels),
            first,
            recipe.training.disturb.changes(model.config.noise_filter),
            validation(recipe.training, found.val),
            place,
            recipe.training.loop.seed,
        )
        _log_start(recipe, old_name, given, found, len(held_out))
        warn_of_unreached(recipe.training, "training", len(found.train), with_task=True)
        if not (teacher.measured and (place / "state.safetensors").is_file()):
            _log_time(recipe, model, found, teacher, processes)
        model.config = replace(model.config, name=about.name_for(run))
        callbacks = (*default_callbacks(place, "adaptation"), teacher)
        train_transformer(
            recipe.training,
            model,
            found.train,
            Run(place, callbacks, processes),
            teacher.validate,
            teacher,
        )
        share = recipe.labelled_share
        adapted = Adapted.of(given, len(learnt), len(held_out), share, teacher, old_name)
        teacher.load_best(model)
        logger.info("%s", adapted.summary())
        training = replace(
            recipe.training,
            loop=replace(recipe.training.loop, steps=adapted.best.step, epochs=None),
        )
        began = f"`{old_name}`, adapted without labels (experimental) in "
        history = History(about, recipe, training, processes, began, before, adapted.paragraph())
        with new_folder(out, "--out") as partial:
            finish(model, found, run, partial, history, export, shown=out, with_offsets=False)
            changes = ClassChanges.of(model.labels, LabelTable.of(model.labels))
            scored = compare_with(start, partial, changes, found, run)
            result = adapted.result(*scored)
            with atomic_write(run / "result.json") as path:
                text = json.dumps(result, indent=1, allow_nan=False) + "\n"
                path.write_text(text, encoding="utf-8")
            adapted.check(*scored, recipe.teaching.max_miou_drop, run)
    logger.info("wrote %s", out)
    return result


def _startable(start: Path, processes: Processes) -> CamSeg:
    if processes.world_size > 1:
        raise ConfigError(
            f"camseg adapt runs in one process, got {processes.world_size}: start it without "
            "torchrun"
        )
    model = CamSeg.from_pretrained(start)
    require_mask_autoencoder(model, "adapted")
    return model


def _split(images: Images, most: int) -> tuple[Samples, Samples]:
    """Return the images to learn from, and the held-out ones to watch, evenly spread."""
    total = len(images.samples)
    if total < _LEAST_IMAGES:
        why = f"; {images.left_out[0]}" if images.left_out else ""
        raise DataError(
            f"there must be at least {_LEAST_IMAGES} images to adapt to, got {total} of "
            f"{images.title}{why}"
        )
    count = min(most, total // 4)
    held_out = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    learnt = sorted({*range(total)} - {*held_out})
    plain = Unlabelled(images.samples)
    return SamplesOf(plain, learnt), SamplesOf(plain, held_out)


def _with_unlabelled(data: TrainingData, learnt: Samples, share: float) -> tuple[TrainingData, int]:
    """Return the data with the images among its `train`, and the number of the first of them.

    The labelled frames get `share` of the samples; with 0 they are left out.
    """
    groups = data.train.groups
    title = LabelledSet(learnt, (), "images", "to adapt to", "all")
    frames = Frames.load(learnt, data.labels, groups)
    if share == 0:
        only = (OpenedSet(_UNLABELLED, title),)
        return replace(data, train_sets=only, train=frames), 0
    total = sum(each.weight for each in data.train_sets)
    sets = [each._replace(weight=each.weight / total * share) for each in data.train_sets]
    parts = [
        Part(each.name, part.frames, each.weight)
        for each, part in zip(sets, data.train.parts(), strict=True)
    ]
    joined = JoinedFrames([*parts, Part(_UNLABELLED, frames, 1 - share)])
    sets.append(OpenedSet(_UNLABELLED, title, 1 - share))
    return replace(data, train_sets=tuple(sets), train=joined), len(joined) - len(frames)


def _log_start(
    recipe: AdaptationRecipe, name: str, images: Images, data: TrainingData, held_out: int
) -> None:
    share, learnt = recipe.labelled_share, len(data.train_sets[-1].found.samples)
    logger.warning(
        "experimental: where it was measured, the same number of steps on the labelled frames "
        "alone gained more; compare the models on your own labelled frames before you use the "
        "result"
    )
    logger.info(
        "%s learns from %d images of %s without labels; %d more are held out and decide when it "
        "stops",
        name,
        learnt,
        images.title,
        held_out,
    )
    logger.info(
        "labelled frames: %d of train, %.0f %% of the samples; %d of val, on which the result may "
        "lose at most %g of mean IoU",
        len(data.train) - learnt,
        100 * share,
        len(data.val),
        recipe.teaching.max_miou_drop,
    )
    for line in images.left_out:
        logger.warning("left out: %s", line)


def _log_time(
    recipe: AdaptationRecipe,
    model: CamSeg,
    data: TrainingData,
    teacher: MeanTeacher,
    processes: Processes,
) -> None:
    """Measure the start model, time a few steps on a copy, and log how long the run will take."""
    logger.info("measuring the model before it is adapted")
    began = time.monotonic()
    model.to(processes.device)
    teacher.start(model)
    validating = time.monotonic() - began
    training = recipe.training
    short = replace(training, loop=timed_loop(training.loop))
    timed = copy.copy(teacher)
    each = seconds_per_step(
        lambda place: train_transformer(
            short,
            copy.deepcopy(model),
            data.train,
            replace(place, callbacks=(*place.callbacks, timed)),
            teacher=timed,
        ),
        processes,
    )
    loop = training.loop.in_steps(len(data.train), training.batch)
    validations = -(-loop.steps // loop.validate_every)
    logger.info(
        "at most %.1f min: %d steps at %.2f s and %d validations at %.1f s, measured now, fewer if "
        "the agreement stops rising; then both models are scored on %d frames",
        (loop.steps * each + validations * validating) / 60,
        loop.steps,
        each,
        validations,
        validating,
        len(data.val),
    )
