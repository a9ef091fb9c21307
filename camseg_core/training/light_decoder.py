"""Training of a light mask decoder for the published layout; the rest of the model is frozen."""

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
from camseg_core.training.frames import Frames, validation_picture
from camseg_core.training.loading import Batch, FrameStream, generator, prepared
from camseg_core.training.losses import pixel_loss
from camseg_core.training.mask_autoencoder import pad_to_multiple
from camseg_core.training.settings import LoopConfig, check_samples, check_setting
from camseg_core.training.trainer import Run, Validation, train


@dataclass(frozen=True)
class LightDecoderTraining:
    """How to train a light decoder.

    Attributes:
        model: its sizes.
        loop: how it is optimised.
        batch: masks in a step, over all processes.
        crop: height and width in pixels, multiples of the autoencoder's stride (16 as published).
        crop_area: smallest and largest share of a frame that a crop takes before it is scaled.
        teacher: the target, what the `exact` decoder returns or the `labels`, see
            `train_light_decoder`.
        disturbance: largest standard deviation of the noise on the latents, whose own is about 1;
            each sample draws a standard deviation from 0 to that.
        jaccard_weight: of the soft Jaccard loss, beside the cross-entropy.

    Raises:
        ConfigError: a value is out of range.
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
        check_samples(self.batch, self.crop, self.model.stride, self.crop_area)
        for name in ("disturbance", "jaccard_weight"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")


def with_light_decoder(model: CamSeg, light: LightDecoderConfig) -> CamSeg:
    """Copy `model` with a new light decoder, initialised from torch's global generator.

    Raises:
        ConfigError: the model does not decode masks as pictures.
        ModelError: the light decoder does not fit the autoencoder's stride.
    """
    if model.autoencoder is None:
        raise ConfigError(
            f"{model.config.name} needs no light decoder: the decoder of its mask autoencoder is "
            "light"
        )
    # a logit_scale was fitted to the exact decoder's logits
    config = replace(model.config, light_decoder=light, logit_scale=1.0)
    result = CamSeg(config, model.labels)
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
    """Train the light decoder of `model` on the masks of `frames`; the rest of the model is frozen.

    A sample is a mask, drawn as a picture and encoded: the posterior's mean, as in the training of
    the diffusion head, plus noise, since what a diffusion head samples is never exactly a latent of
    the autoencoder.

    By default the target is what the exact decoder returns for the latents without the noise. The
    light decoder replaces it, so both should return the same, even where both are wrong: a model's
    scores then hold for either, and every pixel has a target. With `teacher` labels the target is
    the drawn mask, which can undo errors of the autoencoder and is cheaper, as no picture is
    decoded. In both cases, pixels outside the model's labels form one more class, unlabelled.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        CamSegError: see `train`.
    """
    loop = config.loop.in_steps(len(frames), config.batch)
    device, seed = run.processes.device, loop.seed
    model.to(device).requires_grad_(False)
    decoder = model.light_decoder
    assert decoder is not None
    decoder.to(memory_format=loop.memory_format).train().requires_grad_(True)  # type: ignore[call-overload]
    stream = FrameStream(frames, random_crops(config.crop, config.crop_area, color=False), seed)
    train_ids = torch.from_numpy(train_id_table(model.labels))
    to_class = _class_table(model).to(device).long()
    weights = torch.ones(len(model.labels) + 1, device=device)

    def loss(batch: Batch, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        numbers = run.processes.samples(step, config.batch, part, loop.grad_accum_steps)
        _, indices = batch(numbers)
        drawn = train_ids[indices.long()].to(device)
        with loop.autocast(device):
            with torch.no_grad():
                latents = model.encode_mask(drawn).float()
                exact = config.teacher == "exact"
                target = model.decode_mask(latents, exact=True) if exact else drawn
            noise = _disturbance(numbers, latents.shape[1:], seed, config.disturbance)
            logits = decoder(latents + noise.to(device))
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
    """Return noise `(B, C, h, w)` seeded by sample number, of standard deviations to `largest`."""

    def of_sample(drawn: torch.Generator) -> Tensor:
        deviation = largest * torch.rand((), generator=drawn)
        return deviation * torch.randn(shape, generator=drawn)

    return torch.stack([of_sample(generator(seed, "disturbance", number)) for number in numbers])


def _class_table(model: CamSeg) -> Tensor:
    """Return the class by train id, `(256,)` uint8; the one after the labels is unlabelled."""
    return torch.from_numpy(index_table(model.labels, other=len(model.labels)))


@dataclass(frozen=True)
class DecoderScores:
    """Share of pixels that both decoders give the same class, and each against the labels."""

    agreement: float
    light: Confusion
    exact: Confusion


class DecoderComparison:
    """Compares light decoders with the exact one, whose masks of whole frames are computed once."""

    def __init__(self, model: CamSeg, frames: Frames) -> None:
        self._model, self._frames = model, frames
        self._to_class = _class_table(model)

    @functools.cached_property
    def _exact(self) -> list[tuple[Tensor, npt.NDArray[np.uint8]]]:
        """Latents `(1, C, h, w)` and classes `(H, W)` of each frame; slow at the published size."""
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
        """Score a light decoder in evaluation mode."""
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
        """Return agreement, mIoU and a picture, for the callbacks of a training."""
        found = self.scores(decoder.eval())
        figures = {"agreement": found.agreement, "mIoU": found.light.labelled_mean_iou()}
        return figures, self._picture(decoder)

    def _picture(self, decoder: nn.Module) -> npt.NDArray[np.uint8]:
        """Draw three rows of image, label, and the label as decoded by the light decoder."""
        every = max(1, len(self._frames) // 3)
        images, truths = zip(*self._frames.every(every), strict=True)
        found = [torch.from_numpy(classes) for classes in self._light(decoder)[::every]]
        return validation_picture(images, truths, found, self._model.labels)


def _cut(classes: Tensor, size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return classes `(1, H, W)` without the padding, `(H, W)`."""
    height, width = size
    return classes[0, :height, :width].numpy()
