"""The image backbone's shape: the only definition of its stages, channels and strides.

It is EfficientNet-Lite0 (arXiv 1905.11946 without squeeze-and-excitation);
`model/image_encoder.py` builds it. No torch here: the runtime reads these numbers as well.
"""

from dataclasses import dataclass
from typing import NamedTuple

from camseg_core.config.sizes import check_sizes
from camseg_core.errors import ModelError

STEM_CHANNELS = 32
"""Channels after the first convolution, at stride 2."""


class Stage(NamedTuple):
    """`blocks` inverted residual blocks, the first with `stride`."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


class Feature(NamedTuple):
    """A feature map: the output of stage number `stage`, its channels and its total stride."""

    stage: int
    channels: int
    stride: int


STAGES = (
    Stage(1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(1, kernel=3, stride=1, expansion=6, channels=320),
)

FEATURES = (Feature(1, 24, 4), Feature(2, 40, 8), Feature(4, 112, 16), Feature(6, 320, 32))
"""The last stage at each stride from 4 on, fine to coarse."""

SIZE_MULTIPLE = FEATURES[-1].stride
"""Images are multiples of the coarsest stride."""


def finer_features(stride: int) -> tuple[Feature, ...]:
    """Return the features finer than a token of this stride, which a condition refiner reads."""
    return tuple(feature for feature in FEATURES if feature.stride < stride)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Sizes of an `ImageEncoder`.

    Attributes:
        width: channels of a token, to which the backbone's features are fused.
        depth: the backbone's depth coefficient (arXiv 1905.11946): each stage has that share of
            EfficientNet-Lite0's blocks, rounded up.
        stride: pixels along each side of a token.
        finest: stride of the finest feature that tokens hold.
    """

    width: int = 192
    depth: float = 1.0
    stride: int = 16
    finest: int = 4

    def __post_init__(self) -> None:
        strides = [feature.stride for feature in FEATURES]
        for name in ("stride", "finest"):
            if getattr(self, name) not in strides:
                raise ModelError(
                    f"image_encoder.{name} must be one of {strides}, got {getattr(self, name)}"
                )
        if not 0 < self.depth <= 1:
            raise ModelError(f"image_encoder.depth must be in (0, 1], got {self.depth}")
        check_sizes(self)
