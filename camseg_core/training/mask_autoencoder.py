"""Training of the mask autoencoder (KL, VQ or FSQ), and measures of reconstruction and rate."""

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from camseg_core.config.model import MaskAutoencoderConfig
from camseg_core.data.augmentation import random_crops
from camseg_core.evaluation.metrics import Confusion, scores
from camseg_core.labels import Label
from camseg_core.model.mask_autoencoder import MaskAutoencoder, kl_divergence
from camseg_core.training.completion import complete_at_random, fill_unlabelled
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, FrameStream, generator, posterior_noise, prepared
from camseg_core.training.losses import pixel_loss
from camseg_core.training.settings import LoopConfig, check_samples, check_setting
from camseg_core.training.trainer import Run, train


@dataclass(frozen=True)
class AutoencoderTraining:
    """How to train a mask autoencoder.

    Attributes:
        model: its sizes.
        loop: how it is optimised.
        batch: masks in a step, over all processes.
        crop: height and width in pixels, multiples of the model's stride.
        kl_weight: of the latents' divergence from a standard normal (KL).
        commitment_weight: of their squared distance to the codebook (VQ; 0.25 as in arXiv
            1711.00937).

    Raises:
        ConfigError: a value is out of range.
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
        check_samples(self.batch, self.crop, self.model.stride)
        for name in ("kl_weight", "commitment_weight"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")


def train_autoencoder(
    config: AutoencoderTraining,
    frames: Frames,
    run: Run,
    start: MaskAutoencoder | None = None,
    kept: Sequence[int] = (),
) -> MaskAutoencoder:
    """Train on `frames` and return the averaged autoencoder with its latent statistics set.

    With `start`, only the decoder and the encoder's input weights of classes outside the indices
    `kept` are trained: the latents of the kept classes, and their statistics, keep their meaning.

    The loss is cross-entropy on the reconstructed classes plus the weighted KL or commitment loss;
    with FSQ it is cross-entropy alone. Each connected region of a group gets one of its classes at
    random, so that all classes are reconstructed.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        CamSegError: see `train`.
    """
    loop = config.loop.in_steps(len(frames), config.batch)
    device, seed = run.processes.device, loop.seed
    torch.manual_seed(seed)
    model = copy.deepcopy(start) if start is not None else MaskAutoencoder(config.model)
    model.to(device, memory_format=loop.memory_format)  # type: ignore[call-overload]
    if start is not None:
        _train_only_new_classes(model, kept)
    stream = FrameStream(frames, random_crops(config.crop, (0.15, 1.0), color=False), seed)
    weights = frames.class_weights(config.model.classes).to(device)
    members = frames.members()
    cells = (config.model.latent_channels, *(side // config.model.stride for side in config.crop))
    name, weight = (
        ("kl", config.kl_weight)
        if config.model.codebook_size is None
        else ("commitment", config.commitment_weight)
    )

    def loss(batch: Batch, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        numbers = run.processes.samples(step, config.batch, part, loop.grad_accum_steps)
        _, indices = batch(numbers)
        indices = complete_at_random(indices, members, numbers, seed)
        noise = posterior_noise(numbers, cells, seed)
        with loop.autocast(device):
            logits, penalty = model(fill_unlabelled(indices).to(device), noise.to(device))
        reconstruction = pixel_loss(logits, indices.to(device), weights, jaccard_weight=0.0)
        figures = {"ce": reconstruction.cross_entropy}
        if penalty.requires_grad:  # FSQ has none
            figures[name] = penalty.item()
        return reconstruction.total + weight * penalty, figures

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        averaged = train(model, functools.partial(loss, batch), loop, run, config.batch)
    assert isinstance(averaged, MaskAutoencoder)
    averaged.eval()
    if start is None:
        set_latent_statistics(averaged, frames)
    else:  # weight decay moved them
        tuned, learns = _read_by_encoder(averaged, kept)
        before, _ = _read_by_encoder(start, kept)
        tuned.data = torch.where(learns, tuned, before.to(device))
    return averaged


def _train_only_new_classes(model: MaskAutoencoder, kept: Sequence[int]) -> None:
    """Freeze encoder and codebook, except the encoder's input weights of classes not `kept`."""
    model.train()
    model.encoder.eval().requires_grad_(False)
    if model.quantizer is not None:
        model.quantizer.eval()  # in training, entries of a codebook move without a gradient
    weight, learns = _read_by_encoder(model, kept)
    weight.requires_grad_(True).register_hook(lambda gradient: gradient * learns)


def _read_by_encoder(model: MaskAutoencoder, kept: Sequence[int]) -> tuple[nn.Parameter, Tensor]:
    """Return the encoder's input weights, and where their class is not `kept` (bool)."""
    name, axis = next(each for each in model.class_tensors().items() if each[0].startswith("enc"))
    weight = model.get_parameter(name)
    learns = torch.ones(model.config.classes, dtype=torch.bool, device=weight.device)
    learns[list(kept)] = False
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return weight, learns.repeat_interleave(4).view(shape)


