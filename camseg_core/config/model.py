"""Sizes of every part of a model, as dataclasses that are the checkpoint's `config.json`. Imports no torch: the runtime reads it too."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from camseg_core.config.backbone import SIZE_MULTIPLE
from camseg_core.config.dataclass_reader import build, renamed_from
from camseg_core.errors import ModelError


@dataclass(frozen=True)
class KLAutoencoderConfig:
    """Sizes of the picture `KLAutoencoder`; the defaults are the published ones. Its stride is 2 to the number of levels less one."""

    base_width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks_per_level: int = 2
    latent_channels: int = 16
    latent_scale: float = 0.2325

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True)
class MaskAutoencoderConfig:
    """Sizes of a `MaskAutoencoder`: ids in, logits out.

    `classes` is the number of class indices; `encoder_widths` and `decoder_widths` are channels at strides 2, 4 and so on, and the
    last of these strides is the latents': 4×4 pixels a cell for two widths. `decoder_blocks` is how many residual blocks the decoder has at
    each stride, `latent_channels` the depth of a cell. `codebook_size` is the number of entries that latents are quantised to;
    without it they are continuous (KL).
    """

    classes: int = 11
    latent_channels: int = 8
    encoder_widths: tuple[int, ...] = (48, 96)
    decoder_widths: tuple[int, ...] = (24, 48)
    decoder_blocks: tuple[int, ...] = (0, 2)
    codebook_size: int | None = None

    def __post_init__(self) -> None:
        counts = len(self.encoder_widths), len(self.decoder_widths), len(self.decoder_blocks)
        if len(set(counts)) > 1 or counts[0] < 2:
            raise ModelError(
                f"encoder_widths, decoder_widths and decoder_blocks list {counts[0]}, {counts[1]} and {counts[2]} strides; "
                "all three list the same ones, at least two"
            )
        if self.codebook_size is not None and self.codebook_size < 2:
            raise ModelError(
                f"codebook_size is {self.codebook_size}; a codebook has at least 2 entries (leave it out for continuous latents)"
            )

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** len(self.encoder_widths))


@dataclass(frozen=True)
class LightDecoderConfig:
    """Sizes of the light decoder of a model whose masks are pictures: mask latents straight to class logits.

    `widths` are its channels and `blocks` its residual blocks at strides 2, 4 and so on; the last of these strides is the latents'.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (0, 1, 1, 2)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ModelError(
                f"widths and blocks list {len(self.widths)} and {len(self.blocks)} strides; both list the same ones, at least two"
            )

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** len(self.widths))


@dataclass(frozen=True)
class ImageEncoderConfig:
    """An `ImageEncoder`: EfficientNet-Lite0 features of strides 4 to 32, fused to `width` channels at stride 16."""

    width: int = 192


@dataclass(frozen=True)
class ConditionRefinerConfig:
    """Sizes of a `ConditionRefiner`: conditions of `width` numbers per latent cell, and `detail` channels at twice that resolution."""

    width: int = 128
    detail: int = 48


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `MaskedTransformer`; the defaults are the published ones.

    `grid` is the (rows, columns) that the learned positions are stored for; other sizes interpolate them. `fusion` says
    how image and mask meet: `sequence` (published) puts the mask's tokens behind the image's, so there are 2L tokens;
    `grid` adds the two tokens of a cell, so there are L.
    """

    width: int = 768
    encoder_depth: int = 12
    decoder_depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    grid: tuple[int, ...] = (48, 48)
    fusion: str = "sequence"
    dropout: float = 0.1


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of a `Denoiser`; the defaults are the published ones.

    `prediction_type` says what its first output is: `epsilon`, the noise in the token (published), or `sample`, the clean token.
    `learned_variance` adds a second output of the same width that places a step's variance between its bounds.
    """

    width: int = 1024
    depth: int = 6
    prediction_type: str = field(
        default="epsilon", metadata=renamed_from("prediction", {"noise": "epsilon"})
    )
    learned_variance: bool = True


