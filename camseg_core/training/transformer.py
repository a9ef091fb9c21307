"""Training of image encoder, transformer and diffusion head."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from camseg_core.config.backbone import STAGES
from camseg_core.config.model import CamSegConfig
from camseg_core.config.reader import renamed_from
from camseg_core.data.augmentation import Variation, random_crops, varied_views
from camseg_core.data.random_changes import Disturb
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import enable_gradient_checkpointing
from camseg_core.training.draws import Cut
from camseg_core.training.frames import Frames
from camseg_core.training.latents import FreshLatents, KeptLatents
from camseg_core.training.loading import Batch, FrameStream, prepared
from camseg_core.training.mean_teacher import MeanTeacher
from camseg_core.training.objectives import TaskLoss, published_objective, task_objective
from camseg_core.training.rare_classes import RareClasses
from camseg_core.training.settings import LoopConfig, check_samples, check_setting
from camseg_core.training.trainer import Loss, Run, Validation, train


@dataclass(frozen=True)
class TransformerTraining:
    """How to train image encoder, transformer and diffusion head.

    Attributes:
        loop: how they are optimised.
        batch: frames in a step, over all processes.
        augment: how a frame becomes a sample. `crop`: a random part, scaled to `crop`, mirrored and
            changed in colour; `vary`: scaled to `crop` and changed by `variation`; `flip`: scaled
            and mirrored at random; `none`: only scaled. The published layout computes the latents
            of `flip` and `none` once; other layouts cannot use them.
        crop: height and width of samples in pixels, multiples of the model's size multiple.
        crop_area: smallest and largest share of a frame's area that a crop takes.
        crop_aspect: smallest and largest width of that part, divided by its height.
        crop_beyond: whether parts may reach beyond the frame, whose mirror image, unlabelled, fills
            the rest; `crop_area` may then be up to 4, and is drawn evenly in its logarithm.
        rare_share: share of the samples whose frame and part are drawn to show a rare class, see
            `RareClasses`.
        rare_until: step by which this share has faded to 0; 0: it stays.
        backbone_lr: share of the learning rate for the ImageNet-trained backbone.
        frozen_stages: first stages of the backbone that keep their weights, and the stem with
            them; 0: all learn. A step of `camseg-lite` is faster with 2, as these stages have the
            largest feature maps.
        decoder_lr: share of the learning rate for the mask decoder.
        all_hidden: share of steps that hide the whole mask, as inference does; the others hide a
            normal share.
        hidden_cut: how that share gets into 0.7..1, see `draws.Cut`.
        diffusion_batch_mul: noises from which each token is denoised in a step (published layout).
        gradient_checkpointing: blocks of transformer and head keep only their inputs and are
            recomputed in the backward pass.
        variation: ranges of `augment: vary`.
        disturb: disturbances of a share of the samples, for `crop` and `vary`.
        task: the loss of models with a mask autoencoder.

    Raises:
        ConfigError: a value is out of range.
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
    crop_aspect: tuple[float, float] = (1.1, 1.6)
    crop_beyond: bool = False
    rare_share: float = 0.0
    rare_until: int = 0
    backbone_lr: float = 0.3
    frozen_stages: int = 0
    decoder_lr: float = 0.5
    all_hidden: float = 0.8
    hidden_cut: Cut = "clamp"
    diffusion_batch_mul: int = field(default=1, metadata=renamed_from("repeats"))
    gradient_checkpointing: bool = field(default=False, metadata=renamed_from("recompute_blocks"))
    variation: Variation = field(default_factory=Variation)
    disturb: Disturb = field(default_factory=Disturb)
    task: TaskLoss = field(default_factory=TaskLoss)

    def __post_init__(self) -> None:
        check_samples(self.batch, self.crop, 1, self.crop_area, 4 if self.crop_beyond else 1)
        aspect = self.crop_aspect
        check_setting("crop_aspect", list(aspect), 0 < aspect[0] <= aspect[1], "two rising numbers")
        check_setting("both sides of crop", list(self.crop), min(self.crop) >= 32, ">= 32")
        repeats = self.diffusion_batch_mul
        check_setting("diffusion_batch_mul", repeats, repeats >= 1, ">= 1")
        rare, crops = self.rare_share, self.augment == "crop"
        must = "in [0, 1], and 0 unless augment is crop"
        check_setting("rare_share", rare, rare == 0 or (0 < rare <= 1 and crops), must)
        for name in ("rare_until", "backbone_lr", "decoder_lr"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        most = len(STAGES)
        check_setting(
            "frozen_stages", self.frozen_stages, 0 <= self.frozen_stages <= most, f"in 0..{most}"
        )
        check_setting("all_hidden", self.all_hidden, 0 <= self.all_hidden <= 1, "in [0, 1]")

    def check(self, model: CamSegConfig) -> None:
        """Check that this can train `model`.

        Raises:
            ConfigError: a setting does not fit the model, or the model has a light decoder, which
                is trained afterwards.
        """
        if any(side % model.size_multiple for side in self.crop):
            raise ConfigError(
                f"both sides of training.crop must be multiples of {model.size_multiple} for "
                f"{model.name}, got {list(self.crop)}"
            )
        if model.light_decoder is not None:
            raise ConfigError(
                f"{model.name} has a light_decoder, which is trained afterwards: leave it out, and "
                "add it with distill-decoder"
            )
        if model.image_encoder is None and self.frozen_stages:
            raise ConfigError(
                f"training.frozen_stages must be 0 for {model.name}, whose image encoder is frozen "
                f"as a whole, got {self.frozen_stages}"
            )
        if model.mask_autoencoder is not None and self.augment not in ("crop", "vary"):
            raise ConfigError(
                f"training.augment must be crop or vary for a model with a mask autoencoder, "
                f"got {self.augment}"
            )
        if model.mask_autoencoder is not None and self.diffusion_batch_mul > 1:
            raise ConfigError(
                f"training.diffusion_batch_mul must be 1 for {model.name}, got "
                f"{self.diffusion_batch_mul}: more is for the published layout"
            )

    def freeze(self, model: CamSeg) -> None:
        """Freeze what does not learn: codec and `frozen_stages`, but not a mask decoder.

        A mask decoder is part of the optimiser; the objective decides when it learns.
        """
        codec = model.mask_autoencoder or model.autoencoder
        assert codec is not None
        codec.eval().requires_grad_(False)
        if model.mask_autoencoder is not None:
            model.mask_autoencoder.decoder.requires_grad_(True)
        if model.image_encoder is not None:
            model.image_encoder.freeze(self.frozen_stages)


def train_transformer(
    config: TransformerTraining,
    model: CamSeg,
    frames: Frames,
    run: Run,
    validate: Callable[[nn.Module], Validation] | None = None,
    teacher: MeanTeacher | None = None,
) -> CamSeg:
    """Train `model` on `frames` and return the averaged model; a `teacher` labels some of them.

    Raises:
        ConfigError: a setting does not fit the model.
        CamSegError: see `train`.
    """
    config.check(model.config)
    loop = config.loop.in_steps(len(frames), config.batch)
    model.to(run.processes.device, memory_format=loop.memory_format)  # type: ignore[call-overload]
    config.freeze(model)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    stream = frame_stream(
        config, frames, loop.seed, teacher is None, noise_filter=model.config.noise_filter
    )

    def rate(name: str) -> float:
        if name.startswith("mask_autoencoder."):
            return config.decoder_lr
        is_backbone = name.startswith(("image_encoder.stem", "image_encoder.blocks"))
        return config.backbone_lr if is_backbone else 1.0

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        batch = batch if teacher is None else teacher.labelled(batch, stream.frame)
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
            model,
            batch,
            config.batch,
            weights,
            config.task,
            *shared,
            config.hidden_cut,
            frames.members(),
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


def frame_stream(
    config: TransformerTraining,
    frames: Frames,
    seed: int,
    changed: bool = True,
    noise_filter: bool = False,
) -> FrameStream:
    """Return the samples of a training.

    Unless `changed`, crops keep colours (for a teacher). `noise_filter` is the model's, see
    `Disturb.changes`.
    """
    if config.augment == "vary":
        views = varied_views(config.crop, config.variation)
    else:
        views = random_crops(
            config.crop, config.crop_area, changed, config.crop_aspect, config.crop_beyond
        )
    if changed:
        views = replace(views, changes=(*views.changes, *config.disturb.changes(noise_filter)))
    if config.rare_share == 0:
        return FrameStream(frames, views, seed)
    rare = RareClasses(frames, config.rare_share, seed, config.rare_until * config.batch)
    return FrameStream(frames, views, seed, rare.drawn)


def _latents_file(config: TransformerTraining, folder: Path) -> Path:
    height, width = config.crop
    return folder / f"latents-{height}x{width}-{config.augment}.safetensors"
