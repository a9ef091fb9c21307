"""Refines conditions per token to conditions per latent cell, with the image's finer features.

A token of the small model spans 16×16 pixels, but a pole is three pixels wide. A convolution over
finer features learns once for all places where in its token a pole stands; a token's vector would
have to learn it anew for each. The result is still a condition: only the diffusion head makes
latents.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.backbone import FINE_FEATURES
from camseg_core.config.model import ConditionRefinerConfig


def _norm_conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Separable(nn.Module):
    """A depthwise 3×3 and a pointwise convolution beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = _norm_conv(width, width, 3, groups=width)
        self.pointwise = _norm_conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.pointwise(F.relu(self.depthwise(x))))


class _Residual(nn.Module):
    """Two dense 3×3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _norm_conv(width, width, 3)
        self.second = _norm_conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConditionRefiner(nn.Module):
    """Token conditions `(B, h·w, D)` and finer features to cell conditions `(B, 2h·2w, width)`.

    All are row-major; the features are those of `backbone.FINE_FEATURES`.
    """

    def __init__(self, config: ConditionRefinerConfig, token_width: int) -> None:
        super().__init__()
        fine, middle = (feature.channels for feature in FINE_FEATURES)
        self.from_token = nn.Linear(token_width, config.width)
        self.from_middle = _norm_conv(middle, config.width)
        self.mix_middle = _Separable(config.width)
        self.to_fine = nn.Conv2d(config.width, config.detail, 1)
        self.from_fine = _norm_conv(fine, config.detail)
        self.mix_fine = _Residual(config.detail)
        self.fold = nn.Sequential(nn.PixelUnshuffle(2), _norm_conv(4 * config.detail, config.width))
        self.mix_all = _Separable(config.width)

    def forward(
        self, conditions: Tensor, grid: tuple[int, int], fine: Tensor, middle: Tensor
    ) -> Tensor:
        coarse = self.from_token(conditions).transpose(1, 2).unflatten(2, grid)
        # (B, width, 2h, 2w)
        x = self.mix_middle(F.relu(_double(coarse) + self.from_middle(middle)))
        # (B, detail, 4h, 4w)
        detail = self.mix_fine(F.relu(_double(self.to_fine(x)) + self.from_fine(fine)))
        cells: Tensor = self.mix_all(F.relu(x + self.fold(detail)))
        return cells.flatten(2).transpose(1, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
