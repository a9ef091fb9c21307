"""Training of the mask autoencoder: cross-entropy on reconstructed classes and a light pull of the latents to a normal."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.data.augment import Augment
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import UNLABELLED
from camseg_core.model.config import MaskAutoencoderConfig
from camseg_core.model.mask_autoencoder import MaskAutoencoder, kl_divergence
from camseg_core.training.frames import Frames, fill_unlabelled
from camseg_core.training.loop import LoopConfig, train


@dataclass(frozen=True)
class AutoencoderTraining:
    """What to train and how; `crop` is (height, width) in pixels, multiples of 8."""

    model: MaskAutoencoderConfig = field(default_factory=MaskAutoencoderConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1500, lr=2e-3, ema_decay=0.99, weight_decay=1e-4))
    batch: int = 12
    crop: tuple[int, int] = (224, 304)
    kl_weight: float = 3e-3


def train_autoencoder(config: AutoencoderTraining, frames: Frames, run: Path) -> MaskAutoencoder:
    """Train on `frames` and return the averaged autoencoder with its latent statistics set."""
    torch.manual_seed(config.loop.seed)
    model = MaskAutoencoder(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    augment = Augment(config.crop, scale=(0.15, 1.0), ignore=UNLABELLED, color=False)
    weights = frames.class_weights(config.model.classes)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        _, indices = frames.batch(config.batch, augment)
        with torch.autocast("cpu", torch.bfloat16):
            logits, mean, log_variance = model(fill_unlabelled(indices))
        reconstruction = F.cross_entropy(logits.float(), indices, weights, ignore_index=UNLABELLED)
        divergence = kl_divergence(mean, log_variance)
        return reconstruction + config.kl_weight * divergence, {"ce": reconstruction.item(), "kl": divergence.item()}

    averaged = train(model, loss, config.loop, run)
    assert isinstance(averaged, MaskAutoencoder)
    set_latent_statistics(averaged.eval(), frames)
    return averaged


@torch.no_grad()
def set_latent_statistics(model: MaskAutoencoder, frames: Frames) -> None:
    """Measure the latents' mean and deviation per channel over all frames and store them in the model."""
    means = [model.encoder(_whole_frame(frames, i))[0] for i in range(len(frames))]
    channels = torch.cat([mean.permute(1, 0, 2, 3).flatten(1) for mean in means], dim=1)
    model.latent_mean.copy_(channels.mean(1))
    model.latent_std.copy_(channels.std(1))


@torch.no_grad()
def reconstruction_confusion(model: MaskAutoencoder, frames: Frames) -> Confusion:
    """How well masks survive encoding and decoding, over whole frames."""
    confusion = Confusion(model.config.classes)
    for i in range(len(frames)):
        height, width = frames.indices.shape[1:]
        logits = model.decode(model.encode(_whole_frame(frames, i)))
        confusion.add(frames.indices[i].numpy(), logits.argmax(1)[0, :height, :width].numpy())
    return confusion


def _whole_frame(frames: Frames, i: int) -> Tensor:
    """Class indices `(1, H, W)` of frame i, without unlabelled pixels, padded to whole latent cells."""
    filled = fill_unlabelled(frames.indices[i : i + 1])
    return pad_to_multiple(filled.unsqueeze(1).float(), 32).squeeze(1).long()


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images `(B, C, H, W)` with the last row and column repeated until height and width are multiples of `multiple`."""
    height, width = images.shape[2:]
    return nn.functional.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
