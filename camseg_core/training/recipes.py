"""Trainings from a configuration file: `camseg train` and `camseg train-autoencoder`."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from camseg_core.config.model import CamSegConfig, load_config
from camseg_core.data.sets import SETS
from camseg_core.errors import ConfigError
from camseg_core.evaluation.roofline import DEVICES
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import ABOUT_NOTHING, About, History
from camseg_core.training.codec import Codec, load_codec_into, save_codec
from camseg_core.training.distributed import Processes, init_processes
from camseg_core.training.estimate import TrainingEstimate, estimate, estimate_lines
from camseg_core.training.finish import finish, train_in
from camseg_core.training.joined import Data, check_data, labels_of, open_data
from camseg_core.training.kl_autoencoder import (
    PictureAutoencoderTraining,
    train_picture_autoencoder,
)
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    reconstruction_scores,
    train_autoencoder,
)
from camseg_core.training.milestones import warn_of_unreached
from camseg_core.training.output import check_out, result_folder
from camseg_core.training.run import TrainingData, check_batch, keep_config, keep_data
from camseg_core.training.start import keep_start
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import CAM_SEG_BASE_768, CAMSEG_LITE, CAMSEG_LITE_CAMVID

logger = logging.getLogger(__name__)

_MODELS = {model.name: model for model in (CAMSEG_LITE, CAMSEG_LITE_CAMVID, CAM_SEG_BASE_768)}


@dataclass(frozen=True)
class AutoencoderRecipe:
    """A configuration of `camseg train-autoencoder`: `mask`, or `picture` (published layout)."""

    data: Data = "camvid"
    mask: AutoencoderTraining | None = None
    picture: PictureAutoencoderTraining | None = None

    def __post_init__(self) -> None:
        check_data(self.data)


@dataclass(frozen=True)
class Recipe:
    """A configuration of `camseg train`.

    `model` is a name or the path of a `config.json`; its classes are those of `data`, the kind of
    one data set or a list of sets. Unless a trained autoencoder is given, a model with a mask
    autoencoder first trains `autoencoder`.
    """

    model: str = CAMSEG_LITE_CAMVID.name
    data: Data = "camvid"
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    training: TransformerTraining = field(default_factory=TransformerTraining)

    def __post_init__(self) -> None:
        check_data(self.data)


def estimate_run(
    recipe: Recipe, processes: int, data: Path | None = None, frames: int | None = None
) -> TrainingEstimate:
    """Estimate `run` on `processes` devices, without the training of the autoencoder.

    `data` is only read for the number of frames and the classes. With `frames` in its place, the
    classes are those of the kind of data set.

    Raises:
        ConfigError: the configuration cannot be used.
        DataError: the data cannot be used.
    """
    config = model_config(recipe.model)
    recipe.training.check(config)
    if data is not None:
        labels = labels_of(recipe.data, data)
        train = open_data(recipe.data, data, "train")
        frames = frames or sum(len(each.found.samples) for each in train)
    elif frames is None:
        raise ConfigError(
            "the length of an epoch depends on the frames: name the data set with --data, or their "
            "number with --frames"
        )
    elif not isinstance(recipe.data, str):
        raise ConfigError(
            "the classes of several data sets are known from their files: name them with --data"
        )
    elif recipe.data not in SETS:
        raise ConfigError(f"data set must be one of {', '.join(SETS)}, got {recipe.data!r}")
    else:
        labels = SETS[recipe.data].labels
    config = with_classes(config, labels)
    return estimate(config, labels, recipe.training, frames, processes)


def run_autoencoder(
    recipe: AutoencoderRecipe,
    data: Path,
    run: Path,
    out: Path,
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Train an autoencoder and write its folder, with `val.json`, to `out`; the same `run` resumes.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was
            started with; or `out` holds another model.
        DataError: the data cannot be used; the message names the file.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    if (recipe.mask is None) == (recipe.picture is None):
        raise ConfigError(
            "the configuration must describe either a mask autoencoder (mask:) or an image "
            "autoencoder (picture:)"
        )
    training = recipe.mask or recipe.picture
    assert training is not None
    check_out(out, run)
    with init_processes(device, workers) as processes:
        check_batch(training, processes)
        found = TrainingData.load(recipe.data, data)
        keep_config(recipe, run, processes)
        keep_data(found, run, processes)
        entry = "mask" if recipe.mask is not None else "picture"
        warn_of_unreached(training, entry, len(found.train))
        place = Run(run, default_callbacks(run, "autoencoder"), processes)
        codec: Codec
        if isinstance(training, PictureAutoencoderTraining):
            codec = train_picture_autoencoder(training, found.train, found.labels, place)
        else:
            codec = train_autoencoder(for_classes(training, len(found.labels)), found.train, place)
        if processes.is_main_process:
            result: dict[str, object] = {}
            if isinstance(codec, MaskAutoencoder):
                result = reconstruction_scores(codec, found.val, found.labels)
            with result_folder(out, run) as folder:
                save_codec(codec, folder, found.labels)
                text = json.dumps(result, indent=1) + "\n"
                (folder / "val.json").write_text(text, encoding="utf-8")
            logger.info(
                "wrote %s; masks of val through it: mIoU %s",
                out,
                result.get("mean_iou", "not measured for images"),
            )


def run(
    recipe: Recipe,
    data: Path,
    run: Path,
    out: Path,
    autoencoder: Path | None = None,
    device: str = "cpu",
    workers: int = 0,
    about: About = ABOUT_NOTHING,
    export: bool = True,
) -> None:
    """Train a model and write its checkpoint folder to `out`, see `finish`; `run` resumes.

    `autoencoder` is the folder of a trained autoencoder. `about` has the model's name and facts for
    its card. Under `torchrun` the processes share each batch.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was
            started with; or `out` holds another model.
        DataError: the data cannot be used; the message names the file.
        ModelError: the autoencoder does not fit the model.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    config = model_config(recipe.model)
    check_out(out, run)
    with init_processes(device, workers) as processes:
        # find all errors before the configuration is kept and before the first step
        recipe.training.check(config)
        check_batch(recipe.training, processes)
        config = with_classes(config, labels_of(recipe.data, data))
        if autoencoder is None:
            _check_own_autoencoder(recipe, config, processes)
        found = TrainingData.load(recipe.data, data)
        if processes.is_main_process:
            frames, count = len(found.train), processes.world_size
            estimated = estimate(
                config, found.labels, recipe.training, frames, count, compare=False
            )
            lines = "\n".join(estimate_lines(estimated, DEVICES))
            logger.info("memory, operations and least time, counted:\n%s", lines)
        torch.manual_seed(recipe.training.loop.seed)
        model = CamSeg(replace(config, name=about.name_for(run)), found.labels)
        codec = model.mask_autoencoder or model.autoencoder
        assert codec is not None
        if autoencoder is not None:
            load_codec_into(codec, autoencoder, found.labels)
        keep_config(recipe, run, processes)
        keep_data(found, run, processes)
        keep_start(autoencoder, run, processes, "autoencoder")
        task = model.mask_autoencoder is not None
        warn_of_unreached(recipe.training, "training", len(found.train), task)
        if autoencoder is None:
            warn_of_unreached(recipe.autoencoder, "autoencoder", len(found.train))
            codec_config = for_classes(recipe.autoencoder, len(found.labels))
            own = _own_autoencoder(codec_config, found, run, processes)
            load_codec_into(codec, own, found.labels)
        if model.image_encoder is not None:
            model.image_encoder.load_imagenet()
        trained = train_in(run, recipe.training, model, found, processes)
        if processes.is_main_process:
            began = "An autoencoder trained before, then "
            if autoencoder is None:
                loop = recipe.autoencoder.loop.in_steps(len(found.train), recipe.autoencoder.batch)
                began = f"{loop.steps} steps of the autoencoder, then "
            history = History(about, recipe, recipe.training, processes, began)
            finish(trained, found, run, out, history, export)


