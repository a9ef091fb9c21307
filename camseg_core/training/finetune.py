"""Fine-tuning from a configuration file: `camseg train --from MODEL`."""

import copy
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from camseg_core.data.label_table import LabelTable, read_label_table
from camseg_core.data.sets import AUTO
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import ABOUT_NOTHING, About, History, how_it_was_made
from camseg_core.training.codec import load_codec_into, save_codec
from camseg_core.training.distributed import Processes, init_processes
from camseg_core.training.estimate import seconds_per_step, timed_loop
from camseg_core.training.finish import compare_with, finish, train_in
from camseg_core.training.joined import (
    Data,
    SetConfig,
    check_data,
    located,
    open_data,
    table_of,
)
from camseg_core.training.mask_autoencoder import AutoencoderTraining, train_autoencoder
from camseg_core.training.milestones import warn_of_unreached
from camseg_core.training.objectives import TaskLoss
from camseg_core.training.output import check_out
from camseg_core.training.run import TrainingData, check_batch, keep_config, keep_data
from camseg_core.training.settings import LoopConfig, check_setting
from camseg_core.training.start import (
    ClassChanges,
    adapted,
    check_origins,
    check_start,
    keep_start,
)
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer

logger = logging.getLogger(__name__)

OF_THE_START = "start"
"""Value of `classes` that keeps the classes of the start model."""


def _tuning() -> TransformerTraining:
    """Return the default training: few steps at a low rate, as decoder and head are trained."""
    return TransformerTraining(
        loop=LoopConfig(steps=300, lr=3e-4, warmup=30, ema_decay=0.98, validate_every=100),
        batch=6,
        crop_area=(0.25, 1.0),
        task=TaskLoss(
            own_share=0.5, late_own_share=0.5, late_from=0, decoder_joins=0, balanced_until=150
        ),
    )


@dataclass(frozen=True)
class AutoencoderTuning:
    """How the mask autoencoder learns classes that are new or split, see `AutoencoderTraining`."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=150, lr=1e-3, warmup=15, ema_decay=0.95, weight_decay=0.0
        )
    )
    batch: int = 12
    crop: tuple[int, int] = (224, 304)

    def for_model(self, model: CamSeg) -> AutoencoderTraining | None:
        """Return the training of the model's mask autoencoder; None if it has none."""
        if (codec := model.mask_autoencoder) is None:
            return None
        return AutoencoderTraining(codec.config, self.loop, self.batch, self.crop)


@dataclass(frozen=True)
class FinetuneRecipe:
    """A configuration of `camseg train --from MODEL`.

    Attributes:
        data: the kind of the data set, or several sets.
        classes: of the fine-tuned model: the path of a class table, `start` for those of the start
            model, or None for those of `data`.
        replay: other sets that are mixed in against catastrophic forgetting.
        replay_share: their share of the samples.
        autoencoder: trained only if a class is new or split.
        training: of the whole model except the mask encoder.

    Raises:
        ConfigError: a value is out of range.
    """

    data: Data = AUTO
    classes: str | None = None
    replay: tuple[SetConfig, ...] = ()
    replay_share: float = 0.2
    autoencoder: AutoencoderTuning = field(default_factory=AutoencoderTuning)
    training: TransformerTraining = field(default_factory=_tuning)

    def __post_init__(self) -> None:
        inside = 0 < self.replay_share < 1
        check_setting("replay_share", self.replay_share, inside, "above 0 and below 1")
        check_data(self.data)
        check_data(self.sets())

    def sets(self) -> Data:
        """Return the data with the sets to replay, weighted by their share."""
        if not self.replay:
            return self.data
        own = self.data
        if isinstance(own, str):
            own = (SetConfig("own", own),)
        shares = ((own, 1 - self.replay_share), (self.replay, self.replay_share))
        return tuple(
            replace(each, weight=each.weight / max(sum(one.weight for one in sets), 1e-9) * share)
            for sets, share in shares
            for each in sets
        )

    def located(self, folder: Path) -> "FinetuneRecipe":
        """Return the same with files that are relative to `folder` as absolute paths."""
        classes = self.classes
        if classes not in (None, OF_THE_START):
            classes = os.path.realpath(folder / str(classes))
        replay = located(self.replay, folder)
        assert isinstance(replay, tuple)
        return replace(self, classes=classes, replay=replay)

    def table(self, start: CamSeg, root: Path) -> LabelTable:
        """Return the classes of the fine-tuned model.

        Raises:
            ConfigError: the class table cannot be used, or sets have different ones.
            DataError: a split cannot be opened.
        """
        if self.classes == OF_THE_START:
            return LabelTable.of(start.labels)
        if self.classes is not None:
            return read_label_table(Path(self.classes))
        opened = [each for split in ("train", "val") for each in open_data(self.data, root, split)]
        return table_of(self.data, opened)


