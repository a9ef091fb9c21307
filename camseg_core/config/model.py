"""Sizes of every part of a model: dataclasses, saved as the checkpoint's `config.json`."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from camseg_core.config.backbone import SIZE_MULTIPLE, ImageEncoderConfig, finer_features
from camseg_core.config.reader import build, renamed_from
from camseg_core.config.sizes import check_sizes
from camseg_core.errors import ModelError


@dataclass(frozen=True)
class KLAutoencoderConfig:
    """Sizes of the `KLAutoencoder` of pictures; the defaults are the published ones."""

    base_width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks_per_level: int = 2
    latent_channels: int = 16
    latent_scale: float = 0.2325

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.base_width % 32:  # groups of its norms
            raise ModelError(f"base_width must be a multiple of 32, got {self.base_width}")
        if not self.multipliers:
            raise ModelError("multipliers must list a level at least, got none")
        if not 0 < self.latent_scale < math.inf:
            raise ModelError(f"latent_scale must be a finite number > 0, got {self.latent_scale}")

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side: every level except the last halves them."""
        return int(2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True)
class MaskAutoencoderConfig:
    """Sizes of a `MaskAutoencoder`.

    Attributes:
        classes: number of class indices.
        latent_channels: depth of a latent cell.
        encoder_widths: channels at strides 2, 4 and so on; the last stride is the latents'.
        decoder_widths: the same for the decoder.
        decoder_blocks: residual blocks of the decoder at each stride.
        codebook_size: entries that latents are quantised to (VQ), or the levels of each of the
            `latent_channels` (FSQ); None leaves them continuous (KL).
        separable: the decoder's blocks are depthwise-separable, and its last layer is pointwise.
    """

    classes: int = 11
    latent_channels: int = 8
    encoder_widths: tuple[int, ...] = (48, 96)
    decoder_widths: tuple[int, ...] = (24, 48)
    decoder_blocks: tuple[int, ...] = (0, 2)
    codebook_size: int | tuple[int, ...] | None = None
    separable: bool = False

    def __post_init__(self) -> None:
        counts = len(self.encoder_widths), len(self.decoder_widths), len(self.decoder_blocks)
        if len(set(counts)) > 1 or counts[0] < 2:
            raise ModelError(
                "encoder_widths, decoder_widths and decoder_blocks must list the same strides, at "
                f"least two, got {counts[0]}, {counts[1]} and {counts[2]}"
            )
        if isinstance(self.codebook_size, tuple):
            if min(self.codebook_size, default=0) < 2:
                raise ModelError(
                    "codebook_size must list levels >= 2 (FSQ), got "
                    f"{list(self.codebook_size)}; leave it out for continuous latents"
                )
            if len(self.codebook_size) != self.latent_channels:
                raise ModelError(
                    "codebook_size must list the levels of each latent channel (FSQ), got "
                    f"{len(self.codebook_size)} for {self.latent_channels}: give latent_channels "
                    "the same number"
                )
        elif self.codebook_size is not None and self.codebook_size < 2:
            raise ModelError(
                f"codebook_size must be >= 2, got {self.codebook_size}; leave it out for "
                "continuous latents"
            )
        check_sizes(self, may_be_zero=("decoder_blocks",))

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** len(self.encoder_widths))


