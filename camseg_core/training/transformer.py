"""Training of image encoder, transformer and diffusion head together, against the latents of a frozen mask autoencoder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.data.augment import Augment
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.model.loss import add_noise
from camseg_core.training.autoencoder import pad_to_multiple
from camseg_core.training.frames import Frames, fill_unlabelled
from camseg_core.training.loop import LoopConfig, train


@dataclass(frozen=True)
class TransformerTraining:
    """How to train; `crop` is (height, width) in pixels, multiples of 32.

    `crop_area` is the smallest and largest share of a frame that a crop takes before it is scaled to `crop`.
    `all_hidden` is the share of steps that hide the whole mask, as inference does; the others hide a share drawn as
    published (normal around 1, deviation 0.25, cut to 0.7..1). `pixel_weight` scales the cross-entropy of the one-step
    estimate decoded by the frozen mask decoder: it is what makes one step sharp.
    """

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1600, lr=1e-3, warmup=80, ema_decay=0.995))
    batch: int = 8
    crop: tuple[int, int] = (224, 320)
    crop_area: tuple[float, float] = (0.25, 1.0)
    backbone_lr: float = 0.3
    all_hidden: float = 0.8
    pixel_weight: float = 1.0


def train_transformer(
    config: TransformerTraining, model: CamSeg, frames: Frames, run: Path, on_save: Callable[[int, nn.Module], None] | None = None
) -> CamSeg:
    """Train `model` on `frames` with its mask autoencoder frozen, and return the averaged model."""
    codec = model.mask_autoencoder
    assert codec is not None
    codec.eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    augment = Augment(config.crop, scale=config.crop_area, ignore=UNLABELLED, color=True)
    weights = frames.class_weights(len(model.labels))
    last = len(model.schedule.timesteps) - 1

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        model.train()
        codec.eval()  # its batch norms keep the statistics that its latents were measured with
        images, indices = frames.batch(config.batch, augment)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(fill_unlabelled(indices))
        clean, grid = model.to_tokens(latents.float())
        hidden = _hidden(clean.shape[:2], config.all_hidden)
        with torch.autocast("cpu", torch.bfloat16):
            tokens, _ = model.image_tokens(images * 255)
            condition = model.transformer(tokens, grid, clean, hidden).flatten(0, 1)
            flat = clean.flatten(0, 1)
            noise = torch.randn_like(flat)
            steps = torch.randint(last + 1, flat.shape[:1])
            estimate = model.denoiser(add_noise(flat, noise, steps, model.schedule), steps, condition).float()
            first = model.denoiser(torch.randn_like(flat), torch.full_like(steps, last), condition).float()
            logits = codec.decode(model.to_latents(first.view_as(clean), grid))
        chosen = hidden.flatten()
        diffusion = F.mse_loss(estimate[chosen], flat[chosen])
        one_step = F.mse_loss(first[chosen], flat[chosen])
        pixels = F.cross_entropy(logits.float(), indices, weights, ignore_index=UNLABELLED)
        figures = {"diffusion": diffusion.item(), "one_step": one_step.item(), "pixels": pixels.item()}
        return diffusion + one_step + config.pixel_weight * pixels, figures

    averaged = train(model, loss, config.loop, run, lambda n: config.backbone_lr if "stem" in n or ".blocks." in n else 1.0, on_save)
    assert isinstance(averaged, CamSeg)
    return averaged.eval()


def _hidden(shape: torch.Size, all_hidden: float) -> Tensor:
    """Which mask tokens `(B, L)` are hidden, the same number in every row."""
    share = 1.0 if torch.rand(()) < all_hidden else float(torch.empty(1).normal_(1.0, 0.25).clamp(0.7, 1.0))
    order = torch.rand(shape).argsort(dim=1).argsort(dim=1)
    return order < max(1, round(share * shape[1]))


@torch.no_grad()
def evaluate_one_step(model: CamSeg, frames: Frames) -> Confusion:
    """Confusion over class indices of the one-step sampler on whole frames, in bf16."""
    to_index = torch.full((256,), UNLABELLED, dtype=torch.uint8)
    to_index[[label.id for label in model.labels]] = torch.arange(len(model.labels), dtype=torch.uint8)
    confusion = Confusion(len(model.labels))
    for image, indices in zip(frames.images, frames.indices, strict=True):
        height, width = indices.shape
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model.segment(pad_to_multiple(image.unsqueeze(0).float(), model.config.size_multiple))
        confusion.add(indices.numpy(), to_index[predicted[0, :height, :width].long()].numpy())
    return confusion