def run_finetuning(
    recipe: FinetuneRecipe,
    start: Path,
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
    about: About = ABOUT_NOTHING,
    export: bool = True,
    dry_run: bool = False,
) -> None:
    """Fine-tune the model of the checkpoint folder `start` on `data`, and write it to `out`.

    What is kept and new, and how long it takes, is logged first; `dry_run` ends there. The folder
    `out` is as `recipes.run` writes it, with the same `about` and `export`. Both models are then
    scored on `val`, see `run`/comparison. The same `run` resumes.

    Raises:
        ConfigError: the configuration cannot be used, does not fit the model or the data set, or
            the run was started with another configuration, model or data; or `out` holds
            another model.
        DataError: the data cannot be used; the message names the file.
        ModelError: the checkpoint cannot be read.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    check_start(start, out)
    check_out(out, run)
    with init_processes(device, workers) as processes:
        old = CamSeg.from_pretrained(start)
        recipe.training.check(old.config)
        check_batch(recipe.training, processes)
        table = recipe.table(old, data)
        sets = [each.found.vocabulary for each in open_data(recipe.sets(), data, "val")]
        check_origins(table, old.labels, CITYSCAPES, *sets)
        changes = ClassChanges.of(old.labels, table)
        torch.manual_seed(recipe.training.loop.seed)
        model = adapted(old, table)
        model.config = replace(model.config, name=about.name_for(run))
        codec = recipe.autoencoder.for_model(model)
        if codec is not None:
            check_batch(codec, processes)
        found = TrainingData.load(recipe.sets(), data, table=table)
        learns_masks = codec is not None and len(changes.kept) < len(table.labels)
        if processes.is_main_process:
            _log_start(old, model, changes, found, learns_masks)
        frames, task = len(found.train), codec is not None
        warn_of_unreached(recipe.training, "training", frames, task)
        if codec is not None and learns_masks:
            warn_of_unreached(codec, "autoencoder", frames)
        if not dry_run:
            keep_config(recipe, run, processes)
            keep_data(found, run, processes)
            keep_start(start, run, processes)
        if not (run / "transformer" / "state.safetensors").is_file():
            _log_time(recipe, model, found, codec if learns_masks else None, changes, processes)
        if dry_run:
            return
        before = how_it_was_made(start)
        if learns_masks:
            assert codec is not None
            _learn_masks(codec, model, changes, found, run, processes)
        trained = train_in(run, recipe.training, model, found, processes)
        if processes.is_main_process:
            began = f"`{old.config.name}`, fine-tuned in "
            history = History(about, recipe, recipe.training, processes, began, before)
            finish(trained, found, run, out, history, export)
            compare_with(start, out, changes, found, run)


def _log_start(
    old: CamSeg, new: CamSeg, changes: ClassChanges, data: TrainingData, learns_masks: bool
) -> None:
    before, after = old.state_dict(), new.state_dict()
    kept = sum(
        tensor.numel()
        for name, tensor in after.items()
        if name in before and tensor.shape == before[name].shape and tensor.equal(before[name])
    )
    total = sum(tensor.numel() for tensor in after.values())
    counts = len(old.labels), len(new.labels)
    logger.info("from %s: %d classes, %d from now on", old.config.name, *counts)
    for line in changes.lines():
        logger.info("classes %s", line)
    logger.info("weights kept: %.1f of %.1f million", kept / 1e6, total / 1e6)
    if learns_masks:
        logger.info("the mask autoencoder learns the new and split classes first")
    pixels = data.train.pixel_counts()
    unseen = [label.name for i, label in enumerate(new.labels) if not pixels[i]]
    if unseen:
        logger.warning("no frame of train shows %s alone", ", ".join(unseen))


def _log_time(
    recipe: FinetuneRecipe,
    model: CamSeg,
    data: TrainingData,
    codec: AutoencoderTraining | None,
    changes: ClassChanges,
    processes: Processes,
) -> None:
    """Time a few steps on copies of the model, and log how long the training takes."""
    training = recipe.training
    short = replace(training, loop=timed_loop(training.loop))
    steps = training.loop.in_steps(len(data.train), training.batch).steps
    each = seconds_per_step(
        lambda place: train_transformer(short, copy.deepcopy(model), data.train, place), processes
    )
    minutes, of_codec = each * steps / 60, ""
    if codec is not None:
        brief = replace(codec, loop=timed_loop(codec.loop))
        codec_steps = codec.loop.in_steps(len(data.train), codec.batch).steps
        one = seconds_per_step(
            lambda place: train_autoencoder(
                brief, data.train, place, model.mask_autoencoder, changes.kept
            ),
            processes,
        )
        minutes += one * codec_steps / 60
        of_codec = f"{codec_steps} steps of the mask autoencoder at {one:.2f} s, then "
    if processes.is_main_process:
        if processes.device.type == "cpu" and "GLIBC_TUNABLES" not in os.environ:
            logger.info("GLIBC_TUNABLES may make this several times faster: docs/training.md")
        logger.info(
            "about %.1f min: %s%d steps at %.2f s, measured now; then both models are scored on "
            "%d frames",
            minutes,
            of_codec,
            steps,
            each,
            len(data.val),
        )


def _learn_masks(
    codec: AutoencoderTraining,
    model: CamSeg,
    changes: ClassChanges,
    data: TrainingData,
    run: Path,
    processes: Processes,
) -> None:
    """Train the mask autoencoder of `model` in `run`/autoencoder, unless it is trained already."""
    assert model.mask_autoencoder is not None
    folder = run / "autoencoder"
    if not (folder / "model.safetensors").is_file():
        place = Run(folder, default_callbacks(folder, "autoencoder"), processes)
        tuned = train_autoencoder(codec, data.train, place, model.mask_autoencoder, changes.kept)
        if processes.is_main_process:
            save_codec(tuned, folder, data.labels)
        processes.wait()
    load_codec_into(model.mask_autoencoder, folder, data.labels)