_STATISTICS_FRAMES = 400
"""Of how many frames, at most, latents are encoded for their mean and standard deviation."""


@torch.no_grad()
def set_latent_statistics(model: MaskAutoencoder, frames: Frames) -> None:
    """Store in `model` the mean and standard deviation of each latent channel over `frames`.

    Of more than `_STATISTICS_FRAMES`, frames at even distances stand for all.
    """
    spread = frames.every(math.ceil(len(frames) / _STATISTICS_FRAMES))
    channels = torch.cat(
        [model.latents(frame).transpose(0, 1).flatten(1) for frame in _whole_frames(model, spread)],
        dim=1,
    )
    model.latent_mean.copy_(channels.mean(1))
    # a small codebook may leave a channel constant
    model.latent_std.copy_(channels.std(1).clamp_min(1e-6))


@torch.no_grad()
def reconstructions(
    model: MaskAutoencoder, frames: Frames, disturbances: Sequence[float] = (0.0,)
) -> Iterator[tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.int64]]]]:
    """Yield class indices of whole `frames` and their reconstructions, `(H, W)` each.

    There is one for each of `disturbances`: standard deviations of seeded normal noise, added to
    the standardised latents.
    """
    for i, indices in enumerate(_completed(frames)):
        latents = model.encode(_whole(indices, model.latent_mean.device))
        noise = torch.randn(latents.shape, generator=generator("disturbance", i)).to(latents)
        height, width = indices.shape
        decoded = (model.decode(latents + each * noise).argmax(1) for each in disturbances)
        yield indices.numpy(), [each[0, :height, :width].cpu().numpy() for each in decoded]


def reconstruction_confusion(model: MaskAutoencoder, frames: Frames) -> Confusion:
    """Count the pairs of `reconstructions`, undisturbed."""
    confusion = Confusion(model.config.classes)
    for indices, (predicted,) in reconstructions(model, frames):
        confusion.add(indices, predicted)
    return confusion


def reconstruction_scores(
    model: MaskAutoencoder, frames: Frames, labels: tuple[Label, ...]
) -> dict[str, object]:
    """Return `metrics.scores` of masks of `frames` that were only encoded and decoded.

    Its `labelled_mean_iou` leaves out classes that no frame shows.
    """
    by_index = tuple(replace(label, id=index) for index, label in enumerate(labels))
    found = reconstruction_confusion(model, frames)
    return {**scores(found, by_index), "labelled_mean_iou": found.labelled_mean_iou()}


def _completed(frames: Frames) -> Iterator[Tensor]:
    """Yield class indices `(H, W)` of each frame, groups completed at random."""
    members = frames.members()
    for i, (_, indices) in enumerate(frames):
        yield complete_at_random(indices.unsqueeze(0), members, range(i, i + 1), seed=0)[0]


def _whole_frames(model: MaskAutoencoder, frames: Frames) -> Iterator[Tensor]:
    """Yield class indices `(1, H, W)` of each frame, filled and padded, on the model's device."""
    return (_whole(indices, model.latent_mean.device) for indices in _completed(frames))


def _whole(indices: Tensor, device: torch.device) -> Tensor:
    filled = fill_unlabelled(indices.unsqueeze(0))
    return pad_to_multiple(filled.unsqueeze(1).float(), 32).squeeze(1).long().to(device)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of `(B, C, H, W)` until both sides are multiples."""
    height, width = images.shape[2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return nn.functional.pad(images, padding, mode="replicate")


@dataclass(frozen=True)
class LatentRate:
    """The information in the latents of a data set.

    Attributes:
        bits: in a latent cell. With a codebook the logarithm of its size; for KL the mean
            divergence of the posterior from the standard normal (arXiv 1312.6114).
        used_share: with a codebook, the share of its entries that occur.
        perplexity: with a codebook, the number of entries that, used evenly, carry as much.
    """

    bits: float
    used_share: float | None = None
    perplexity: float | None = None


@torch.no_grad()
def latent_rate(model: MaskAutoencoder, frames: Frames) -> LatentRate:
    """Measure the latents of whole `frames`."""
    moments = [model.encoder(frame) for frame in _whole_frames(model, frames)]
    if model.quantizer is None:
        nats = [kl_divergence(mean, log_variance).item() for mean, log_variance in moments]
        return LatentRate(sum(nats) / len(nats) * model.config.latent_channels / math.log(2))
    size = model.quantizer.size
    entries = torch.cat([model.quantizer.entries(mean).flatten() for mean, _ in moments])
    share = torch.bincount(entries, minlength=size) / len(entries)
    return LatentRate(
        math.log2(size),
        (share > 0).float().mean().item(),
        torch.special.entr(share).sum().exp().item(),
    )
