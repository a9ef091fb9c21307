"""What the trainings of a configuration file share: their data, who watches, and what is kept in the run's folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camseg_core.atomic_write import atomic_write
from camseg_core.config.yaml_file import load_yaml, to_yaml
from camseg_core.data.sets.registry import open_set
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import scores
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.training.callbacks import (
    Display,
    JsonLines,
    Pictures,
    TensorBoard,
    validation_picture,
)
from camseg_core.training.codec_folder import Codec
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames, as_first
from camseg_core.training.kl_autoencoder import PictureAutoencoderTraining
from camseg_core.training.light_decoder import LightDecoderTraining
from camseg_core.training.mask_autoencoder import AutoencoderTraining, reconstruction_confusion
from camseg_core.training.trainer import Callback, Run, Validation
from camseg_core.training.transformer import (
    TransformerTraining,
    class_indices,
    confusion_of,
    seen_size,
    train_transformer,
)

Training = (
    AutoencoderTraining | PictureAutoencoderTraining | LightDecoderTraining | TransformerTraining
)


def train_in(
    config: TransformerTraining,
    model: CamSeg,
    train: Frames,
    val: Frames,
    run: Path,
    processes: Processes,
) -> CamSeg:
    """Train `model` in the run's folder, validated on `val`."""
    folder = run / "transformer"

    def validate(averaged: nn.Module) -> Validation:
        assert isinstance(averaged, CamSeg)
        return _validation(averaged.eval(), val, seen_size(config, averaged))

    return train_transformer(
        config,
        model,
        train,
        Run(folder, default_callbacks(folder, "transformer"), processes),
        validate,
    )


def check_batch(training: Training | None, processes: Processes) -> None:
    if training is not None:
        processes.samples(0, training.batch, parts=training.loop.grad_accum_steps)


def training_facts(
    data: str,
    config: TransformerTraining,
    trained: CamSeg,
    train: Frames,
    val: Frames,
    processes: Processes,
) -> dict[str, object]:
    """What the model card tells of a training, see `finish`."""
    codec = trained.mask_autoencoder or trained.autoencoder
    assert codec is not None
    processor = (
        "CPU" if processes.device.type == "cpu" else torch.cuda.get_device_name(processes.device)
    )
    return {
        "steps": config.loop.in_steps(len(train), config.batch).steps,
        "batch": config.batch,
        "device": f"{processor}, {config.loop.precision}, {processes.world_size} process{'es' if processes.world_size > 1 else ''}",
        "data": data,
        "train_frames": len(train),
        "val_frames": len(val),
        "frame_size": "{1}×{0}".format(*val.size()),
        "reconstruction": reconstruction(codec.cpu(), val, trained.labels),
    }


def reconstruction(codec: Codec, val: Frames, labels: tuple[Label, ...]) -> dict[str, object]:
    """How well masks of `val` survive a mask autoencoder; empty for a picture autoencoder."""
    by_index = tuple(
        replace(label, id=index) for index, label in enumerate(labels)
    )  # the autoencoder counts class indices
    return (
        scores(reconstruction_confusion(codec, val), by_index)
        if isinstance(codec, MaskAutoencoder)
        else {}
    )


def _validation(model: CamSeg, val: Frames, size: tuple[int, int] | None) -> Validation:
    """One-step and ten-step mIoU on every fifth frame of `val`, scaled to `size` if there is one, and a picture of three of them."""
    some = val.every(5)
    figures = {
        name: confusion_of(model, some, name, 10, size).mean_iou() for name in ("one_step", "ddim")
    }
    shown = some.every(max(1, len(some) // 3))
    images, truths = zip(*shown, strict=True)
    found = [torch.from_numpy(predicted) for predicted in class_indices(model, shown, size=size)]
    picture = validation_picture(
        as_first(images).numpy(), as_first(truths).numpy(), as_first(found).numpy(), model.labels
    )
    return {"mIoU": figures["one_step"], "mIoU of 10 steps": figures["ddim"]}, picture


def load_frames(
    kind: str, root: Path, labels: tuple[Label, ...] | None = None
) -> tuple[Frames, Frames, tuple[Label, ...]]:
    """The frames of train and val, and their labels: those given, or the data set's own."""
    train = open_set(kind, root, "train")
    labels = labels or train.labels
    train_frames = Frames.load(train.samples, labels)
    return train_frames, Frames.load(open_set(kind, root, "val").samples, labels), labels


def default_callbacks(run: Path, title: str) -> tuple[Callback, ...]:
    return (Display(title), JsonLines(run), TensorBoard(run), Pictures(run))


def remember(recipe: Any, run: Path, processes: Processes) -> None:
    """Write the configuration into the run's folder, or refuse to go on with another one: the steps so far would not be its own.

    Entries that a file lacks, for it was written before there were any, are as their defaults.
    """
    processes.check_shared(run)
    path, text = run / "config.yaml", to_yaml(recipe)
    known = path.is_file()
    if known and not _says(path, recipe):
        raise ConfigError(
            f"{path} differs from the configuration given: use the one that the run was started with, or another --run"
        )
    processes.wait()  # no one writes while another still reads
    if processes.is_main_process and not known:
        run.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _says(path: Path, recipe: Any) -> bool:
    """Whether the configuration file is of this recipe."""
    try:
        return bool(load_yaml(path, type(recipe)) == recipe)
    except ConfigError:
        return False