@dataclass(frozen=True)
class CamSegConfig:
    """A whole model.

    Either `autoencoder` reads image and mask alike, the mask drawn as a colour picture (published), or `image_encoder` and
    `mask_autoencoder` share the work. `patch_size` is the side of the square of latent cells that make one token.
    `pixel_mean` and `pixel_std` normalise RGB in 0..255. `network_pixels` is the area that a frame is scaled down to
    (keeping its aspect) before the network sees it. `temperature` is what the noise is scaled by when masks are sampled, see
    `samplers.SamplerOptions`. Logits are multiplied by `logit_scale` before the softmax that gives the confidence. A `light_decoder` may
    stand in for the autoencoder's where mask latents are decoded.
    """

    name: str
    network_pixels: int
    transformer: TransformerConfig
    denoiser: DenoiserConfig
    autoencoder: KLAutoencoderConfig | None = None
    image_encoder: ImageEncoderConfig | None = None
    mask_autoencoder: MaskAutoencoderConfig | None = None
    refiner: ConditionRefinerConfig | None = None
    patch_size: int = 1
    pixel_mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    pixel_std: tuple[float, ...] = (127.5, 127.5, 127.5)
    num_train_timesteps: int = field(default=1000, metadata=renamed_from("noise_steps"))
    temperature: float = 1.0
    logit_scale: float = field(default=1.0, metadata=renamed_from("sharpness"))
    light_decoder: LightDecoderConfig | None = None

    def __post_init__(self) -> None:
        published = (
            self.autoencoder is not None
            and self.image_encoder is None
            and self.mask_autoencoder is None
        )
        own = (
            self.autoencoder is None
            and self.image_encoder is not None
            and self.mask_autoencoder is not None
        )
        if not (published or own):
            raise ModelError(
                "a model has either an autoencoder, or an image_encoder and a mask_autoencoder"
            )
        if self.refiner is not None and (self.image_encoder is None or self.patch_size % 2):
            raise ModelError(
                "a refiner needs an image_encoder for its fine features, and an even patch_size"
            )
        if self.light_decoder is not None:
            if self.autoencoder is None:
                raise ModelError(
                    "a light_decoder stands in for an autoencoder of pictures; a mask_autoencoder's own decoder is light"
                )
            if self.light_decoder.stride != self.autoencoder.stride:
                found, wanted = self.light_decoder.stride, self.autoencoder.stride
                raise ModelError(
                    f"light_decoder lists strides up to {found}, but the autoencoder's latents have stride {wanted}"
                )
        if self.transformer.fusion not in ("sequence", "grid"):
            raise ModelError(
                f"transformer.fusion is {self.transformer.fusion!r}; it is sequence or grid"
            )
        if self.denoiser.prediction_type not in ("epsilon", "sample"):
            raise ModelError(
                f"denoiser.prediction_type must be epsilon or sample, got {self.denoiser.prediction_type!r}"
            )
        if not self.logit_scale > 0:
            raise ModelError(f"logit_scale must be > 0, got {self.logit_scale}")

    @property
    def mask_codec(self) -> KLAutoencoderConfig | MaskAutoencoderConfig:
        """The part that turns masks into latents and back."""
        codec = self.mask_autoencoder or self.autoencoder
        assert codec is not None
        return codec

    @property
    def token_channels(self) -> int:
        """Numbers in one mask token of the transformer."""
        return self.mask_codec.latent_channels * self.patch_size**2

    @property
    def denoised_patch(self) -> int:
        """Side of the square of latent cells that the diffusion head denoises at once."""
        return self.patch_size // 2 if self.refiner is not None else self.patch_size

    @property
    def denoised_channels(self) -> int:
        """Numbers that the diffusion head denoises at once."""
        return self.mask_codec.latent_channels * self.denoised_patch**2

    @property
    def condition_width(self) -> int:
        """Numbers in one condition of the diffusion head."""
        return self.transformer.width if self.refiner is None else self.refiner.width

    @property
    def token_stride(self) -> int:
        """Pixels per token, along each side."""
        return self.mask_codec.stride * self.patch_size

    @property
    def size_multiple(self) -> int:
        """What the network's input height and width are multiples of: the coarsest stride inside it."""
        return SIZE_MULTIPLE if self.image_encoder is not None else self.token_stride


def save_config(config: CamSegConfig, path: Path) -> None:
    """Write `config.json`."""
    path.write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def load_config(path: Path) -> CamSegConfig:
    """Read `config.json`.

    Raises:
        ModelError: the file is missing, is not JSON, lacks an entry, has one that is unknown or of the wrong kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model's configuration {path}: {error}") from error
    return build(CamSegConfig, content, str(path), ModelError)
