"""Mask autoencoder: class indices in, latents between, class logits out.

The published model stores a mask as a colour picture and decodes it with a photograph's decoder.
This one reads indices and writes logits: its decoder is about a hundred times cheaper and needs no
nearest-colour search. Batch norm and ReLU fold into the convolutions at export.

Without a codebook it is a KL autoencoder (arXiv 1312.6114). With one it is that network's VQ twin
(arXiv 1711.00937) or its FSQ twin (arXiv 2309.15505), for comparison, as CAM-Seg (arXiv 2503.15617)
argues for continuous latents.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.model import MaskAutoencoderConfig
from camseg_core.model.quantizers import FiniteScalarQuantizer, VectorQuantizer


def _conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(width, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(self.conv1(x))))


class _SeparableBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.pointwise(self.depthwise(x))))


class _OneHot(nn.Module):
    """Class indices `(B, H, W)` to stride 2 without loss, `(B, 4·classes, H/2, W/2)`.

    That is the one-hot image with its blocks of 2×2 pixels in the channels, which it is quicker to
    write than to make from the image.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, indices: Tensor) -> Tensor:
        device = indices.device
        blocks = F.pixel_unshuffle(indices.unsqueeze(1), 2).permute(0, 2, 3, 1).long()
        narrow = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if narrow else torch.get_default_dtype()
        one_hot = torch.zeros((*blocks.shape[:3], 4 * self.classes), device=device, dtype=dtype)
        one_hot.scatter_(3, 4 * blocks + torch.arange(4, device=device), 1.0)
        return one_hot.permute(0, 3, 1, 2)


class MaskEncoder(nn.Module):
    """Class indices `(B, H, W)` to the posterior's mean and log-variance, each `(B, C, h, w)`."""

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        first, *_, last = widths = config.encoder_widths
        layers: list[nn.Module] = [
            _OneHot(config.classes),
            _conv_norm(4 * config.classes, first),
            _ResidualBlock(first),
        ]
        for finer, coarser in pairwise(widths):
            layers += [_conv_norm(finer, coarser, stride=2), _ResidualBlock(coarser)]
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)
        )

    def forward(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(indices).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class MaskDecoder(nn.Module):
    """Latents `(B, C, h, w)`, H = h × stride and W = w × stride, to class logits `(B, classes, H,
    W)`.

    `widths` are its channels and `blocks` its residual blocks at strides 2, 4 and so on, up to the
    latents'. `separable` blocks are depthwise and pointwise, and the last layer is pointwise.
    """

    def __init__(
        self,
        latent_channels: int,
        classes: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        separable: bool = False,
    ) -> None:
        super().__init__()
        first, *_, last = widths
        block = _SeparableBlock if separable else _ResidualBlock
        levels = list(zip(widths, blocks, strict=True))[::-1]  # coarse to fine
        layers: list[nn.Module] = [
            _conv_norm(latent_channels, last),
            *(block(last) for _ in range(levels[0][1])),
        ]
        for (coarser, _), (finer, count) in pairwise(levels):
            layers += [
                _conv_norm(coarser, 4 * finer, kernel=1),
                nn.PixelShuffle(2),
                *(block(finer) for _ in range(count)),
            ]
        kernel = 1 if separable else 3
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(first, 4 * classes, kernel, padding=kernel // 2)
        )

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layers(latents), 2)

    def blocks(self, latents: Tensor) -> Tensor:
        """Return the logits, 2×2 pixels side by side: `(B, classes, 4, H/2, W/2)`."""
        return self.layers(latents).unflatten(1, (-1, 4))


class MaskAutoencoder(nn.Module):
    """Encoder, decoder, and the statistics that standardise latents per channel.

    With a codebook (`config.codebook_size`, VQ or FSQ) the mean is quantised, the log-variance is
    not used, and latents are moved to the nearest entries before they are decoded.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MaskEncoder(config)
        self.decoder = MaskDecoder(
            config.latent_channels,
            config.classes,
            config.decoder_widths,
            config.decoder_blocks,
            config.separable,
        )
        # made last: KL and VQ start from the same weights for the same seed
        self.quantizer: VectorQuantizer | FiniteScalarQuantizer | None = None
        if isinstance(config.codebook_size, tuple):
            self.quantizer = FiniteScalarQuantizer(config.codebook_size)
        elif config.codebook_size is not None:
            self.quantizer = VectorQuantizer(config.codebook_size, config.latent_channels)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def class_tensors(self) -> dict[str, int]:
        """Return the axis of the classes by name of the tensors that have one.

        Along it there are four numbers for each class, those of 2×2 pixels.
        """
        last = f"decoder.layers.{len(self.decoder.layers) - 1}"
        return {"encoder.layers.1.0.weight": 1, f"{last}.weight": 0, f"{last}.bias": 0}

    def forward(self, indices: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct class indices `(B, H, W)` as logits; also a penalty on the latents (scalar).

        H and W are multiples of the stride. KL: the latent is the mean plus `noise` `(B, C, h, w)`
        times the standard deviation; the penalty is `kl_divergence`. VQ: `noise` is not used; the
        penalty is the squared distance to the codebook, which learns in training mode. FSQ: neither
        noise nor penalty, which is 0.
        """
        mean, log_variance = self.encoder(indices)
        if self.quantizer is None:
            latents = mean + noise * (0.5 * log_variance).exp()
            return self.decoder(latents), kl_divergence(mean, log_variance)
        quantised, distance = self.quantizer(mean)
        return self.decoder(quantised), distance

    def latents(self, indices: Tensor) -> Tensor:
        """Encode class indices `(B, H, W)` to latents `(B, C, h, w)` float32, not standardised.

        They are what the decoder reads: the posterior's mean, or codebook entries.
        """
        mean: Tensor = self.encoder(indices)[0]
        return mean if self.quantizer is None else self.quantizer(mean)[0]

    def encode(self, indices: Tensor) -> Tensor:
        """Encode class indices `(B, H, W)` to latents `(B, C, h, w)` standardised per channel."""
        mean, std = self.latent_mean.view(1, -1, 1, 1), self.latent_std.view(1, -1, 1, 1)
        return (self.latents(indices) - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Decode standardised latents `(B, C, h, w)` to class logits `(B, classes, H, W)`."""
        return self.decoder(self.denormalised(latents))

    def denormalised(self, latents: Tensor) -> Tensor:
        """Return standardised latents `(B, C, h, w)` as the decoder reads them, see `latents`."""
        scaled = latents * self.latent_std.view(1, -1, 1, 1) + self.latent_mean.view(1, -1, 1, 1)
        return scaled if self.quantizer is None else self.quantizer.nearest(scaled)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL of the posterior to a standard normal, in nats, as a mean over all elements."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
