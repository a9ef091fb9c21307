"""The diffusion head: an MLP that denoises each token by itself, given timestep and condition.

Parameter names follow the published checkpoint (`diffloss.net.*`). Source: arXiv 2406.11838,
section 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from camseg_core.config.model import DenoiserConfig


class _TimeEmbedding(nn.Module):
    """Timesteps `(N,)` to `(N, width)`: a 256-wide sinusoid through a two-layer MLP."""

    frequencies: Tensor

    def __init__(self, width: int, sinusoid: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(sinusoid, width), nn.SiLU(), nn.Linear(width, width))
        half = sinusoid // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10000) * torch.arange(half) / half), persistent=False
        )

    def forward(self, timesteps: Tensor) -> Tensor:
        angles = timesteps.to(self.frequencies.dtype).unsqueeze(1) * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class _ResidualBlock(nn.Module):
    """A residual MLP block with adaptive layer norm (adaLN-Zero, arXiv 2212.09748)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._pass, x, modulation, use_reentrant=False)
        return self._pass(x, modulation)

    def _pass(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(modulation).chunk(3, dim=-1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class _FinalLayer(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(modulation).chunk(2, dim=-1)
        normalised = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return self.linear(normalised * (1 + scale) + shift)


class Denoiser(nn.Module):
    """Predicts the clean tokens or the noise of noisy ones, each by itself.

    `forward` takes noisy tokens `(N, C)`, timesteps `(N,)` int64 and conditions `(N, D)`; timesteps
    `(1,)` serve all tokens. It returns the prediction `(N, C)`, with learned variance `(N, 2C)`:
    the prediction, then the variance.
    """

    def __init__(self, config: DenoiserConfig, token_channels: int, condition_width: int) -> None:
        super().__init__()
        self.config = config
        self.time_embed = _TimeEmbedding(config.width)
        self.cond_embed = nn.Linear(condition_width, config.width)
        self.input_proj = nn.Linear(token_channels, config.width)
        self.res_blocks = nn.ModuleList(_ResidualBlock(config.width) for _ in range(config.depth))
        self.final_layer = _FinalLayer(
            config.width, token_channels * (2 if config.learned_variance else 1)
        )
        self._start_as_identity()

    def _start_as_identity(self) -> None:
        """Zero the modulations and the output, so that training starts from identity blocks."""
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        modulation = self.time_embed(timesteps) + self.cond_embed(condition)
        h = self.input_proj(x)
        for block in self.res_blocks:
            h = block(h, modulation)
        return self.final_layer(h, modulation)
