"""Autoencoder for masks: class ids in, latents between (continuous, or quantised to a codebook), class logits out.

The published model stores a mask as a colour picture and decodes it with a photograph's decoder; this one reads ids
and writes logits, so its decoder is some hundred times cheaper and needs no nearest-colour search. Batch norm and ReLU, because
both fold into the convolutions when the decoder is exported.

Without a codebook it is a KL autoencoder (arXiv 1312.6114); with one, the same network is its VQ twin (arXiv 1711.00937), for the
comparison that CAM-Seg (arXiv 2503.15617) draws its continuous latents from.
"""

from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.model import MaskAutoencoderConfig


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
    """Class indices `(B, H, W)` to the posterior's mean and log-variance, each `(B, C, h, w)`, h = H / stride and w = W / stride."""

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        self.classes = config.classes
        first, *_, last = widths = config.encoder_widths
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(
                2
            ),  # one-hot pixels of a 2×2 block side by side: nothing is lost on the way to stride 2
            _conv_norm(4 * config.classes, first),
            _ResidualBlock(first),
        ]
        for finer, coarser in pairwise(widths):
            layers += [_conv_norm(finer, coarser, stride=2), _ResidualBlock(coarser)]
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)
        )

    def forward(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        shape = (indices.shape[0], self.classes, *indices.shape[1:])
        one_hot = torch.zeros(shape, device=indices.device).scatter_(
            1, indices.long().unsqueeze(1), 1.0
        )
        mean, log_variance = self.layers(one_hot).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class MaskDecoder(nn.Module):
    """Latents `(B, C, h, w)`, H = h × stride and W = w × stride, to class logits `(B, classes, H, W)`.

    `widths` are its channels and `blocks` its residual blocks at strides 2, 4 and so on, up to the latents'.
    """

    def __init__(
        self, latent_channels: int, classes: int, widths: tuple[int, ...], blocks: tuple[int, ...]
    ) -> None:
        super().__init__()
        first, *_, last = widths
        levels = list(zip(widths, blocks, strict=True))[::-1]  # coarse to fine
        layers: list[nn.Module] = [
            _conv_norm(latent_channels, last),
            *(_ResidualBlock(last) for _ in range(levels[0][1])),
        ]
        for (coarser, _), (finer, count) in pairwise(levels):
            layers += [
                _conv_norm(coarser, 4 * finer, kernel=1),
                nn.PixelShuffle(2),
                *(_ResidualBlock(finer) for _ in range(count)),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(first, 4 * classes, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layers(latents), 2)

    def blocks(self, latents: Tensor) -> Tensor:
        """The same logits with the pixels of 2×2 blocks side by side, row-major: `(B, classes, 4, H/2, W/2)`."""
        return self.layers(latents).unflatten(1, (-1, 4))


class MaskAutoencoder(nn.Module):
    """The encoder, the decoder, and the statistics that bring latents to zero mean and unit deviation per channel.

    A VQ one (`config.codebook_size`) quantises the mean that the encoder gives, leaves the log-variance unused, and takes
    whatever it decodes to the nearest entries of its codebook first.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MaskAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MaskEncoder(config)
        self.decoder = MaskDecoder(
            config.latent_channels, config.classes, config.decoder_widths, config.decoder_blocks
        )
        # made last: KL and VQ start from the same weights for the same seed
        self.quantizer = (
            VectorQuantizer(config.codebook_size, config.latent_channels)
            if config.codebook_size is not None
            else None
        )
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def forward(self, indices: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct class indices `(B, H, W)`, H and W multiples of the stride, as logits, with a penalty on the latents (scalar).

        KL: the latent is the posterior's mean and `noise` `(B, C, h, w)` times its deviation; the penalty is `kl_divergence`.
        VQ: `noise` is not used; the penalty is the squared distance to the codebook. In training mode the codebook learns.
        """
        mean, log_variance = self.encoder(indices)
        if self.quantizer is None:
            return self.decoder(mean + noise * (0.5 * log_variance).exp()), kl_divergence(
                mean, log_variance
            )
        quantised, distance = self.quantizer(mean)
        return self.decoder(quantised), distance

    def latents(self, indices: Tensor) -> Tensor:
        """Class indices `(B, H, W)` to latents `(B, C, h, w)` as the decoder reads them: the posterior's mean or codebook entries."""
        mean: Tensor = self.encoder(indices)[0]
        return mean if self.quantizer is None else self.quantizer(mean)[0]

    def encode(self, indices: Tensor) -> Tensor:
        """Class indices `(B, H, W)` to normalised latents `(B, C, h, w)`: `latents`, standardised per channel."""
        return (self.latents(indices) - self.latent_mean.view(1, -1, 1, 1)) / self.latent_std.view(
            1, -1, 1, 1
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, C, h, w)` to class logits `(B, classes, H, W)`."""
        return self.decoder(self.denormalised(latents))

    def denormalised(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, C, h, w)` as the decoder reads them, see `latents`."""
        scaled = latents * self.latent_std.view(1, -1, 1, 1) + self.latent_mean.view(1, -1, 1, 1)
        return scaled if self.quantizer is None else self.quantizer(scaled)[0]


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of the posterior to a standard normal in nats, averaged over all elements (scalar)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


class VectorQuantizer(nn.Module):
    """A codebook of `size` entries of `channels` numbers.

    It trains itself whenever it is called in training mode: an entry is the moving average of the vectors it stood for. All of its
    state is in buffers, and it draws from torch's global generator. Where several processes train together they all learn from
    the vectors of all, so that their codebooks stay one; their generators must agree, and their batches be of one size.
    """

    codebook: Tensor  # (size, channels)
    uses: Tensor  # (size,): moving average of the vectors per call that an entry stands for

    decay = 0.95  # of both moving averages
    dead_below = 0.05  # uses per call: an entry that is rare but right keeps its place
    revived_at = 1.0  # uses per call that a moved entry starts with: few, so that it soon goes to the middle of what it gets

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(size, channels))
        self.register_buffer("uses", torch.zeros(size))  # all dead: the first batch places them

    def entries(self, latents: Tensor) -> Tensor:
        """Latents `(B, C, h, w)` to the numbers `(B, h, w)` int64 of their nearest entries."""
        return self._nearest(_vectors(latents)).view(latents.shape[0], *latents.shape[2:])

    def look_up(self, entries: Tensor) -> Tensor:
        """Numbers of entries `(B, h, w)` to latents `(B, C, h, w)`."""
        return F.embedding(entries, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(B, C, h, w)` to their nearest entries, same shape, and the mean squared distance to them (scalar).

        The gradient of the first passes straight through to `latents`; that of the second pulls `latents` to the entries.
        """
        with (
            torch.no_grad(),
            torch.autocast(latents.device.type, enabled=False),
        ):  # bf16 cannot tell close entries apart
            vectors = _vectors(latents)
            nearest = self._nearest(vectors)
            quantised = self.look_up(nearest.view(latents.shape[0], *latents.shape[2:]))
            if self.training:
                self._learn(_of_all_processes(vectors), _of_all_processes(nearest))
        return quantised + (latents - latents.detach()), F.mse_loss(
            latents, quantised
        )  # what is added is zero, but has a gradient

    def _nearest(self, vectors: Tensor) -> Tensor:
        # the squared distance less the vector's own square, which is the same for all entries
        return torch.addmm(
            self.codebook.square().sum(1), vectors, self.codebook.T, alpha=-2
        ).argmin(1)

    def _learn(self, vectors: Tensor, entries: Tensor) -> None:
        error = (vectors - self.codebook[entries]).square().sum(1)
        counts = torch.zeros_like(self.uses).index_add_(0, entries, torch.ones_like(error))
        sums = torch.zeros_like(self.codebook).index_add_(0, entries, vectors)
        self.uses.lerp_(counts, 1 - self.decay)
        step = (1 - self.decay) / self.uses.clamp_min(1e-9)
        self.codebook.add_(step.unsqueeze(1) * (sums - counts.unsqueeze(1) * self.codebook))

        dead = (self.uses < self.dead_below).nonzero().squeeze(1)[: len(vectors)]
        if len(dead):
            # a network that has diverged is for the training loop to report
            chosen = torch.multinomial(error.nan_to_num(posinf=0.0) + 1e-9, len(dead))
            self.codebook[dead] = vectors[chosen]
            self.uses[dead] = self.revived_at


def _vectors(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2).float()


def _of_all_processes(rows: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
