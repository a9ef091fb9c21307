"""Training of the published layout's autoencoder, on camera images and masks drawn as pictures."""

import functools
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from camseg_core.config.model import KLAutoencoderConfig
from camseg_core.data.augmentation import random_crops
from camseg_core.labels import Label, train_id_table
from camseg_core.model.kl_autoencoder import KLAutoencoder, draw
from camseg_core.model.mask_autoencoder import kl_divergence
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, FrameStream, posterior_noise, prepared
from camseg_core.training.settings import LoopConfig, check_samples, check_setting
from camseg_core.training.trainer import Run, train

_MEASURED = 64  # pictures on which the standard deviation of the latents is measured


@dataclass(frozen=True)
class PictureAutoencoderTraining:
    """How to train a picture autoencoder.

    Attributes:
        model: its sizes.
        loop: how it is optimised.
        batch: pictures in a step, over all processes.
        crop: height and width in pixels, multiples of the model's stride (16 as published).
        crop_area: smallest and largest share of a frame that a crop takes before it is scaled.
        kl_weight: of the posterior's divergence from a standard normal, in nats per number of the
            picture as in arXiv 2112.10752.

    Raises:
        ConfigError: a value is out of range.
    """

    model: KLAutoencoderConfig = field(default_factory=KLAutoencoderConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=20_000, lr=1e-4, warmup=500, ema_decay=0.999, weight_decay=0.0
        )
    )
    batch: int = 8
    crop: tuple[int, int] = (256, 352)
    crop_area: tuple[float, float] = (0.25, 1.0)
    kl_weight: float = 1e-6

    def __post_init__(self) -> None:
        check_samples(self.batch, self.crop, self.model.stride, self.crop_area)
        check_setting("kl_weight", self.kl_weight, self.kl_weight >= 0, ">= 0")


def train_picture_autoencoder(
    config: PictureAutoencoderTraining, frames: Frames, labels: tuple[Label, ...], run: Run
) -> KLAutoencoder:
    """Train on `frames` and return the averaged autoencoder, its latents scaled to unit variance.

    Every other sample is a camera image; the rest are masks in the published colours, of the class
    indices of `labels`. The loss is the mean absolute error of the picture plus `kl_weight` × the
    divergence of the posterior from a standard normal.

    The published autoencoder (arXiv 2112.10752) was also trained with a perceptual loss (LPIPS)
    and later an adversarial one, which keep the texture of photographs sharp. Both need further
    networks and are left out, so camera images come back smoother. Masks have no texture.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        CamSegError: see `train`.
    """
    loop = config.loop.in_steps(len(frames), config.batch)
    device, seed = run.processes.device, loop.seed
    torch.manual_seed(seed)
    model = KLAutoencoder(config.model).to(device)
    stream = FrameStream(frames, random_crops(config.crop, config.crop_area, color=False), seed)
    train_id = torch.from_numpy(train_id_table(labels))
    cells = (config.model.latent_channels, *(side // config.model.stride for side in config.crop))

    def pictures(numbers: range, batch: Batch) -> Tensor:
        images, indices = batch(numbers)
        is_image = torch.tensor([number % 2 == 0 for number in numbers]).view(-1, 1, 1, 1)
        return torch.where(is_image, images * 2 - 1, draw(train_id[indices.long()])).to(device)

    def loss(batch: Batch, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        numbers = run.processes.samples(step, config.batch, part, loop.grad_accum_steps)
        truth = pictures(numbers, batch)
        noise = posterior_noise(numbers, cells, seed).to(device)
        with loop.autocast(device):
            mean, log_variance = (moment.float() for moment in model.posterior(truth))
            latents = (mean + noise * (0.5 * log_variance).exp()) * config.model.latent_scale
            restored = model.decode(latents).float()
        error = F.l1_loss(restored, truth)
        divergence = kl_divergence(mean, log_variance) * (mean.numel() / truth.numel())
        figures = {"error": error.item(), "kl": divergence.item()}
        return error + config.kl_weight * divergence, figures

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        averaged = train(model, functools.partial(loss, batch), loop, run, config.batch)
    assert isinstance(averaged, KLAutoencoder)
    averaged.eval()
    with torch.no_grad():
        singles = (pictures(range(i, i + 1), stream.batch) for i in range(_MEASURED))
        encoded = torch.cat([averaged.encode(picture) for picture in singles])
    scale_latents(averaged, 1 / encoded.std().item())
    return averaged


@torch.no_grad()
def scale_latents(model: KLAutoencoder, factor: float) -> None:
    """Scale the latents that `model` encodes and decodes by `factor`, in place.

    The factor goes into the 1×1 convolutions on both sides of the latents, so that `latent_scale`
    stays the published one.
    """
    channels = model.config.latent_channels
    bias = model.quant_conv.bias
    assert bias is not None
    model.quant_conv.weight[:channels] *= factor
    bias[:channels] *= factor
    bias[channels:] += 2 * math.log(factor)  # the log-variance
    model.post_quant_conv.weight /= factor
