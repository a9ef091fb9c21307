"""The published KL autoencoder (latent-diffusion layout), for camera images and for masks drawn as
colour pictures.

Parameter names follow the published checkpoint, so that its weights load by name. Source: arXiv
2112.10752 (layout), arXiv 2503.15617 (stride 16, 16 channels).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.model import KLAutoencoderConfig
from camseg_core.labels import CITYSCAPES, PUBLISHED_PALETTE, UNLABELLED


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class ResnetBlock(nn.Module):
    """Norm, SiLU and a 3×3 convolution, twice, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttentionBlock(nn.Module):
    """Single-head attention over all positions, added to its input `(B, C, H, W)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # each (B, 1, HW, C)
        q, k, v = (
            layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v)
        )
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        return x + self.proj_out(attended.unflatten(2, x.shape[2:]))


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    """One resolution: residual blocks, with attention if asked, then down, up or no scaling."""

    def __init__(self, widths: list[int], attention: bool, scale: str) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.block = nn.ModuleList(ResnetBlock(inputs, outputs) for inputs, outputs in pairs)
        self.attn = nn.ModuleList(
            AttentionBlock(outputs) if attention else nn.Identity() for _, outputs in pairs
        )
        self.downsample = _Downsample(widths[-1]) if scale == "down" else nn.Identity()
        self.upsample = _Upsample(widths[-1]) if scale == "up" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.block, self.attn, strict=True):
            x = attention(block(x))
        return self.upsample(self.downsample(x))


class _Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width)
        self.attn_1 = AttentionBlock(width)
        self.block_2 = ResnetBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures `(B, 3, H, W)` in −1..1 to moments `(B, 2C, H/stride, W/stride)`."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base_width * m for m in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.base_width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = widths[level - 1] if level else config.base_width
            deepest = level == last
            self.down.append(
                _Level(
                    [inputs] + [width] * config.blocks_per_level,
                    deepest,
                    "none" if deepest else "down",
                )
            )
        self.mid = _Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        h = self.conv_in(pictures)
        for stage in self.down:
            h = stage(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latents `(B, C, h, w)` to pictures `(B, 3, h·stride, w·stride)` in about −1..1.

    Each level has one block more than the encoder's.
    """

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base_width * m for m in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList()  # numbered from full resolution, run from the deepest
        for level, width in enumerate(widths):
            inputs = widths[min(level + 1, last)]
            self.up.append(
                _Level(
                    [inputs] + [width] * (config.blocks_per_level + 1),
                    level == last,
                    "up" if level else "none",
                )
            )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latents))
        for stage in reversed(self.up):
            h = stage(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class KLAutoencoder(nn.Module):
    """The KL autoencoder: pictures, H and W multiples of the stride, to latents and back."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each `(B, C, h, w)`, of pictures `(B, 3, H, W)` in −1..1.

        The log-variance is clamped to −30..20.
        """
        mean, log_variance = self.quant_conv(self.encoder(pictures)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode pictures `(B, 3, H, W)` in −1..1 to scaled latents `(B, C, h, w)`.

        They are a draw from the posterior with `generator`, else its mean.
        """
        mean, log_variance = self.posterior(pictures)
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            mean = mean + noise * (0.5 * log_variance).exp()
        return mean * self.config.latent_scale

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents `(B, C, h, w)` to pictures `(B, 3, h·stride, w·stride)`."""
        return self.decoder(self.post_quant_conv(latents / self.config.latent_scale))


def _palette(device: torch.device) -> Tensor:
    return torch.tensor(PUBLISHED_PALETTE, dtype=torch.float32, device=device) / 255


def draw(train_ids: Tensor) -> Tensor:
    """Draw train ids `(B, H, W)` as pictures `(B, 3, H, W)` in −1..1; unknown ids as 255."""
    ids = train_ids.long()
    index = torch.where(ids < len(CITYSCAPES), ids + 1, 0)
    return (_palette(train_ids.device)[index].permute(0, 3, 1, 2) - 0.5) / 0.5


def nearest_class(pictures: Tensor) -> Tensor:
    """Return the train ids `(B, H, W)` uint8 of the palette colours nearest (L2) to pictures.

    Pictures are `(B, 3, H, W)` in −1..1. One colour at a time, so that memory stays at a few
    planes.
    """
    rgb = pictures.float() * 0.5 + 0.5
    palette = torch.round(_palette(pictures.device), decimals=4)
    best = torch.full_like(rgb[:, 0], torch.inf)
    index = torch.zeros_like(best, dtype=torch.uint8)
    for i, color in enumerate(palette):
        distance = (rgb - color.view(1, 3, 1, 1)).square().sum(1)
        nearer = distance < best
        best = torch.where(nearer, distance, best)
        index = torch.where(nearer, i, index)
    return torch.where(index == 0, UNLABELLED, index - 1).to(torch.uint8)
