"""A small model of the lite layout with random weights."""

import functools
from dataclasses import replace

import torch

from camseg_core.config.backbone import ImageEncoderConfig
from camseg_core.config.model import (
    ConditionRefinerConfig,
    DenoiserConfig,
    MaskAutoencoderConfig,
    TransformerConfig,
)
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.weights import CAMSEG_LITE

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)


@functools.cache
def tiny_lite(stride: int = 32) -> CamSeg:
    """As camseg-lite, but shallow and narrow; with tokens of 16×16 pixels as the first one had."""
    coarse = stride == 32
    config = replace(
        CAMSEG_LITE,
        name="tiny-lite",
        transformer=TransformerConfig(
            width=32,
            encoder_depth=1,
            decoder_depth=1,
            heads=2,
            grid=(2, 3) if coarse else (4, 6),
            fusion="grid",
            dropout=0.0,
        ),
        denoiser=DenoiserConfig(
            width=32, depth=1, prediction_type="sample", learned_variance=False
        ),
        refiner=ConditionRefinerConfig(16, 8, 8 * coarse, coarse),
        # one block a stage
        image_encoder=ImageEncoderConfig(32, 0.25, stride, finest=16 if coarse else 4),
        mask_autoencoder=MaskAutoencoderConfig(len(LABELS), 4, (8, 8), (8, 8), separable=coarse),
        patch_size=stride // 4,
        noise_filter=False,
        max_upscale=1.0,
    )
    torch.manual_seed(0)
    model = CamSeg(config, LABELS).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():  # a fresh denoiser is the zero function; give it something to say
        for parameter in model.denoiser.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def torch_segmenter(
    model: CamSeg,
    height: int,
    width: int,
    sampling: Sampling = Sampling(),  # noqa: B008
) -> Segmenter:
    """The model on torch, for frames of exactly this size, which must suit it."""
    config = replace(model.config, network_pixels=height * width)
    return Segmenter(config, model.labels, TorchEngine(model), sampling)
