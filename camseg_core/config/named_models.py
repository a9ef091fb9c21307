"""The named models: the published one, and the project's own small one."""

from camseg_core.config.model import (
    CamSegConfig,
    ConditionRefinerConfig,
    DenoiserConfig,
    ImageEncoderConfig,
    KLAutoencoderConfig,
    MaskAutoencoderConfig,
    TransformerConfig,
)
from camseg_core.labels import CAMVID_11_TRAIN_IDS

CAM_SEG_BASE_768 = CamSegConfig(
    name="cam-seg-base-768",
    network_pixels=768 * 768,
    transformer=TransformerConfig(),
    denoiser=DenoiserConfig(),
    autoencoder=KLAutoencoderConfig(),
)
"""The published model, with 69.6 M parameters in the autoencoder and 217.1 M in the rest."""

CAMSEG_LITE = CamSegConfig(
    name="camseg-lite",
    network_pixels=480 * 360,
    transformer=TransformerConfig(
        width=192,
        encoder_depth=2,
        decoder_depth=2,
        heads=6,
        grid=(24, 30),
        fusion="grid",
        dropout=0.0,
    ),
    denoiser=DenoiserConfig(width=128, depth=3, prediction_type="sample", learned_variance=False),
    image_encoder=ImageEncoderConfig(width=192),
    mask_autoencoder=MaskAutoencoderConfig(classes=len(CAMVID_11_TRAIN_IDS)),
    refiner=ConditionRefinerConfig(),
    patch_size=4,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    temperature=0.5,
)
"""The project's small model; its image encoder expects ImageNet's normalisation."""
