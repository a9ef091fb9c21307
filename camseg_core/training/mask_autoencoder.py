"""Training of the mask autoencoder, KL or VQ: cross-entropy on reconstructed classes, and a light pull on the latents."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from camseg_core.config.model import MaskAutoencoderConfig
from camseg_core.data.augmentation import random_crops
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.model.mask_autoencoder import MaskAutoencoder, kl_divergence
from camseg_core.training.frames import Frames, fill_unlabelled
from camseg_core.training.loading import Batch, FrameStream, generator, prepared
from camseg_core.training.losses import pixel_loss
from camseg_core.training.trainer import LoopConfig, Run, train


@dataclass(frozen=True)
class AutoencoderTraining:
    """What to train and how; `crop` is (height, width) in pixels, multiples of 8.

    The pull on the latents is `kl_weight` × their divergence from a standard normal or, where the model has a codebook,
    `commitment_weight` × their squared distance to it (0.25 as in arXiv 1711.00937).
    """

    model: MaskAutoencoderConfig = field(default_factory=MaskAutoencoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=600, lr=2e-3, ema_decay=0.98, weight_decay=1e-4)
    )
    batch: int = 12
    crop: tuple[int, int] = (224, 304)
    kl_weight: float = 3e-3
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; it is at least 1")
        if min(self.crop) < 1 or any(side % self.model.stride for side in self.crop):
            raise ConfigError(
                f"crop is {list(self.crop)}; both sides are multiples of {self.model.stride}"
            )
        if min(self.kl_weight, self.commitment_weight) < 0:
            raise ConfigError("kl_weight and commitment_weight are 0 or more")


def train_autoencoder(config: AutoencoderTraining, frames: Frames, run: Run) -> MaskAutoencoder:
    """Train on `frames` and return the averaged autoencoder with its latent statistics set.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        CamSegError: see `train`.
    """
    device, seed, loop = (
        run.processes.device,
        config.loop.seed,
        config.loop.in_steps(len(frames), config.batch),
    )
    torch.manual_seed(seed)
    model = MaskAutoencoder(config.model).to(device, memory_format=loop.memory_format)  # type: ignore[call-overload]
    stream = FrameStream(frames, random_crops(config.crop, (0.15, 1.0), color=False), seed)
    weights = frames.class_weights(config.model.classes).to(device)
    cells = (config.model.latent_channels, *(side // config.model.stride for side in config.crop))
    name, pull = (
        ("kl", config.kl_weight)
        if config.model.codebook_size is None
        else ("commitment", config.commitment_weight)
    )

    def loss(batch: Batch, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        numbers = run.processes.samples(step, config.batch, part, loop.grad_accum_steps)
        _, indices = batch(numbers)
        noise = torch.stack(
            [
                torch.randn(cells, generator=generator(seed, "posterior", number))
                for number in numbers
            ]
        )
        with loop.autocast(device):
            logits, penalty = model(fill_unlabelled(indices).to(device), noise.to(device))
        reconstruction = pixel_loss(logits, indices.to(device), weights, jaccard_weight=0.0)
        return reconstruction.total + pull * penalty, {
            "ce": reconstruction.cross_entropy,
            name: penalty.item(),
        }

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        averaged = train(model, functools.partial(loss, batch), loop, run, config.batch)
    assert isinstance(averaged, MaskAutoencoder)
    set_latent_statistics(averaged.eval(), frames)
    return averaged


@torch.no_grad()
def set_latent_statistics(model: MaskAutoencoder, frames: Frames) -> None:
    """Measure the latents' mean and deviation per channel over all frames and store them in the model."""
    channels = torch.cat(
        [model.latents(frame).transpose(0, 1).flatten(1) for frame in _whole_frames(model, frames)],
        dim=1,
    )
    model.latent_mean.copy_(channels.mean(1))
    model.latent_std.copy_(
        channels.std(1).clamp_min(1e-6)
    )  # a small codebook may leave a channel constant


@torch.no_grad()
def reconstruction_confusion(
    model: MaskAutoencoder, frames: Frames, disturbance: float = 0.0
) -> Confusion:
    """How well masks survive encoding and decoding, over whole frames.

    `disturbance` is the deviation of seeded normal noise that is added to the normalised latents in between.
    """
    confusion = Confusion(model.config.classes)
    for i, (_, indices) in enumerate(frames):
        latents = model.encode(_whole(indices, model.latent_mean.device))
        noise = torch.randn(latents.shape, generator=generator("disturbance", i)).to(latents)
        predicted = model.decode(latents + disturbance * noise).argmax(1)
        height, width = indices.shape
        confusion.add(indices.numpy(), predicted[0, :height, :width].cpu().numpy())
    return confusion


def _whole_frames(model: MaskAutoencoder, frames: Frames) -> Iterator[Tensor]:
    """Class indices `(1, H, W)` of each frame without unlabelled pixels, padded to whole latent cells, on the model's device."""
    return (_whole(indices, model.latent_mean.device) for _, indices in frames)


def _whole(indices: Tensor, device: torch.device) -> Tensor:
    filled = fill_unlabelled(indices.unsqueeze(0))
    return pad_to_multiple(filled.unsqueeze(1).float(), 32).squeeze(1).long().to(device)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images `(B, C, H, W)` with the last row and column repeated until height and width are multiples of `multiple`."""
    height, width = images.shape[2:]
    return nn.functional.pad(
        images, (0, -width % multiple, 0, -height % multiple), mode="replicate"
    )


@dataclass(frozen=True)
class LatentRate:
    """What the latents of a data set carry.

    `bits` per latent cell: for VQ the logarithm of the codebook's size; for KL the mean divergence of the posterior from the
    standard normal, which is what sending a latent drawn from it costs (arXiv 1312.6114). For VQ also `used_share`, the share of
    the codebook's entries that occur, and `perplexity`, how many entries used evenly would carry as much as these carry.
    """

    bits: float
    used_share: float | None = None
    perplexity: float | None = None


@torch.no_grad()
def latent_rate(model: MaskAutoencoder, frames: Frames) -> LatentRate:
    """Measure the latents of whole frames."""
    moments = [model.encoder(frame) for frame in _whole_frames(model, frames)]
    if model.quantizer is None:
        nats = sum(
            kl_divergence(mean, log_variance).item() for mean, log_variance in moments
        ) / len(moments)
        return LatentRate(nats * model.config.latent_channels / math.log(2))
    size = len(model.quantizer.codebook)
    entries = torch.cat([model.quantizer.entries(mean).flatten() for mean, _ in moments])
    share = torch.bincount(entries, minlength=size) / len(entries)
    return LatentRate(
        math.log2(size),
        (share > 0).float().mean().item(),
        torch.special.entr(share).sum().exp().item(),
    )
