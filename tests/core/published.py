"""A tiny configuration of the published layout, and a light decoder for it."""

from camseg_core.config.model import (
    CamSegConfig,
    DenoiserConfig,
    KLAutoencoderConfig,
    LightDecoderConfig,
    TransformerConfig,
)

TINY = CamSegConfig(
    name="tiny-published",
    network_pixels=48 * 64,
    transformer=TransformerConfig(
        width=32, encoder_depth=1, decoder_depth=1, heads=2, grid=(4, 4), dropout=0.0
    ),
    denoiser=DenoiserConfig(width=32, depth=1),
    autoencoder=KLAutoencoderConfig(
        base_width=32, multipliers=(1, 1, 1), blocks_per_level=1, latent_channels=4
    ),
)
LIGHT = LightDecoderConfig((16, 32), (0, 1))
