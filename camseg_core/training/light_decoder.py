"""Training of a light decoder for a model of the published layout, with everything else of the model frozen."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from camseg_core.config.model import LightDecoderConfig
from camseg_core.data.augmentation import random_crops
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import index_table, train_id_table
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskDecoder
from camseg_core.training.callbacks import validation_picture
from camseg_core.training.frames import Frames, as_first
from camseg_core.training.loading import Batch, FrameStream, generator, prepared
from camseg_core.training.losses import pixel_loss
from camseg_core.training.mask_autoencoder import pad_to_multiple
from camseg_core.training.trainer import LoopConfig, Run, Validation, train


@dataclass(frozen=True)
class LightDecoderTraining:
    """What to train and how; `crop` is (height, width) in pixels, multiples of the autoencoder's stride (16 as published).

    `crop_area` is the smallest and largest share of a frame that a crop takes before it is scaled to `crop`. `teacher` says what the
    decoder is to name: what the `exact` decoder does, or the `labels`; see `train_light_decoder`. `disturbance` is the largest deviation
    of the noise that is added to latents, whose own is about 1; each sample draws its deviation between 0 and that. The loss is
    cross-entropy and `jaccard_weight` × soft Jaccard, so that thin classes count.
    """

    model: LightDecoderConfig = field(default_factory=LightDecoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=3000, lr=2e-3, ema_decay=0.99, weight_decay=1e-4)
    )
    batch: int = 8
    crop: tuple[int, int] = (256, 352)
    crop_area: tuple[float, float] = (0.15, 1.0)
    teacher: Literal["exact", "labels"] = "exact"
    disturbance: float = 0.5
    jaccard_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; it is at least 1")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ConfigError(
                f"crop_area is {list(self.crop_area)}; it is two rising shares above 0 and up to 1"
            )
        if min(self.disturbance, self.jaccard_weight) < 0:
            raise ConfigError("disturbance and jaccard_weight are 0 or more")
        if min(self.crop) < 1 or any(side % self.model.stride for side in self.crop):
            raise ConfigError(
                f"crop is {list(self.crop)}; both sides are multiples of {self.model.stride}"
            )


def with_light_decoder(model: CamSeg, light: LightDecoderConfig) -> CamSeg:
    """A copy of `model` with a fresh light decoder, drawn from torch's global generator; one that it had is left behind.

    Raises:
        ConfigError: the model decodes masks without pictures.
        ModelError: the light decoder does not fit the autoencoder's stride.
    """
    if model.autoencoder is None:
        raise ConfigError(
            f"{model.config.name} needs no light decoder: its mask autoencoder's own is one, and decodes no pictures"
        )
    result = CamSeg(replace(model.config, light_decoder=light), model.labels)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("light_decoder.")
    }
    result.load_state_dict(state, strict=False)
    return result.eval()


def train_light_decoder(
    config: LightDecoderTraining,
    model: CamSeg,
    frames: Frames,
    run: Run,
    validate: Callable[[nn.Module], Validation] | None = None,
) -> CamSeg:
    """Train the light decoder of `model` on the masks of `frames`; all else of the model is frozen.

    Every sample is a mask, drawn as a picture and encoded by the autoencoder: the posterior's mean, as in the training of the diffusion
    head, and noise on it, since what a diffusion head samples is never quite a latent of the autoencoder.

    By default the target is what the exact decoder makes of the latents before the noise. The light decoder stands in for that one, so
    it should say the same, also where both are wrong: scores of a model then hold for either, and every pixel has a target. With
    `teacher` labels it learns the mask that was drawn: that can undo errors of the autoencoder, and is cheaper, as no picture is decoded.
    Either way, whatever has no class processes the model's labels is a class of its own, unlabelled.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        CamSegError: see `train`.
    """
    device, seed, loop = (
        run.processes.device,
        config.loop.seed,
        config.loop.in_steps(len(frames), config.batch),
    )
    model.to(device).requires_grad_(False)
    decoder = model.light_decoder
    assert decoder is not None
    decoder.to(memory_format=loop.memory_format).train().requires_grad_(True)  # type: ignore[call-overload]
    stream = FrameStream(frames, random_crops(config.crop, config.crop_area, color=False), seed)
    train_ids = torch.from_numpy(train_id_table(model.labels))
    # the class behind the labels is unlabelled, and everything that is no class
    to_class = (
        torch.from_numpy(index_table(model.labels, other=len(model.labels))).to(device).long()
    )
    weights = torch.ones(len(model.labels) + 1, device=device)

    def loss(batch: Batch, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        numbers = run.processes.samples(step, config.batch, part, loop.grad_accum_steps)
        _, indices = batch(numbers)
        drawn = train_ids[indices.long()].to(device)
        with loop.autocast(device):
            with torch.no_grad():
                latents = model.encode_mask(drawn).float()
                target = (
                    model.decode_mask(latents, exact=True) if config.teacher == "exact" else drawn
                )
            logits = decoder(
                latents
                + _disturbance(numbers, latents.shape[1:], seed, config.disturbance).to(device)
            )
        parts = pixel_loss(logits, to_class[target.long()], weights, config.jaccard_weight)
        return parts.total, {"cross_entropy": parts.cross_entropy, "jaccard": parts.jaccard}

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        averaged = train(
            decoder, functools.partial(loss, batch), loop, run, config.batch, validate=validate
        )
    assert isinstance(averaged, MaskDecoder)
    model.light_decoder = averaged
    return model.eval()


def _disturbance(numbers: range, shape: torch.Size, seed: int, largest: float) -> Tensor:
    """Noise `(B, C, h, w)` that belongs to the samples' numbers, each of a deviation between 0 and `largest`."""
    generators = [generator(seed, "disturbance", number) for number in numbers]
    return torch.stack(
        [
            largest * torch.rand((), generator=g) * torch.randn(shape, generator=g)
            for g in generators
        ]
    )


