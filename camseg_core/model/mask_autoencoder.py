"""KL autoencoder for masks: class ids in, continuous latents between, class logits out.

The published model stores a mask as a colour picture and decodes it with a photograph's decoder; this one reads ids
and writes logits, so its decoder is some hundred times cheaper and needs no nearest-colour search. Batch norm and ReLU, because
both fold into the convolutions when the decoder is exported.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.model.config import MaskAutoencoderConfig


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


class MaskEncoder(nn.Module):
    """Class indices `(B, H, W)` to the posterior's mean and log-variance, each `(B, C, H/8, W/8)`."""

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        self.classes = config.classes
        w2, w4, w8 = config.encoder_widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),  # one-hot pixels of a 2×2 block side by side: nothing is lost on the way to stride 2
            _conv_norm(4 * config.classes, w2),
            _ResidualBlock(w2),
            _conv_norm(w2, w4, stride=2),
            _ResidualBlock(w4),
            _conv_norm(w4, w8, stride=2),
            _ResidualBlock(w8),
            nn.Conv2d(w8, 2 * config.latent_channels, 3, padding=1),
        )

    def forward(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        one_hot = F.one_hot(indices.long(), self.classes).permute(0, 3, 1, 2).float()
        mean, log_variance = self.layers(one_hot).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class MaskDecoder(nn.Module):
    """Latents `(B, C, h, w)` to class logits `(B, classes, 8h, 8w)`."""

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        w2, w4, w8 = config.decoder_widths
        self.layers = nn.Sequential(
            _conv_norm(config.latent_channels, w8),
            _ResidualBlock(w8),
            _ResidualBlock(w8),
            _conv_norm(w8, 4 * w4, kernel=1),
            nn.PixelShuffle(2),
            _ResidualBlock(w4),
            _conv_norm(w4, 4 * w2, kernel=1),
            nn.PixelShuffle(2),
            _ResidualBlock(w2),
            nn.Conv2d(w2, 4 * config.classes, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


class MaskAutoencoder(nn.Module):
    """The encoder, the decoder, and the statistics that bring latents to zero mean and unit deviation per channel."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MaskEncoder(config)
        self.decoder = MaskDecoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def forward(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct: class indices `(B, H, W)`, H and W multiples of 8, to (logits, mean, log-variance), sampling the latent."""
        mean, log_variance = self.encoder(indices)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return self.decoder(mean + noise * (0.5 * log_variance).exp()), mean, log_variance

    def encode(self, indices: Tensor) -> Tensor:
        """Class indices `(B, H, W)` to normalised latents `(B, C, H/8, W/8)`: the posterior's mean, standardised per channel."""
        mean, _ = self.encoder(indices)
        return (mean - self.latent_mean.view(1, -1, 1, 1)) / self.latent_std.view(1, -1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, C, h, w)` to class logits `(B, classes, 8h, 8w)`."""
        return self.decoder(latents * self.latent_std.view(1, -1, 1, 1) + self.latent_mean.view(1, -1, 1, 1))


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of the posterior to a standard normal in nats, averaged over all elements (scalar)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