@dataclass(frozen=True)
class LightDecoderConfig:
    """Sizes of a light decoder: latents straight to class logits, for models with picture masks.

    `widths` are channels and `blocks` residual blocks at strides 2, 4 … up to the latents'.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (0, 1, 1, 2)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks) or len(self.widths) < 2:
            raise ModelError(
                "widths and blocks must list the same strides, at least two, "
                f"got {len(self.widths)} and {len(self.blocks)}"
            )
        check_sizes(self, may_be_zero=("blocks",))

    @property
    def stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** len(self.widths))


@dataclass(frozen=True)
class ConditionRefinerConfig:
    """Sizes of a `ConditionRefiner`.

    Attributes:
        width: numbers of a cell's condition.
        detail: channels at half of the cells' stride.
        edge: channels at a quarter of the cells' stride; 0 leaves that level out.
        separable: the block at half of the stride is depthwise-separable, not dense.
    """

    width: int = 128
    detail: int = 48
    edge: int = 0
    separable: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero=("edge",))

    @property
    def levels(self) -> int:
        """Features finer than a token that it reads."""
        return 3 if self.edge else 2


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `MaskedTransformer`; the defaults are the published ones.

    `grid`: (rows, columns) that learned positions are stored for; other grids interpolate them.
    `fusion`: how image and mask meet; `sequence` (published) appends the mask's tokens to the
    image's, 2L in all; `grid` adds the two tokens of each cell, L in all.
    """

    width: int = 768
    encoder_depth: int = 12
    decoder_depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    grid: tuple[int, ...] = (48, 48)
    fusion: Literal["sequence", "grid"] = "sequence"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.width % self.heads:
            raise ModelError(f"width must be a multiple of heads, {self.heads}, got {self.width}")
        if len(self.grid) != 2:
            raise ModelError(f"grid must be two numbers, rows and columns, got {list(self.grid)}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of a `Denoiser`; the defaults are the published ones.

    `prediction_type` is what it predicts: `epsilon`, the noise in the token (published), or
    `sample`, the clean token. `learned_variance` adds a second output of the same width that places
    a step's variance between its bounds.
    """

    width: int = 1024
    depth: int = 6
    prediction_type: Literal["epsilon", "sample"] = field(
        default="epsilon", metadata=renamed_from("prediction", {"noise": "epsilon"})
    )
    learned_variance: bool = True

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True)
class CamSegConfig:
    """A whole model.

    Either `autoencoder` reads image and mask alike, the mask drawn as a colour picture (published),
    or `image_encoder` and `mask_autoencoder` share the work.

    Attributes:
        network_pixels: area to which a frame is scaled for the network, keeping its aspect.
        max_upscale: largest factor by which the sides of a smaller frame are enlarged; with 1, it
            keeps its size.
        patch_size: side of the square of latent cells that make one token.
        pixel_mean: normalises RGB in 0..255, with `pixel_std`.
        num_train_timesteps: steps of the noise schedule.
        temperature: scales the noise when masks are sampled, see `SamplerOptions`.
        logit_scale: factor on the logits before the softmax that gives the confidence.
        light_decoder: decodes masks in place of the autoencoder's decoder.
        noise_filter: strong noise is removed from frames before the network, in training as well,
            see `noise_filter`.
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
    noise_filter: bool = False
    max_upscale: float = 1.0

    def __post_init__(self) -> None:
        own = (self.image_encoder is not None, self.mask_autoencoder is not None)
        if own != (self.autoencoder is None,) * 2:
            raise ModelError(
                "a model has either an autoencoder, or an image_encoder and a mask_autoencoder"
            )
        if self.refiner is not None and (self.image_encoder is None or self.patch_size % 2):
            raise ModelError("a refiner needs an image_encoder and an even patch_size")
        if self.image_encoder is not None:
            token, finer = self.image_encoder.stride, len(finer_features(self.image_encoder.stride))
            if token != self.token_stride:
                raise ModelError(
                    f"image_encoder.stride is {token} pixels a token, but patch_size and the mask "
                    f"autoencoder make {self.token_stride}"
                )
            if self.refiner is not None and self.refiner.levels != finer:
                raise ModelError(
                    f"tokens of stride {token} have {finer} finer features, but the refiner reads "
                    f"{self.refiner.levels}: see refiner.edge"
                )
        if self.light_decoder is not None:
            if self.autoencoder is None:
                raise ModelError(
                    "a light_decoder needs an image autoencoder to stand in for; "
                    "a mask_autoencoder's own decoder is light"
                )
            found, wanted = self.light_decoder.stride, self.autoencoder.stride
            if found != wanted:
                raise ModelError(
                    f"light_decoder lists strides up to {found}, "
                    f"but the autoencoder's latents have stride {wanted}"
                )
        check_sizes(self, without=("network_pixels",))
        if self.network_pixels < 1:
            raise ModelError(f"network_pixels must be >= 1, got {self.network_pixels}")
        if not 1 <= self.max_upscale < math.inf:
            raise ModelError(f"max_upscale must be a finite number >= 1, got {self.max_upscale}")
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) != 3:
                raise ModelError(
                    f"{name} must be three numbers, of red, green and blue, got "
                    f"{list(getattr(self, name))}"
                )
        if not 0 <= self.temperature < math.inf:
            raise ModelError(f"temperature must be a finite number >= 0, got {self.temperature}")
        if not 0 < self.logit_scale < math.inf:
            raise ModelError(f"logit_scale must be a finite number > 0, got {self.logit_scale}")
        if not all(0 < each < math.inf for each in self.pixel_std):
            raise ModelError(f"pixel_std must be finite numbers > 0, got {self.pixel_std}")

    def without_scaling(self, pixels: int) -> "CamSegConfig":
        """Return this model for frames of up to so many pixels, which keep their size."""
        return replace(self, network_pixels=pixels, max_upscale=1.0)

    def check_classes(self, count: int) -> None:
        """Check that a model with a mask autoencoder decodes so many classes.

        Raises:
            ModelError: it decodes another number.
        """
        if self.mask_autoencoder is not None and self.mask_autoencoder.classes != count:
            raise ModelError(
                f"{self.name} decodes {self.mask_autoencoder.classes} classes, but its labels list "
                f"{count}"
            )

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
        """The network's coarsest stride: input height and width are multiples of it."""
        return SIZE_MULTIPLE if self.image_encoder is not None else self.token_stride


def save_config(config: CamSegConfig, path: Path) -> None:
    """Write `config.json`."""
    path.write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def load_config(path: Path) -> CamSegConfig:
    """Read `config.json`.

    Raises:
        ModelError: the file is missing or not JSON; an entry is missing, unknown or of the wrong
            type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"cannot read the model's configuration {path}: {error.strerror}"
        raise ModelError(text) from error
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise ModelError(f"cannot read the model's configuration {path}: {error}") from error
    return build(CamSegConfig, content, str(path), ModelError)
