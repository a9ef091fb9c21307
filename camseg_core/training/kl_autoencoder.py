"""Training of the picture autoencoder, the published layout's codec, on camera images and on masks drawn as colour pictures."""

import functools
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from camseg_core.config.model import KLAutoencoderConfig
from camseg_core.data.augmentation import random_crops
from camseg_core.errors import ConfigError
from camseg_core.labels import Label, train_id_table
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import kl_divergence
from camseg_core.model.picture_codec import draw
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, FrameStream, generator, prepared
from camseg_core.training.trainer import LoopConfig, Run, train

_MEASURED = 64  # pictures that the deviation of the latents is measured on


@dataclass(frozen=True)
class PictureAutoencoderTraining:
    """What to train and how; `crop` is (height, width) in pixels, multiples of the model's stride (16 as published).

    `crop_area` is the smallest and largest share of a frame that a crop takes before it is scaled to `crop`. `kl_weight` weighs the
    posterior's divergence from a standard normal, in nats per number of the picture as in arXiv 2112.10752.
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
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; it is at least 1")
        if min(self.crop) < 1 or any(side % self.model.stride for side in self.crop):
            raise ConfigError(
                f"crop is {list(self.crop)}; both sides are multiples of {self.model.stride}"
            )
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1 or self.kl_weight < 0:
            raise ConfigError(
                "crop_area is two rising shares above 0 and up to 1, and kl_weight 0 or more"
            )


def train_picture_autoencoder(
    config: PictureAutoencoderTraining, frames: Frames, labels: tuple[Label, ...], run: Run
) -> KLAutoencoder:
    """Train on `frames` and return the averaged autoencoder, its latents scaled to unit deviation.

    Every other sample is a camera image, the rest are masks in the published colours; `labels` tell what a class index of `frames`
    is. The loss is the mean absolute error of the picture and a light pull of the posterior to a standard normal. The published
    autoencoder (arXiv 2112.10752) was trained with a perceptual loss (LPIPS) and, later in training, an adversarial one as well, which
    keep the fine texture of photographs sharp. Both need further networks; neither is here, so camera images come back
    smoother. Masks have no texture, and are drawn in flat colours.

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
        noise = torch.stack(
            [
                torch.randn(cells, generator=generator(seed, "posterior", number))
                for number in numbers
            ]
        ).to(device)
        with loop.autocast(device):
            mean, log_variance = (moment.float() for moment in model.posterior(truth))
            latents = (mean + noise * (0.5 * log_variance).exp()) * config.model.latent_scale
            restored = model.decode(latents).float()
        error = F.l1_loss(restored, truth)
        divergence = kl_divergence(mean, log_variance) * (mean.numel() / truth.numel())
        return error + config.kl_weight * divergence, {
            "error": error.item(),
            "kl": divergence.item(),
        }

    with prepared(stream.batch, run.processes, config.batch, loop.grad_accum_steps) as batch:
        averaged = train(model, functools.partial(loss, batch), loop, run, config.batch)
    assert isinstance(averaged, KLAutoencoder)
    averaged.eval()
    with torch.no_grad():
        encoded = torch.cat(
            [
                averaged.encode(pictures(range(number, number + 1), stream.batch))
                for number in range(_MEASURED)
            ]
        )
    scale_latents(averaged, 1 / encoded.std().item())
    return averaged


@torch.no_grad()
def scale_latents(model: KLAutoencoder, factor: float) -> None:
    """Make what `model.encode` gives `factor` times as large, and `model.decode` expect that.

    The factor goes into the 1×1 convolutions on both sides of the latents, so that `latent_scale` can stay the published one.
    """
    channels = model.config.latent_channels
    bias = model.quant_conv.bias
    assert bias is not None
    model.quant_conv.weight[:channels] *= factor
    bias[:channels] *= factor
    bias[channels:] += 2 * math.log(factor)  # the log-variance
    model.post_quant_conv.weight /= factor
