"""CamSeg: image encoder, masked transformer, diffusion head and mask codec joined (arXiv 2503.15617)."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from camseg_core.atomic_write import atomic_write
from camseg_core.config.model import CamSegConfig, load_config, save_config
from camseg_core.diffusion.passes import (
    FrameInPasses,
    PassOptions,
    cells_of_tokens,
    sample_in_passes,
)
from camseg_core.diffusion.samplers import Noise, SamplerOptions, sampler_named
from camseg_core.diffusion.schedule import Schedule
from camseg_core.errors import ModelError
from camseg_core.labels import (
    CITYSCAPES,
    UNLABELLED,
    Label,
    index_table,
    read_labels,
    write_labels,
)
from camseg_core.model.condition_refiner import ConditionRefiner
from camseg_core.model.denoiser import Denoiser
from camseg_core.model.image_encoder import ImageEncoder
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import MaskAutoencoder, MaskDecoder
from camseg_core.model.picture_codec import distance_to_palette, draw, nearest_class
from camseg_core.model.transformer import MaskedTransformer

Grid = tuple[int, int]


class CamSeg(nn.Module):
    """A whole model. `labels` are its classes in the order of its outputs; masks that leave it hold Cityscapes train ids.

    Pixels are RGB `(B, 3, H, W)` in 0..255 (any dtype), H and W multiples of `config.size_multiple`. With h·w = L tokens a
    frame, the transformer's mask tokens are `(B, L, token_channels)`, row-major.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: CamSegConfig, labels: tuple[Label, ...] = CITYSCAPES) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.schedule = Schedule.cosine(config.num_train_timesteps)
        self.autoencoder = self.image_encoder = self.mask_autoencoder = self.refiner = (
            self.light_decoder
        ) = None
        if config.autoencoder is not None:
            self.autoencoder = KLAutoencoder(config.autoencoder)
            image_channels = config.token_channels
        else:
            assert config.image_encoder is not None
            assert config.mask_autoencoder is not None
            if config.mask_autoencoder.classes != len(labels):
                raise ModelError(
                    f"{config.name} decodes {config.mask_autoencoder.classes} classes, but its labels list {len(labels)}"
                )
            self.image_encoder = ImageEncoder(config.image_encoder)
            self.mask_autoencoder = MaskAutoencoder(config.mask_autoencoder)
            image_channels = config.image_encoder.width
            if config.refiner is not None:
                self.refiner = ConditionRefiner(config.refiner, config.transformer.width)
        self.transformer = MaskedTransformer(
            config.transformer, image_channels, config.token_channels
        )
        self.denoiser = Denoiser(config.denoiser, config.denoised_channels, config.condition_width)
        if config.light_decoder is not None:
            light = (
                config.light_decoder
            )  # its last class is unlabelled, which the nearest colour can be as well
            self.light_decoder = MaskDecoder(
                config.mask_codec.latent_channels, len(labels) + 1, light.widths, light.blocks
            )
        self.register_buffer(
            "pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False
        )

    # image -> features -> conditions

    def image_features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels to feature maps: `(B, C, h, w)` with one cell per token (a KL encoder's posterior mean), then any finer ones."""
        normalised = (pixels.float() - self.pixel_mean) / self.pixel_std
        if self.image_encoder is not None:
            features: tuple[Tensor, ...] = self.image_encoder(normalised)
            return features if self.refiner is not None else features[:1]
        assert self.autoencoder is not None
        return (F.pixel_unshuffle(self.autoencoder.encode(normalised), self.config.patch_size),)

    def conditions(
        self, features: tuple[Tensor, ...], mask: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Feature maps to conditions `(B, N, D)`, one for each thing the head denoises (see `to_denoised`), row-major.

        `mask` `(B, L, token_channels)` and `hidden` `(B, L)` bool tell what is known of the mask; without them, nothing is.
        """
        tokens, grid = (
            features[0].flatten(2).transpose(1, 2),
            (features[0].shape[2], features[0].shape[3]),
        )
        conditions = self.transformer(tokens, grid, mask, hidden)
        return conditions if self.refiner is None else self.refiner(conditions, grid, *features[1:])

    def to_tokens(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """Latents `(B, c, H, W)` to the transformer's tokens `(B, L, c·p²)` and their grid."""
        return _fold(latents, self.config.patch_size)

    def to_denoised(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """Latents `(B, c, H, W)` to what the head denoises at once, `(B, N, denoised_channels)`, and their grid."""
        return _fold(latents, self.config.denoised_patch)

    def to_latents(self, denoised: Tensor, grid: Grid) -> Tensor:
        """The inverse of `to_denoised`."""
        return F.pixel_shuffle(
            denoised.transpose(1, 2).unflatten(2, grid), self.config.denoised_patch
        )

    def denoised_grid(self, features: tuple[Tensor, ...]) -> Grid:
        """Rows and columns of what the head denoises for these feature maps."""
        times = self.config.patch_size // self.config.denoised_patch
        return features[0].shape[2] * times, features[0].shape[3] * times

    # masks <-> latents

    def encode_mask(self, train_ids: Tensor) -> Tensor:
        """Train ids `(B, H, W)` to mask latents; the published codec draws 255 as its unlabelled colour."""
        if self.autoencoder is not None:
            return self.autoencoder.encode(draw(train_ids))
        assert self.mask_autoencoder is not None
        table = torch.from_numpy(index_table(self.labels, other=0)).to(train_ids.device)
        return self.mask_autoencoder.encode(table[train_ids.long()].long())

    def decode_mask(self, latents: Tensor, exact: bool = False) -> Tensor:
        """Mask latents to train ids `(B, H, W)` uint8.

        A model of the published layout that has a light decoder uses it; `exact` asks for the nearest colour of the decoded picture.
        """
        if self.autoencoder is not None and (exact or self.light_decoder is None):
            return nearest_class(self.autoencoder.decode(latents))
        table = torch.tensor(self.decoded_ids, dtype=torch.uint8, device=latents.device)
        return table[F.pixel_shuffle(self.logit_blocks(latents).argmax(1), 2).squeeze(1)]

    @property
    def decoded_ids(self) -> tuple[int, ...]:
        """The train id of each class that `logit_blocks` tells apart; a light decoder has unlabelled as its last."""
        ids = tuple(label.id for label in self.labels)
        return ids if self.light_decoder is None else (*ids, UNLABELLED)

    def logit_blocks(self, latents: Tensor) -> Tensor:
        """Mask latents to class logits, the pixels of 2×2 blocks side by side, row-major: `(B, classes, 4, H/2, W/2)`.

        For models with a mask autoencoder or a light decoder. Comparing classes in this form moves two planes into place, not all.
        """
        if self.mask_autoencoder is not None:
            return self.mask_autoencoder.decoder.blocks(self.mask_autoencoder.denormalised(latents))
        assert self.light_decoder is not None
        return self.light_decoder.blocks(latents)

    # the diffusion head

    def sample(
        self, condition: Tensor, sampler: str, options: SamplerOptions, start: Tensor, noise: Noise
    ) -> Tensor:
        """Conditions `(B, N, D)` to `(B, N, denoised_channels)` of the mask; `start` and each `noise(k)` are `(B·N, denoised_channels)`."""
        flat = condition.flatten(0, 1)

        def denoise(x: Tensor, step: int) -> Tensor:
            return self.denoiser(
                x, torch.full((1,), step, device=x.device), flat
            )  # the step's embedding is the same for all

        clean = sampler_named(sampler)(
            denoise, start, self.schedule, options, noise, self.config.denoiser.prediction_type
        )
        return torch.as_tensor(clean).unflatten(0, condition.shape[:2])

    @torch.no_grad()
    def segment(
        self,
        pixels: Tensor,
        sampler: str = "one_step",
        options: SamplerOptions | None = None,
        generator: torch.Generator | None = None,
        passes: PassOptions | None = None,
        exact: bool = False,
    ) -> Tensor:
        """Pixels to train ids `(B, H, W)` uint8; without `generator`, seed 0; without `passes`, the mask is revealed at once.

        `exact` as for `decode_mask`.
        """
        options = options or SamplerOptions(temperature=self.config.temperature)
        generator = generator or torch.Generator(pixels.device).manual_seed(0)
        features = self.image_features(pixels)
        if passes is None or passes.passes == 1:
            condition = self.conditions(features)
            shape = (condition.shape[0] * condition.shape[1], self.config.denoised_channels)
            noise = _noise_of(shape, generator)
            sampled = self.sample(condition, sampler, options, noise(-1), noise)
        else:
            frames = [tuple(feature[i : i + 1] for feature in features) for i in range(len(pixels))]
            sampled = torch.stack(
                [
                    self._sampled_in_passes(frame, sampler, options, generator, passes)
                    for frame in frames
                ]
            )
        return self.decode_mask(self.to_latents(sampled, self.denoised_grid(features)), exact)

    def _sampled_in_passes(
        self,
        features: tuple[Tensor, ...],
        sampler: str,
        options: SamplerOptions,
        generator: torch.Generator,
        passes: PassOptions,
    ) -> Tensor:
        """The cells `(N, denoised_channels)` of one frame, whose feature maps are `(1, …)`."""
        cells_grid, token_grid = (
            self.denoised_grid(features),
            (features[0].shape[2], features[0].shape[3]),
        )
        start = torch.zeros(
            cells_grid[0] * cells_grid[1], self.config.denoised_channels, device=generator.device
        )

        def condition(cells: Tensor, hidden: npt.NDArray[np.bool_]) -> Tensor:
            tokens, _ = self.to_tokens(self.to_latents(cells.unsqueeze(0), cells_grid))
            return self.conditions(
                features, tokens, torch.from_numpy(hidden).to(cells.device).unsqueeze(0)
            )[0]

        def sample(condition: Tensor, index: npt.NDArray[np.int64]) -> Tensor:
            noise = _noise_of((len(index), self.config.denoised_channels), generator)
            return self.sample(condition.unsqueeze(0), sampler, options, noise(-1), noise)[0].to(
                start.dtype
            )

        def confidence(cells: Tensor) -> npt.NDArray[np.float32]:
            return (
                self._token_confidence(self.to_latents(cells.unsqueeze(0), cells_grid))
                .flatten()
                .cpu()
                .numpy()
            )

        frame = FrameInPasses(
            cells_of_tokens(token_grid, cells_grid[0] // token_grid[0]),
            condition,
            sample,
            confidence,
        )
        order = np.random.default_rng(
            int(torch.randint(2**31, (), generator=generator, device=generator.device))
        )
        return torch.as_tensor(sample_in_passes(frame, start, passes, order))

    def _token_confidence(self, latents: Tensor) -> Tensor:
        """How sure the decoder is of each token of latents `(B, c, H, W)`, `(B, h, w)`: comparable within a frame, not a probability."""
        if self.autoencoder is not None and self.light_decoder is None:
            sure = -distance_to_palette(self.autoencoder.decode(latents))
        else:
            sure = F.pixel_shuffle(
                self.logit_blocks(latents).float().softmax(1).amax(1), 2
            ).squeeze(1)
        return F.avg_pool2d(sure.unsqueeze(1), self.config.token_stride).squeeze(1)

    # checkpoint folders

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `labels.json` and `model.safetensors`; `dtype` is how matrices and kernels are stored.

        Vectors (biases, norms and their running statistics) stay fp32: they are small, and fp16 cannot hold them all.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(self.config, folder / "config.json")
        write_labels(folder / "labels.json", self.labels)
        state = {
            n: (t.to(dtype) if t.is_floating_point() and t.ndim > 1 else t).contiguous().clone()
            for n, t in self.state_dict().items()
        }
        with atomic_write(folder / "model.safetensors") as temporary:
            save_file(state, temporary, {"format": "pt"})
            temporary.chmod(0o644)  # safetensors leaves the file to its owner alone

    @staticmethod
    def from_pretrained(folder: str | Path) -> "CamSeg":
        """The model of a checkpoint folder, in fp32 on the CPU, in evaluation mode.

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


def _noise_of(shape: tuple[int, int], generator: torch.Generator) -> Noise:
    return lambda _: torch.randn(shape, generator=generator, device=generator.device)


def stored_type(folder: Path) -> torch.dtype:
    """How the matrices and kernels of a checkpoint folder are stored, for `save_pretrained`; the widest where they differ."""
    types = {
        tensor.dtype
        for tensor in load_file(folder / "model.safetensors").values()
        if tensor.is_floating_point() and tensor.ndim > 1
    }
    return functools.reduce(torch.promote_types, types)


def _fold(latents: Tensor, patch: int) -> tuple[Tensor, Grid]:
    """Squares of `patch`×`patch` latent cells as `(B, N, c·patch²)`, row-major, and their grid."""
    patches = F.pixel_unshuffle(latents, patch)
    return patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])
