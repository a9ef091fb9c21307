"""CamSeg (arXiv 2503.15617): image encoder, transformer, diffusion head and mask codec, joined.

A camera image becomes features, one per token. The transformer turns them, with what is known of
the mask, into conditions. Given its condition, the diffusion head denoises each token of the mask
from noise. The codec decodes these latents to classes. `runtime.Segmenter` runs the whole over an
engine.
"""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from camseg_core.config.backbone import finer_features
from camseg_core.config.model import CamSegConfig, load_config, save_config
from camseg_core.diffusion.samplers import Noise, SamplerOptions, Schedule, sampler_named
from camseg_core.errors import ModelError
from camseg_core.labels import (
    CITYSCAPES,
    UNLABELLED,
    Label,
    index_table,
    read_labels,
    write_labels,
)
from camseg_core.model.denoiser import Denoiser
from camseg_core.model.image_encoder import ImageEncoder
from camseg_core.model.kl_autoencoder import KLAutoencoder, draw, nearest_class
from camseg_core.model.mask_autoencoder import MaskAutoencoder, MaskDecoder
from camseg_core.model.transformer import ConditionRefiner, MaskedTransformer
from camseg_core.model.weights_file import save_tensors

Grid = tuple[int, int]
"""Rows and columns."""


class CamSeg(nn.Module):
    """A whole model, in one of two layouts.

    Published: one KL autoencoder reads images and masks alike, masks drawn as colour pictures.
    Small: an `image_encoder` and a `mask_autoencoder` share the work, and a refiner may turn the
    transformer's conditions per token into finer ones.

    Pixels are RGB `(B, 3, H, W)` in 0..255 of any dtype, H and W multiples of
    `config.size_multiple`. With h·w = L tokens a frame, mask tokens are `(B, L, token_channels)`,
    row-major. `labels` are the classes in the order of the outputs; decoded masks hold the ids of
    `labels`: Cityscapes train ids, or those of the model's own class table.

    Raises:
        ModelError: the mask autoencoder decodes another number of classes than there are labels.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: CamSegConfig, labels: tuple[Label, ...] = CITYSCAPES) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.schedule = Schedule.cosine(config.num_train_timesteps, config.denoiser.prediction_type)
        self.autoencoder = self.image_encoder = self.mask_autoencoder = None
        self.refiner = self.light_decoder = None
        if config.autoencoder is not None:
            self.autoencoder = KLAutoencoder(config.autoencoder)
            image_channels = config.token_channels
        else:
            assert config.image_encoder is not None
            assert config.mask_autoencoder is not None
            config.check_classes(len(labels))
            self.image_encoder = ImageEncoder(config.image_encoder)
            self.mask_autoencoder = MaskAutoencoder(config.mask_autoencoder)
            image_channels = config.image_encoder.width
            if config.refiner is not None:
                self.refiner = ConditionRefiner(
                    config.refiner,
                    config.transformer.width,
                    finer_features(config.image_encoder.stride),
                )
        self.transformer = MaskedTransformer(
            config.transformer, image_channels, config.token_channels
        )
        self.denoiser = Denoiser(config.denoiser, config.denoised_channels, config.condition_width)
        if config.light_decoder is not None:
            # its last class is unlabelled, which the nearest colour can be as well
            self.light_decoder = MaskDecoder(
                config.mask_codec.latent_channels,
                len(labels) + 1,
                config.light_decoder.widths,
                config.light_decoder.blocks,
            )
        for name, values in (("pixel_mean", config.pixel_mean), ("pixel_std", config.pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    # image -> features -> conditions -> latents

    def image_features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return feature maps: `(B, C, h, w)`, a position per token, then finer ones for a refiner.

        In the published layout the only map is the KL encoder's posterior mean, folded to tokens.
        """
        normalised = (pixels.float() - self.pixel_mean) / self.pixel_std
        if self.image_encoder is not None:
            features: tuple[Tensor, ...] = self.image_encoder(normalised)
            return features if self.refiner is not None else features[:1]
        assert self.autoencoder is not None
        return (F.pixel_unshuffle(self.autoencoder.encode(normalised), self.config.patch_size),)

    def conditions(
        self, features: tuple[Tensor, ...], mask: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Return conditions `(B, N, D)`, row-major: one for each cell that the head denoises.

        `mask` `(B, L, token_channels)` are the mask's tokens and `hidden` `(B, L)` bool says which
        of them are unknown; without both, all are.
        """
        coarse = features[0]
        grid = coarse.shape[2], coarse.shape[3]
        conditions = self.transformer(coarse.flatten(2).transpose(1, 2), grid, mask, hidden)
        return conditions if self.refiner is None else self.refiner(conditions, grid, *features[1:])

    def sample(
        self, condition: Tensor, sampler: str, options: SamplerOptions, start: Tensor, noise: Noise
    ) -> Tensor:
        """Denoise the mask given conditions `(B, N, D)`; returns cells `(B, N, denoised_channels)`.

        `start` and each `noise(k)` are `(B·N, denoised_channels)`.
        """
        flat = condition.flatten(0, 1)

        def denoise(x: Tensor, step: int) -> Tensor:
            # the step's embedding is the same for all cells
            return self.denoiser(x, torch.tensor([step], device=x.device), flat)

        clean = sampler_named(sampler)(denoise, start, self.schedule, options, noise)
        return torch.as_tensor(clean).unflatten(0, condition.shape[:2])

    # latents <-> tokens of the transformer, cells of the head

    def to_tokens(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """Fold latents `(B, c, H, W)` to mask tokens `(B, L, c·p²)`, and return their grid."""
        return _fold(latents, self.config.patch_size)

    def to_denoised(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """Fold latents to the head's cells `(B, N, denoised_channels)`, and return their grid."""
        return _fold(latents, self.config.denoised_patch)

    def to_latents(self, denoised: Tensor, grid: Grid) -> Tensor:
        """Invert `to_denoised`."""
        return F.pixel_shuffle(
            denoised.transpose(1, 2).unflatten(2, grid), self.config.denoised_patch
        )

    def denoised_grid(self, features: tuple[Tensor, ...]) -> Grid:
        """Return the rows and columns of the head's cells for these feature maps."""
        times = self.config.patch_size // self.config.denoised_patch
        return features[0].shape[2] * times, features[0].shape[3] * times

    # masks <-> latents

    def encode_mask(self, train_ids: Tensor) -> Tensor:
        """Encode class ids `(B, H, W)`, of any integer type, to latents `(B, C, h, w)`.

        The published layout draws unknown ids, such as 255, as unlabelled; a mask autoencoder takes
        them as its first class.
        """
        if self.autoencoder is not None:
            return self.autoencoder.encode(draw(train_ids))
        assert self.mask_autoencoder is not None
        table = torch.from_numpy(index_table(self.labels, other=0)).to(train_ids.device)
        return self.mask_autoencoder.encode(table[train_ids.long()].long())

    def decode_mask(self, latents: Tensor, exact: bool = False) -> Tensor:
        """Decode latents `(B, C, h, w)` to class ids `(B, H, W)` uint8.

        A model of the published layout uses its light decoder if it has one; `exact` asks for the
        nearest colour of the decoded picture instead.
        """
        if self.autoencoder is not None and (exact or self.light_decoder is None):
            return nearest_class(self.autoencoder.decode(latents))
        table = torch.tensor(self.decoded_ids, dtype=torch.uint8, device=latents.device)
        return table[F.pixel_shuffle(self.logit_blocks(latents).argmax(1), 2).squeeze(1)]

    @property
    def decoded_ids(self) -> tuple[int, ...]:
        """The class id of each class of `logit_blocks`; a light decoder's last is unlabelled."""
        ids = tuple(label.id for label in self.labels)
        return ids if self.light_decoder is None else (*ids, UNLABELLED)

    def logit_blocks(self, latents: Tensor) -> Tensor:
        """Decode latents to class logits `(B, classes, 4, H/2, W/2)`, 2×2 pixels side by side.

        For models with a mask autoencoder or a light decoder. Comparing classes in this form moves
        two planes into place, not one for each class.
        """
        if self.mask_autoencoder is not None:
            return self.mask_autoencoder.decoder.blocks(self.mask_autoencoder.denormalised(latents))
        assert self.light_decoder is not None
        return self.light_decoder.blocks(latents)

    # checkpoint folders

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `labels.json` and `model.safetensors`.

        Matrices and kernels are stored in `dtype`. Vectors (biases, norms and their statistics)
        stay fp32: they are small, and overflow fp16.

        Raises:
            CamSegError: the weights cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(self.config, folder / "config.json")
        write_labels(folder / "labels.json", self.labels)
        state = {
            n: (t.to(dtype) if t.is_floating_point() and t.ndim > 1 else t).contiguous().clone()
            for n, t in self.state_dict().items()
        }
        save_tensors(state, folder / "model.safetensors", {"format": "pt"})

    @staticmethod
    def from_pretrained(folder: str | Path) -> "CamSeg":
        """Load a checkpoint folder, in fp32 on the CPU, in evaluation mode.

        Raises:
            ModelError: a file is missing or damaged, or the weights do not fit the configuration.
        """
        folder = Path(folder)
        model = CamSeg(load_config(folder / "config.json"), read_labels(folder / "labels.json"))
        path = folder / "model.safetensors"
        try:
            state = load_file(path)
        except Exception as error:  # safetensors raises its own type, which is not exported
            raise ModelError(f"cannot read the weights {path}: {error}") from error
        try:
            model.load_state_dict(
                {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
            )
        except RuntimeError as error:
            raise ModelError(
                f"the weights {path} do not fit {folder / 'config.json'}: {error}"
            ) from error
        return model.eval()


def stored_type(folder: Path) -> torch.dtype:
    """Return the dtype of a checkpoint's matrices and kernels, the widest where they differ."""
    types = {
        tensor.dtype
        for tensor in load_file(folder / "model.safetensors").values()
        if tensor.is_floating_point() and tensor.ndim > 1
    }
    return functools.reduce(torch.promote_types, types)


def _fold(latents: Tensor, patch: int) -> tuple[Tensor, Grid]:
    """Squares of `patch`×`patch` latents as `(B, N, c·patch²)`, row-major, and their grid."""
    patches = F.pixel_unshuffle(latents, patch)
    return patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])