def _check_own_autoencoder(recipe: Recipe, config: CamSegConfig, processes: Processes) -> None:
    if config.mask_autoencoder is None:
        raise ConfigError(
            f"{config.name} needs a trained autoencoder: name its folder with --autoencoder"
        )
    wanted = config.mask_autoencoder
    found = replace(recipe.autoencoder.model, classes=wanted.classes)
    if found != wanted:
        raise ConfigError(
            f"autoencoder.model must be {wanted}, as in {config.name}, got {found}: "
            "give both the same sizes"
        )
    check_batch(recipe.autoencoder, processes)


def for_classes(config: AutoencoderTraining, classes: int) -> AutoencoderTraining:
    """Return the same training for this number of classes."""
    return replace(config, model=replace(config.model, classes=classes))


def _own_autoencoder(
    config: AutoencoderTraining, data: TrainingData, run: Path, processes: Processes
) -> Path:
    """Return the folder of the run's own autoencoder; train it unless it exists."""
    folder = run / "autoencoder"
    if not (folder / "model.safetensors").is_file():
        place = Run(folder, default_callbacks(folder, "autoencoder"), processes)
        trained = train_autoencoder(config, data.train, place)
        if processes.is_main_process:
            save_codec(trained, folder, data.labels)
        processes.wait()
    return folder


def with_classes(config: CamSegConfig, labels: tuple[Label, ...]) -> CamSegConfig:
    """Return the configuration of a model for the classes of the data."""
    if config.mask_autoencoder is None:
        return config
    codec = replace(config.mask_autoencoder, classes=len(labels))
    return replace(config, mask_autoencoder=codec)


def model_config(name: str) -> CamSegConfig:
    """Return the configuration with this name, or in the `config.json` at this path.

    Raises:
        ConfigError: `name` is neither.
    """
    if name in _MODELS:
        return _MODELS[name]
    if Path(name).is_dir():
        raise ConfigError(
            f"model must be a name or a config.json, got the folder {name}: to start from a "
            "trained model, use --from"
        )
    if not Path(name).is_file():
        raise ConfigError(
            f"model must be one of {', '.join(_MODELS)} or the path of a config.json, got {name!r}"
        )
    return load_config(Path(name))
