"""The image backbone's shape: the one place that says what its stages, channels and strides are.

It is EfficientNet-Lite0 (arXiv 1905.11946 without squeeze-and-excitation);
`model/image_encoder.py` builds it. No torch here: the runtime reads these numbers as well.
"""

from typing import NamedTuple

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
    """A feature map: what stage number `stage` puts out, with its channels and total stride."""

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
