"""Whole trainings from a configuration file: `camseg train-autoencoder` and `camseg train`."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from camseg_core.config.model import CamSegConfig, load_config
from camseg_core.config.named_models import CAM_SEG_BASE_768, CAMSEG_LITE
from camseg_core.data.sets.registry import SETS, open_set
from camseg_core.errors import ConfigError
from camseg_core.evaluation.roofline import DEVICES
from camseg_core.model.camseg import CamSeg
from camseg_core.training.codec_folder import Codec, load_codec_into, save_codec
from camseg_core.training.distributed import Processes, init_processes
from camseg_core.training.estimate import TrainingEstimate, estimate, estimate_lines
from camseg_core.training.finish import finish
from camseg_core.training.frames import Frames
from camseg_core.training.kl_autoencoder import (
    PictureAutoencoderTraining,
    train_picture_autoencoder,
)
from camseg_core.training.mask_autoencoder import AutoencoderTraining, train_autoencoder
from camseg_core.training.run import (
    check_batch,
    default_callbacks,
    load_frames,
    reconstruction,
    remember,
    train_in,
    training_facts,
)
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining

logger = logging.getLogger(__name__)

_MODELS = {model.name: model for model in (CAMSEG_LITE, CAM_SEG_BASE_768)}


@dataclass(frozen=True)
class AutoencoderRecipe:
    """A configuration of `camseg train-autoencoder`: either `mask` (ids in, logits out) or `picture` (the published layout)."""

    data: str = "camvid"
    mask: AutoencoderTraining | None = None
    picture: PictureAutoencoderTraining | None = None


@dataclass(frozen=True)
class Recipe:
    """A configuration of `camseg train`.

    `model` is a name or the path of a `config.json`; `data` the kind of data set. `autoencoder` is used where no trained
    autoencoder is given: a model with a mask autoencoder then begins by training one.
    """

    model: str = "camseg-lite"
    data: str = "camvid"
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    training: TransformerTraining = field(default_factory=TransformerTraining)


def estimate_run(
    recipe: Recipe, processes: int, data: Path | None = None, frames: int | None = None
) -> TrainingEstimate:
    """What `run` would take on so many devices, without the steps of a model's own autoencoder. `data` is read for the number of frames
    and the classes alone; in its place, the number can be given, and the classes are then those of the data set's kind.

    Raises:
        ConfigError: the configuration cannot be used.
        DataError: the data cannot be used.
    """
    config = model_config(recipe.model)
    recipe.training.check(config)
    if data is not None:
        found = open_set(recipe.data, data, "train")
        labels, frames = found.labels, frames or len(found.samples)
    elif frames is None:
        raise ConfigError(
            "how long an epoch is follows from the frames: name the data set with --data, or their number with --frames"
        )
    elif recipe.data not in SETS:
        raise ConfigError(f"unknown data set {recipe.data!r}; choose one of {', '.join(SETS)}")
    else:
        labels = SETS[recipe.data].labels
    return estimate(config, labels, recipe.training, frames, processes)


def run_autoencoder(
    recipe: AutoencoderRecipe,
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Train an autoencoder and write its folder to `out`, with `val.json`; started again with the same `run`, it goes on.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was started with.
        DataError: the data cannot be used; the message names the file.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    if (recipe.mask is None) == (recipe.picture is None):
        raise ConfigError(
            "the configuration describes either a mask autoencoder (mask:) or a picture autoencoder (picture:)"
        )
    with init_processes(device, workers) as processes:
        check_batch(recipe.mask or recipe.picture, processes)
        train, val, labels = load_frames(recipe.data, data)
        remember(recipe, run, processes)
        place = Run(run, default_callbacks(run, "autoencoder"), processes)
        if recipe.mask is not None:
            codec: Codec = train_autoencoder(recipe.mask, train, place)
        else:
            assert recipe.picture is not None
            codec = train_picture_autoencoder(recipe.picture, train, labels, place)
        if processes.is_main_process:
            save_codec(codec, out)
            result = reconstruction(codec, val, labels)
            (out / "val.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            logger.info(
                "wrote %s; masks of val through it: mIoU %s",
                out,
                result.get("mean_iou", "not measured for pictures"),
            )


def run(
    recipe: Recipe,
    data: Path,
    run: Path,
    out: Path,
    autoencoder: Path | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Train a model, and write its checkpoint folder to `out`: exported, scored on `val`, with a model card.

    `autoencoder` is the folder of a trained autoencoder. Started again with the same `run`, it goes on where it was. Under `torchrun`
    the processes share each batch.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was started with.
        DataError: the data cannot be used; the message names the file.
        ModelError: the autoencoder does not fit the model.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    config = model_config(recipe.model)
    with init_processes(device, workers) as processes:
        # everything that can be wrong is found before the first step, and before the configuration is kept
        recipe.training.check(config)
        check_batch(recipe.training, processes)
        if autoencoder is None:
            _check_own_autoencoder(recipe, config, processes)
        train, val, labels = load_frames(recipe.data, data)
        if processes.is_main_process:
            found = estimate(
                config, labels, recipe.training, len(train), processes.world_size, compare=False
            )
            logger.info("what this takes, by count:\n%s", "\n".join(estimate_lines(found, DEVICES)))
        torch.manual_seed(recipe.training.loop.seed)
        model = CamSeg(config, labels)
        codec = model.mask_autoencoder or model.autoencoder
        assert codec is not None
        if autoencoder is not None:
            load_codec_into(codec, autoencoder)
        remember(recipe, run, processes)
        if autoencoder is None:
            load_codec_into(codec, _own_autoencoder(recipe.autoencoder, train, run, processes))
        if model.image_encoder is not None:
            model.image_encoder.load_imagenet()
        trained = train_in(recipe.training, model, train, val, run, processes)
        if processes.is_main_process:
            own = f"{recipe.autoencoder.loop.in_steps(len(train), recipe.autoencoder.batch).steps} steps of the autoencoder"
            history = {
                "command": "camseg train --config config/train/camseg-lite.yaml --data <CamVid root> --run runs/lite --out <folder>",
                "began": f"{own if autoencoder is None else 'An autoencoder trained before'}, then ",
                "before": "",
            }
            facts = history | training_facts(
                recipe.data, recipe.training, trained, train, val, processes
            )
            finish(
                trained,
                open_set(recipe.data, data, "train").samples,
                open_set(recipe.data, data, "val").samples,
                run,
                out,
                facts,
            )


def _check_own_autoencoder(recipe: Recipe, config: CamSegConfig, processes: Processes) -> None:
    if config.mask_autoencoder is None:
        raise ConfigError(
            f"{config.name} needs a trained autoencoder: name its folder with --autoencoder"
        )
    if recipe.autoencoder.model != config.mask_autoencoder:
        found, wanted = recipe.autoencoder.model, config.mask_autoencoder
        raise ConfigError(
            f"autoencoder.model is {found}, but {config.name} has {wanted}: give both the same sizes"
        )
    check_batch(recipe.autoencoder, processes)


def _own_autoencoder(
    config: AutoencoderTraining, train: Frames, run: Path, processes: Processes
) -> Path:
    """The folder of the run's own autoencoder, trained if it is not there yet."""
    folder = run / "autoencoder"
    if not (folder / "model.safetensors").is_file():
        trained = train_autoencoder(
            config, train, Run(folder, default_callbacks(folder, "autoencoder"), processes)
        )
        if processes.is_main_process:
            save_codec(trained, folder)
        processes.wait()
    return folder


def model_config(name: str) -> CamSegConfig:
    if name in _MODELS:
        return _MODELS[name]
    if not Path(name).is_file():
        raise ConfigError(
            f"model {name!r} is neither a config.json nor one of {', '.join(_MODELS)}"
        )
    return load_config(Path(name))