@dataclass(frozen=True)
class DecoderScores:
    """Two decoders of the same latents: the share of pixels for which both name the same class, and each against the labels."""

    agreement: float
    light: Confusion
    exact: Confusion


class DecoderComparison:
    """The masks of whole frames through the frozen autoencoder, decoded exactly once and by a light decoder whenever asked."""

    def __init__(self, model: CamSeg, frames: Frames) -> None:
        self._model, self._frames = model, frames
        self._to_class = torch.from_numpy(index_table(model.labels, other=len(model.labels)))

    @functools.cached_property
    def _exact(self) -> list[tuple[Tensor, npt.NDArray[np.uint8]]]:
        """Latents `(1, C, h, w)` and classes `(H, W)` of each frame; on demand, for at the published size this takes a while."""
        train_ids = torch.from_numpy(train_id_table(self._model.labels))
        device = self._model.pixel_mean.device
        multiple = self._model.config.mask_codec.stride
        found = []
        with torch.no_grad():
            for _, indices in self._frames:
                whole = pad_to_multiple(indices[None, None].float(), multiple)[0].long()
                latents = self._model.encode_mask(train_ids[whole].to(device))
                classes = self._to_class[self._model.decode_mask(latents, exact=True).cpu().long()]
                found.append((latents, _cut(classes, indices.shape)))
        return found

    @torch.no_grad()
    def _light(self, decoder: nn.Module) -> list[npt.NDArray[np.uint8]]:
        return [
            _cut(decoder(latents).argmax(1).to(torch.uint8).cpu(), exact.shape)
            for latents, exact in self._exact
        ]

    def scores(self, decoder: nn.Module) -> DecoderScores:
        """How a light decoder in evaluation mode does."""
        classes = len(self._model.labels)
        by_light, by_exact, same = Confusion(classes), Confusion(classes), 0.0
        for (_, indices), (_, exact), light in zip(
            self._frames, self._exact, self._light(decoder), strict=True
        ):
            by_light.add(indices.numpy(), light)
            by_exact.add(indices.numpy(), exact)
            same += float((light == exact).mean())
        return DecoderScores(same / len(self._frames), by_light, by_exact)

    def validation(self, decoder: nn.Module) -> Validation:
        """Figures and a picture to watch a training with."""
        found = self.scores(decoder.eval())
        return {"agreement": found.agreement, "mIoU": found.light.mean_iou()}, self._picture(
            decoder
        )

    def _picture(self, decoder: nn.Module) -> npt.NDArray[np.uint8]:
        """Three frames in a row each: image, label, and what the light decoder makes of the label's latents."""
        every = max(1, len(self._frames) // 3)
        images, truths = zip(*self._frames.every(every), strict=True)
        found = [torch.from_numpy(classes) for classes in self._light(decoder)[::every]]
        return validation_picture(
            as_first(images).numpy(),
            as_first(truths).numpy(),
            as_first(found).numpy(),
            self._model.labels,
        )


def _cut(classes: Tensor, size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Classes `(1, H, W)` without what was padded, `(H, W)`."""
    height, width = size
    return classes[0, :height, :width].numpy()
