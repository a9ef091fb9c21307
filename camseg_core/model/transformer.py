"""The masked transformer: image tokens and mask tokens in, one condition per mask token out.

`ConditionRefiner` may turn these into one condition per cell of the diffusion head, with finer
image features.
Parameter names follow the published checkpoint. Sources: arXiv 2503.15617, after arXiv 2406.11838
(MAR) and arXiv 2111.06377 (masked autoencoders).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from camseg_core.config.backbone import Feature
from camseg_core.config.model import ConditionRefinerConfig, TransformerConfig


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.dropout = self.attention_dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        # each (B, heads, N, D/heads)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.attention_dropout if self.training else 0.0
        )
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return F.dropout(result, self.dropout, self.training)


class _Mlp(nn.Module):
    """Two layers, with dropout after both as in the published model."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        inner = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(inner), self.dropout, self.training)


class _Block(nn.Module):
    """A pre-norm transformer block over `(B, N, D)`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = _Attention(config.width, config.heads, config.dropout)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = _Mlp(config.width, config.mlp_ratio * config.width, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._pass, x, use_reentrant=False)
        return self._pass(x)

    def _pass(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class MaskedTransformer(nn.Module):
    """Tokens of an image and of a partly known mask to conditions for the mask's tokens.

    With L = h·w positions, `image` is `(B, L, image_channels)`, `mask` is `(B, L, mask_channels)`,
    both row-major, and `hidden` is `(B, L)` bool, True where a mask token is unknown; every row
    hides the same number.
    """

    def __init__(self, config: TransformerConfig, image_channels: int, mask_channels: int) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.halves = 2 if config.fusion == "sequence" else 1
        positions = (1, self.halves * rows * columns, config.width)
        self.z_proj1 = nn.Linear(image_channels, config.width)
        self.z_proj2 = nn.Linear(mask_channels, config.width)
        self.z_proj_ln = nn.LayerNorm(config.width, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(positions))
        self.encoder_blocks = nn.ModuleList(_Block(config) for _ in range(config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.decoder_embed = nn.Linear(config.width, config.width)
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(positions))
        self.decoder_blocks = nn.ModuleList(_Block(config) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(positions))
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if "pos_embed" in name or name == "mask_token":
                nn.init.normal_(parameter, std=0.02)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def positions(self, stored: Tensor, grid: tuple[int, int]) -> Tensor:
        """Interpolate learned positions to `grid`, `(1, halves·L, D)`; exact at their own size."""
        halves = stored.unflatten(1, (self.halves, *self.config.grid)).squeeze(0)
        maps = halves.permute(0, 3, 1, 2)  # (halves, D, rows, columns)
        resized = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1).reshape(1, -1, self.config.width)

    def forward(
        self,
        image: Tensor,
        grid: tuple[int, int],
        mask: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Return conditions `(B, L, D)` for the mask's tokens; without `mask`, all are hidden."""
        if self.config.fusion == "grid":
            return self._fused_conditions(image, grid, mask, hidden)
        return self.sequence_conditions(image, grid, mask, hidden)[:, image.shape[1] :]

    def encode_visible(
        self, image: Tensor, grid: tuple[int, int], mask: Tensor | None, hidden: Tensor | None
    ) -> Tensor:
        """Encode the image's tokens and the mask's visible ones: `(B, L + visible, D)`."""
        tokens = self.z_proj1(image)
        positions = self.positions(self.encoder_pos_embed_learned, grid)
        if mask is not None and hidden is not None:
            tokens = torch.cat([tokens, self.z_proj2(mask)], dim=1)
            tokens = _take(self.z_proj_ln(tokens + positions), ~_over_both(hidden))
        else:
            tokens = self.z_proj_ln(tokens + positions[:, : image.shape[1]])
        for block in self.encoder_blocks:
            tokens = block(tokens)
        return self.encoder_norm(tokens)

    def sequence_conditions(
        self,
        image: Tensor,
        grid: tuple[int, int],
        mask: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Return conditions of all tokens `(B, 2L, D)`, the image's first (published layout)."""
        embedded = self.decoder_embed(self.encode_visible(image, grid, mask, hidden))
        batch, length, width = image.shape[0], image.shape[1], self.config.width
        if hidden is None:
            tokens = torch.cat([embedded, self.mask_token.expand(batch, length, width)], dim=1)
        else:
            tokens = self.mask_token.expand(batch, 2 * length, width).to(embedded.dtype)
            tokens = tokens.masked_scatter(~_over_both(hidden).unsqueeze(2), embedded)
        return self.decode(tokens, grid)

    def _fused_conditions(
        self, image: Tensor, grid: tuple[int, int], mask: Tensor | None, hidden: Tensor | None
    ) -> Tensor:
        known = (
            self.mask_token
            if mask is None or hidden is None
            else torch.where(hidden.unsqueeze(2), self.mask_token, self.z_proj2(mask))
        )
        tokens = self.z_proj_ln(
            self.z_proj1(image) + known + self.positions(self.encoder_pos_embed_learned, grid)
        )
        for block in self.encoder_blocks:
            tokens = block(tokens)
        return self.decode(self.decoder_embed(self.encoder_norm(tokens)), grid)

    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode embedded tokens `(B, N, D)` to conditions, N = `halves`·L."""
        tokens = tokens + self.positions(self.decoder_pos_embed_learned, grid)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_norm(tokens) + self.positions(self.diffusion_pos_embed_learned, grid)


def _over_both(hidden: Tensor) -> Tensor:
    """Extend the mask's flags `(B, L)` to image and mask `(B, 2L)`; the image is never hidden."""
    return torch.cat([torch.zeros_like(hidden), hidden], dim=1)


def _take(tokens: Tensor, kept: Tensor) -> Tensor:
    """Select the tokens where `kept` `(B, N)` is True; every row keeps the same number."""
    return tokens[kept].reshape(tokens.shape[0], -1, tokens.shape[2])


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

    All are row-major; the features are those finer than a token, fine to coarse. A token of the
    small model spans 32×32 pixels, but a pole is three pixels wide. A convolution over finer
    features learns once for all places where in its token a pole stands; a token's vector would
    have to learn it anew for each. The result is still a condition: only the diffusion head makes
    latents.
    """

    def __init__(
        self, config: ConditionRefinerConfig, token_width: int, features: Sequence[Feature]
    ) -> None:
        super().__init__()
        *edge, fine, middle = (feature.channels for feature in features)
        self.from_token = nn.Linear(token_width, config.width)
        self.from_middle = _norm_conv(middle, config.width)
        self.mix_middle = _Separable(config.width)
        self.to_fine = nn.Conv2d(config.width, config.detail, 1)
        self.from_fine = _norm_conv(fine, config.detail)
        self.mix_fine = (_Separable if config.separable else _Residual)(config.detail)
        self.fold = _folded(config.detail, 2, config.width)
        self.mix_all = _Separable(config.width)
        self.has_edge = bool(config.edge)
        if self.has_edge:
            self.to_edge = nn.Conv2d(config.detail, config.edge, 1)
            self.from_edge = _norm_conv(edge[0], config.edge)
            self.mix_edge = _Separable(config.edge)
            self.fold_edge = _folded(config.edge, 4, config.width)

    def forward(self, conditions: Tensor, grid: tuple[int, int], *features: Tensor) -> Tensor:
        *edge, fine, middle = features
        coarse = self.from_token(conditions).transpose(1, 2).unflatten(2, grid)
        # (B, width, 2h, 2w)
        x = self.mix_middle(F.relu(_double(coarse) + self.from_middle(middle)))
        # (B, detail, 4h, 4w)
        detail = self.mix_fine(F.relu(_double(self.to_fine(x)) + self.from_fine(fine)))
        x = x + self.fold(detail)
        if self.has_edge:
            # (B, edge, 8h, 8w)
            edges = self.mix_edge(F.relu(_double(self.to_edge(detail)) + self.from_edge(edge[0])))
            x = x + self.fold_edge(edges)
        cells: Tensor = self.mix_all(F.relu(x))
        return cells.flatten(2).transpose(1, 2)


def _folded(inputs: int, patch: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.PixelUnshuffle(patch), _norm_conv(patch**2 * inputs, outputs))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
