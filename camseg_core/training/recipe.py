"""Whole trainings from a configuration file: `camseg train-autoencoder`, `camseg train` and `camseg distill-decoder`."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camseg_core.config_file import to_yaml
from camseg_core.data.camvid import CamVid
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import scores
from camseg_core.labels import CAMVID_11_TRAIN_IDS, Label, cityscapes_labels
from camseg_core.model.camseg import CamSeg, stored_type
from camseg_core.model.config import CamSegConfig, load_config
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.model.sizes import CAM_SEG_BASE_768, CAMSEG_LITE
from camseg_core.replacing import replacing
from camseg_core.training.autoencoder import AutoencoderTraining, reconstruction_confusion, train_autoencoder
from camseg_core.training.codec_folder import Codec, load_codec_into, save_codec
from camseg_core.training.finish import finish
from camseg_core.training.frames import Frames
from camseg_core.training.light_decoder import DecoderComparison, LightDecoderTraining, train_light_decoder, with_light_decoder
from camseg_core.training.loop import Run, Validation
from camseg_core.training.parallel import Processes, processes
from camseg_core.training.picture_autoencoder import PictureAutoencoderTraining, train_picture_autoencoder
from camseg_core.training.transformer import TransformerTraining, class_indices, confusion_of, train_transformer
from camseg_core.training.watch import Display, JsonLines, Pictures, TensorBoard, Watchers, validation_picture

logger = logging.getLogger(__name__)

_SETS: dict[str, tuple[Callable[[Path, str], CamVid], tuple[Label, ...]]] = {"camvid": (CamVid, cityscapes_labels(CAMVID_11_TRAIN_IDS))}
_Training = AutoencoderTraining | PictureAutoencoderTraining | LightDecoderTraining | TransformerTraining
_MODELS = {model.name: model for model in (CAMSEG_LITE, CAM_SEG_BASE_768)}


@dataclass(frozen=True)
class AutoencoderRecipe:
    """A configuration of `camseg train-autoencoder`: either `mask` (ids in, logits out) or `picture` (the published layout)."""

    data: str = "camvid"
    mask: AutoencoderTraining | None = None
    picture: PictureAutoencoderTraining | None = None


@dataclass(frozen=True)
class LightDecoderRecipe:
    """A configuration of `camseg distill-decoder`."""

    data: str = "camvid"
    decoder: LightDecoderTraining = field(default_factory=LightDecoderTraining)


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


def run_autoencoder(recipe: AutoencoderRecipe, data: Path, run: Path, out: Path, device: str = "cpu") -> None:
    """Train an autoencoder and write its folder to `out`, with `val.json`; started again with the same `run`, it goes on.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was started with.
        DataError: the data cannot be used; the message names the file.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    if (recipe.mask is None) == (recipe.picture is None):
        raise ConfigError("the configuration describes either a mask autoencoder (mask:) or a picture autoencoder (picture:)")
    with processes(device) as among:
        _check_batch(recipe.mask or recipe.picture, among)
        train, val, labels = _load(recipe.data, data)
        _remember(recipe, run, among)
        place = Run(run, _watchers(run, "autoencoder"), among)
        if recipe.mask is not None:
            codec: Codec = train_autoencoder(recipe.mask, train, place)
        else:
            assert recipe.picture is not None
            codec = train_picture_autoencoder(recipe.picture, train, labels, place)
        if among.leads:
            save_codec(codec, out)
            result = _reconstruction(codec, val, labels)
            (out / "val.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            logger.info("wrote %s; masks of val through it: mIoU %s", out, result.get("mean_iou", "not measured for pictures"))


def run(recipe: Recipe, data: Path, run: Path, out: Path, autoencoder: Path | None = None, device: str = "cpu") -> None:
    """Train a model, and write its checkpoint folder to `out`: exported, scored on `val`, with a model card.

    `autoencoder` is the folder of a trained autoencoder. Started again with the same `run`, it goes on where it was. Under `torchrun`
    the processes share each batch.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was started with.
        DataError: the data cannot be used; the message names the file.
        ModelError: the autoencoder does not fit the model.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    config = _model_config(recipe.model)
    with processes(device) as among:
        # everything that can be wrong is found before the first step, and before the configuration is kept
        recipe.training.check(config)
        _check_batch(recipe.training, among)
        if autoencoder is None:
            _check_own_autoencoder(recipe, config, among)
        train, val, labels = _load(recipe.data, data)
        torch.manual_seed(recipe.training.loop.seed)
        model = CamSeg(config, labels)
        codec = model.mask_autoencoder or model.autoencoder
        assert codec is not None
        if autoencoder is not None:
            load_codec_into(codec, autoencoder)
        _remember(recipe, run, among)
        if autoencoder is None:
            load_codec_into(codec, _own_autoencoder(recipe.autoencoder, train, run, among))
        if model.image_encoder is not None:
            model.image_encoder.load_imagenet()

        folder = run / "transformer"

        def validate(averaged: nn.Module) -> Validation:
            assert isinstance(averaged, CamSeg)
            return _validation(averaged.eval(), val)

        trained = train_transformer(recipe.training, model, train, Run(folder, _watchers(folder, "transformer"), among), validate)
        if among.leads:
            finish(trained, _SETS[recipe.data][0](data, "val"), run, out, _facts(recipe, trained, train, val, autoencoder, among))


def run_light_decoder(recipe: LightDecoderRecipe, start: Path, data: Path, run: Path, out: Path, device: str = "cpu") -> None:
    """Train a light decoder for the model of the checkpoint folder `start`, and write that model with it to `out`, with `val.json`.

    The model's other weights and how they are stored stay as they are. Started again with the same `run`, it goes on.

    Raises:
        ConfigError: the configuration cannot be used, or differs from the one that `run` was started with; or the model needs no decoder.
        DataError: the data cannot be used; the message names the file.
        ModelError: the checkpoint cannot be read, or the decoder's sizes do not fit it.
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    with processes(device) as among:
        torch.manual_seed(recipe.decoder.loop.seed)
        model, stored = with_light_decoder(CamSeg.from_pretrained(start), recipe.decoder.model), stored_type(start)
        _check_batch(recipe.decoder, among)
        train, val, _ = _load(recipe.data, data, model.labels)
        shown = train.indices.unique().tolist()
        missing = [label.name for index, label in enumerate(model.labels) if index not in shown]
        if missing and among.leads:
            logger.warning("no frame of train shows %s: the light decoder does not learn what has not been seen", ", ".join(missing))
        _remember(recipe, run, among)
        comparison = DecoderComparison(model, val)
        place = Run(run, _watchers(run, "light decoder"), among)
        trained = train_light_decoder(recipe.decoder, model, train, place, comparison.validation)
        if among.leads:
            assert trained.light_decoder is not None
            compared = comparison.scores(trained.light_decoder)
            trained.cpu().save_pretrained(out, stored)
            by_index = tuple(replace(label, id=index) for index, label in enumerate(model.labels))
            result: dict[str, Any] = {"agreement": round(compared.agreement, 4)}
            result |= {"light": scores(compared.light, by_index), "exact": scores(compared.exact, by_index)}
            (out / "val.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            logger.info(
                "wrote %s; masks of val: %.2f %% of the pixels as the exact decoder has them, mIoU %.4f, and %.4f of the exact one",
                *(out, 100 * compared.agreement, compared.light.mean_iou(), compared.exact.mean_iou()),
            )


def _check_batch(training: _Training | None, among: Processes) -> None:
    if training is not None:
        among.samples(0, training.batch)


def _check_own_autoencoder(recipe: Recipe, config: CamSegConfig, among: Processes) -> None:
    if config.mask_autoencoder is None:
        raise ConfigError(f"{config.name} needs a trained autoencoder: name its folder with --autoencoder")
    if recipe.autoencoder.model != config.mask_autoencoder:
        found, wanted = recipe.autoencoder.model, config.mask_autoencoder
        raise ConfigError(f"autoencoder.model is {found}, but {config.name} has {wanted}: give both the same sizes")
    _check_batch(recipe.autoencoder, among)


def _own_autoencoder(config: AutoencoderTraining, train: Frames, run: Path, among: Processes) -> Path:
    """The folder of the run's own autoencoder, trained if it is not there yet."""
    folder = run / "autoencoder"
    if not (folder / "model.safetensors").is_file():
        trained = train_autoencoder(config, train, Run(folder, _watchers(folder, "autoencoder"), among))
        if among.leads:
            save_codec(trained, folder)
        among.wait()
    return folder


def _facts(recipe: Recipe, trained: CamSeg, train: Frames, val: Frames, autoencoder: Path | None, among: Processes) -> dict[str, object]:
    """What the model card tells of a training, see `finish`."""
    codec = trained.mask_autoencoder or trained.autoencoder
    assert codec is not None
    own = f"{recipe.autoencoder.loop.steps} steps of the autoencoder"
    processor = "CPU" if among.device.type == "cpu" else torch.cuda.get_device_name(among.device)
    return {
        "autoencoder": own if autoencoder is None else "An autoencoder trained before",
        "steps": recipe.training.loop.steps,
        "batch": recipe.training.batch,
        "device": f"{processor}, {recipe.training.loop.precision}, {among.count} process{'es' if among.count > 1 else ''}",
        "data": recipe.data,
        "train_frames": len(train),
        "val_frames": len(val),
        "frame_size": f"{val.indices.shape[2]}×{val.indices.shape[1]}",
        "reconstruction": _reconstruction(codec.cpu(), val, trained.labels),
    }


def _reconstruction(codec: Codec, val: Frames, labels: tuple[Label, ...]) -> dict[str, object]:
    """How well masks of `val` survive a mask autoencoder; empty for a picture autoencoder."""
    by_index = tuple(replace(label, id=index) for index, label in enumerate(labels))  # the autoencoder counts class indices
    return scores(reconstruction_confusion(codec, val), by_index) if isinstance(codec, MaskAutoencoder) else {}


def _validation(model: CamSeg, val: Frames) -> Validation:
    """One-step and ten-step mIoU on every fifth frame of `val`, and a picture of three of them."""
    some = val.every(5)
    figures = {name: confusion_of(model, some, name, 10).mean_iou() for name in ("one_step", "ddim")}
    shown = some.every(max(1, len(some) // 3))
    picture = validation_picture(shown.images.numpy(), shown.indices.numpy(), class_indices(model, shown), model.labels)
    return {"mIoU": figures["one_step"], "mIoU of 10 steps": figures["ddim"]}, picture


def _model_config(name: str) -> CamSegConfig:
    if name in _MODELS:
        return _MODELS[name]
    if not Path(name).is_file():
        raise ConfigError(f"model {name!r} is neither a config.json nor one of {', '.join(_MODELS)}")
    return load_config(Path(name))


def _load(kind: str, root: Path, labels: tuple[Label, ...] | None = None) -> tuple[Frames, Frames, tuple[Label, ...]]:
    """The frames of train and val, and their labels: those given, or the data set's own."""
    if kind not in _SETS:
        raise ConfigError(f"unknown data set {kind!r}; choose one of {', '.join(_SETS)}")
    open_split, own_labels = _SETS[kind]
    labels = labels or own_labels
    return Frames.load(open_split(root, "train"), labels), Frames.load(open_split(root, "val"), labels), labels


def _watchers(run: Path, title: str) -> Watchers:
    return Watchers([Display(title), JsonLines(run), TensorBoard(run), Pictures(run)])


def _remember(recipe: Recipe | AutoencoderRecipe | LightDecoderRecipe, run: Path, among: Processes) -> None:
    """Write the configuration into the run's folder, or refuse to go on with another one: the steps so far would not be its own."""
    path, text = run / "config.yaml", to_yaml(recipe)
    known = path.is_file()
    if known and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{path} differs from the configuration given: use the one that the run was started with, or another --run")
    among.wait()  # no one writes while another still reads
    if among.leads and not known:
        run.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
