"""Training of image encoder, transformer and diffusion head together, against the latents of an autoencoder."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from camseg_core.config.dataclass_reader import renamed_from
from camseg_core.config.model import CamSegConfig
from camseg_core.data.augmentation import Augmentation, Variation, random_crops, varied_views
from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.labels import index_table
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.geometry import scaled_ids, scaled_picture
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.training.distributed import enable_gradient_checkpointing
from camseg_core.training.draws import Cut
from camseg_core.training.frames import Frames
from camseg_core.training.latents import FreshLatents, KeptLatents
from camseg_core.training.loading import Batch, FrameStream, prepared
from camseg_core.training.objectives import TaskLoss, published_objective, task_objective
from camseg_core.training.trainer import LoopConfig, Loss, Run, Validation, train


@dataclass(frozen=True)
class TransformerTraining:
    """How to train.

    `augment` says how a sample comes out of a frame. `crop`: a random part is scaled to `crop` (height, width in pixels, multiples of 32),
    mirrored, and changed in colour; `crop_area` is the smallest and largest share of the frame that the part takes. `vary`: the frame is
    scaled to `crop` and changed as `variation` says. `flip`: the whole frame is scaled to `crop` and mirrored at random. `none`: only
    scaled. The latents of `flip` and `none`, which the published layout allows, are computed once and kept. `backbone_lr` is the
    share of the learning rate that an ImageNet-trained backbone gets, `decoder_lr` the mask decoder's, `all_hidden` the share of steps that
    hide the whole mask, as inference does; the others hide a normal share that is brought to 0.7..1 by `hidden_cut`. `diffusion_batch_mul` is how many
    noises each token is denoised from in a step, in the published layout. `gradient_checkpointing` keeps only the inputs of the transformer's and
    the head's blocks for the backward pass, which computes the rest again. `task` is the loss of models with a mask autoencoder.
    """

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4000, lr=1e-3, warmup=100, ema_decay=0.998, validate_every=400
        )
    )
    batch: int = 6
    augment: Literal["crop", "vary", "flip", "none"] = "crop"
    crop: tuple[int, int] = (256, 352)
    crop_area: tuple[float, float] = (0.25, 1.0)
    backbone_lr: float = 0.3
    decoder_lr: float = 0.5
    all_hidden: float = 0.8
    hidden_cut: Cut = "clamp"
    diffusion_batch_mul: int = field(default=1, metadata=renamed_from("repeats"))
    gradient_checkpointing: bool = field(default=False, metadata=renamed_from("recompute_blocks"))
    variation: Variation = field(default_factory=Variation)
    task: TaskLoss = field(default_factory=TaskLoss)

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.crop) < 32:
            raise ConfigError("batch is at least 1, and both sides of crop at least 32")
        if self.diffusion_batch_mul < 1:
            raise ConfigError(
                f"diffusion_batch_mul is {self.diffusion_batch_mul}; it is at least 1"
            )
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ConfigError(
                f"crop_area is {self.crop_area}; it is two rising shares above 0 and up to 1"
            )
        if not 0 <= self.all_hidden <= 1:
            raise ConfigError(f"all_hidden is {self.all_hidden}; it is a share from 0 to 1")

    def check(self, model: CamSegConfig) -> None:
        """Whether this can train `model`.

        Raises:
            ConfigError: the crop does not fit the model, or the way of augmenting does not; or it has a part that is trained afterwards.
        """
        if any(side % model.size_multiple for side in self.crop):
            raise ConfigError(
                f"training.crop is {list(self.crop)}: {model.name} needs multiples of {model.size_multiple}"
            )
        if model.light_decoder is not None:
            raise ConfigError(
                f"{model.name} has a light_decoder, which this does not train: leave it out, and add it with distill-decoder"
            )
        if model.mask_autoencoder is not None and self.augment not in ("crop", "vary"):
            raise ConfigError(
                f"training.augment is {self.augment}: models with a mask autoencoder train on random crops or views (augment: crop or vary)"
            )
        if model.mask_autoencoder is not None and self.diffusion_batch_mul > 1:
            raise ConfigError(
                f"training.diffusion_batch_mul is {self.diffusion_batch_mul}: it is for the published layout; {model.name} takes 1"
            )


def train_transformer(
    config: TransformerTraining,
    model: CamSeg,
    frames: Frames,
    run: Run,
    validate: Callable[[nn.Module], Validation] | None = None,
) -> CamSeg:
    """Train `model` on `frames` and return the averaged model.

    Raises:
        ConfigError: the crop does not fit the model, or the way of augmenting does not.
    """
    config.check(model.config)
    device, seed, loop = (
        run.processes.device,
        config.loop.seed,
        config.loop.in_steps(len(frames), config.batch),
    )
    model.to(device, memory_format=loop.memory_format)  # type: ignore[call-overload]
    codec = model.mask_autoencoder or model.autoencoder
    assert codec is not None
    codec.eval().requires_grad_(False)
    if model.mask_autoencoder is not None:
        model.mask_autoencoder.decoder.requires_grad_(
            True
        )  # known to the optimiser; the objective says when it learns
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    stream = FrameStream(frames, _augmentation(config), seed)

    def rate(name: str) -> float:
        if name.startswith("mask_autoencoder."):
            return config.decoder_lr
        return (
            config.backbone_lr
            if name.startswith(("image_encoder.stem", "image_encoder.blocks"))
            else 1.0
        )

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        loss = _objective(config, loop, model, frames, batch, run)
        averaged = train(model, loss, loop, run, config.batch, rate, validate)
    assert isinstance(averaged, CamSeg)
    return averaged.eval()


def _objective(
    config: TransformerTraining,
    loop: LoopConfig,
    model: CamSeg,
    frames: Frames,
    batch: Batch,
    run: Run,
) -> Loss:
    shared = (config.all_hidden, loop, run.processes)
    if model.mask_autoencoder is not None:
        weights = frames.class_weights(len(model.labels))
        return task_objective(
            model, batch, config.batch, weights, config.task, *shared, config.hidden_cut
        )
    if config.augment in ("crop", "vary"):
        latents: Batch = FreshLatents(model, batch, run.processes.device)
    else:
        path = _latents_file(config, run.folder)
        latents = KeptLatents(
            model, frames, config.crop, config.augment == "flip", loop.seed, path, run.processes
        )
    return published_objective(
        model, latents, config.batch, *shared, config.diffusion_batch_mul, config.hidden_cut
    )


def _augmentation(config: TransformerTraining) -> Augmentation:
    if config.augment == "vary":
        return varied_views(config.crop, config.variation)
    return random_crops(config.crop, config.crop_area, color=True)


def _latents_file(config: TransformerTraining, folder: Path) -> Path:
    height, width = config.crop
    return folder / f"latents-{height}x{width}-{config.augment}.safetensors"


def seen_size(config: TransformerTraining, model: CamSeg) -> tuple[int, int] | None:
    """What whole frames are scaled to for `class_indices`: as they are seen in training where that scales them whole, else None."""
    return config.crop if model.autoencoder is not None and config.augment != "crop" else None


def confusion_of(
    model: CamSeg,
    frames: Frames,
    sampler: str = "one_step",
    steps: int = 10,
    size: tuple[int, int] | None = None,
) -> Confusion:
    """Confusion over class indices on whole frames, see `class_indices`; `steps` is for the samplers that take several."""
    confusion = Confusion(len(model.labels))
    for (_, indices), predicted in zip(
        frames, class_indices(model, frames, sampler, steps, size), strict=True
    ):
        confusion.add(indices.numpy(), predicted)
    return confusion


def class_indices(
    model: CamSeg,
    frames: Frames,
    sampler: str = "one_step",
    steps: int = 10,
    size: tuple[int, int] | None = None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the predicted class indices `(H, W)` of whole frames; 255 for a class that the labels lack.

    With `size` (height, width), frames are scaled to it and masks are scaled back by the nearest pixel. In
    bf16, except for models that decode masks as pictures, whose colours need fp32.
    """
    engine = TorchEngine(model, "bf16" if model.autoencoder is None else "fp32")
    sampling, index = Sampling(sampler, steps), index_table(model.labels)
    multiple = model.config.size_multiple
    for image, _ in frames:
        rgb = image.permute(1, 2, 0).contiguous().numpy()
        picture = np.asarray(rgb if size is None else scaled_picture(rgb, size), np.uint8)
        # the area of the padded picture, so that the segmenter does not scale it
        area = math.prod(math.ceil(side / multiple) * multiple for side in picture.shape[:2])
        config = replace(model.config, network_pixels=area)
        mask = Segmenter(config, model.labels, engine, sampling).segment(picture).mask
        yield index[scaled_ids(mask, rgb.shape[:2])]
