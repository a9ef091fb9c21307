"""CamSeg: image encoder, masked transformer, diffusion head and mask codec joined (arXiv 2503.15617)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from camseg_core.errors import ModelError
from camseg_core.labels import CITYSCAPES, Label, read_labels, write_labels
from camseg_core.model.autoencoder import Autoencoder
from camseg_core.model.config import CamSegConfig, load_config, save_config
from camseg_core.model.denoiser import Denoiser
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.model.picture_codec import draw, nearest_class
from camseg_core.model.samplers import Noise, SamplerOptions, sampler_named
from camseg_core.model.schedule import Schedule
from camseg_core.model.transformer import MaskedTransformer

Grid = tuple[int, int]


class CamSeg(nn.Module):
    """A whole model. `labels` are its classes in the order of its outputs; masks that leave it hold Cityscapes train ids.

    Pixels are RGB `(B, 3, H, W)` in 0..255 (any dtype), H and W multiples of `config.size_multiple`. With h·w = L tokens a
    frame, tokens are `(B, L, token_channels)`, row-major.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: CamSegConfig, labels: tuple[Label, ...] = CITYSCAPES) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.schedule = Schedule.cosine(config.noise_steps)
        self.autoencoder = self.image_encoder = self.mask_autoencoder = None
        if config.autoencoder is not None:
            self.autoencoder = Autoencoder(config.autoencoder)
            image_channels = config.token_channels
        else:
            # imported here: the published model does not need the backbone's package
            from camseg_core.model.image_encoder import ImageEncoder

            assert config.image_encoder is not None
            assert config.mask_autoencoder is not None
            if config.mask_autoencoder.classes != len(labels):
                raise ModelError(f"{config.name} decodes {config.mask_autoencoder.classes} classes, but its labels list {len(labels)}")
            self.image_encoder = ImageEncoder(config.image_encoder)
            self.mask_autoencoder = MaskAutoencoder(config.mask_autoencoder)
            image_channels = config.image_encoder.width
        self.transformer = MaskedTransformer(config.transformer, image_channels, config.token_channels)
        self.denoiser = Denoiser(config.denoiser, config.token_channels, config.transformer.width)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False)

    # image -> tokens -> conditions

    def image_features(self, pixels: Tensor) -> Tensor:
        """Pixels to the image's feature map `(B, C, h, w)`, one cell per token; a KL encoder gives its posterior's mean."""
        normalised = (pixels.float() - self.pixel_mean) / self.pixel_std
        if self.image_encoder is not None:
            return self.image_encoder(normalised)
        assert self.autoencoder is not None
        return F.pixel_unshuffle(self.autoencoder.encode(normalised), self.config.patch_size)

    def image_tokens(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Pixels to image tokens `(B, L, C)` and their grid (h, w)."""
        features = self.image_features(pixels)
        return features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3])

    def to_tokens(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """Latents `(B, c, H, W)` to tokens `(B, L, c·p²)` and their grid."""
        patches = F.pixel_unshuffle(latents, self.config.patch_size)
        return patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3])

    def to_latents(self, tokens: Tensor, grid: Grid) -> Tensor:
        """The inverse of `to_tokens`."""
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), self.config.patch_size)

    # masks <-> latents

    def encode_mask(self, train_ids: Tensor) -> Tensor:
        """Train ids `(B, H, W)` to mask latents; the published codec draws 255 as its unlabelled colour."""
        if self.autoencoder is not None:
            return self.autoencoder.encode(draw(train_ids))
        assert self.mask_autoencoder is not None
        table = torch.zeros(256, dtype=torch.long, device=train_ids.device)
        for index, label in enumerate(self.labels):
            table[label.id] = index
        return self.mask_autoencoder.encode(table[train_ids.long()])

    def decode_mask(self, latents: Tensor) -> Tensor:
        """Mask latents to train ids `(B, H, W)` uint8."""
        if self.autoencoder is not None:
            return nearest_class(self.autoencoder.decode(latents))
        assert self.mask_autoencoder is not None
        table = torch.tensor([label.id for label in self.labels], dtype=torch.uint8, device=latents.device)
        return table[self.mask_autoencoder.decode(latents).argmax(1)]

    # the diffusion head

    def sample_tokens(self, condition: Tensor, sampler: str, options: SamplerOptions, start: Tensor, noise: Noise) -> Tensor:
        """Conditions `(B, L, D)` to mask tokens `(B, L, C)`; `start` and each `noise(k)` are `(B·L, C)`. Only mask tokens are denoised."""
        flat = condition.flatten(0, 1)

        def denoise(x: Tensor, step: int) -> Tensor:
            return self.denoiser(x, torch.full((x.shape[0],), step, device=x.device), flat)

        tokens = sampler_named(sampler)(denoise, start, self.schedule, options, noise, self.config.denoiser.prediction)
        return torch.as_tensor(tokens).unflatten(0, condition.shape[:2])

    @torch.no_grad()
    def segment(
        self, pixels: Tensor, sampler: str = "one_step", options: SamplerOptions | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pixels to train ids `(B, H, W)` uint8; without `generator`, seed 0."""
        options = options or SamplerOptions()
        generator = generator or torch.Generator(pixels.device).manual_seed(0)
        tokens, grid = self.image_tokens(pixels)
        condition = self.transformer(tokens, grid)
        shape = (condition.shape[0] * condition.shape[1], self.config.token_channels)

        def noise(_: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device)

        sampled = self.sample_tokens(condition, sampler, options, noise(-1), noise)
        return self.decode_mask(self.to_latents(sampled, grid))

    # checkpoint folders

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json`, `labels.json` and `model.safetensors`; `dtype` is how matrices and kernels are stored.

        Vectors (biases, norms and their running statistics) stay fp32: they are small, and fp16 cannot hold them all.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(self.config, folder / "config.json")
        write_labels(folder / "labels.json", self.labels)
        state = {n: (t.to(dtype) if t.is_floating_point() and t.ndim > 1 else t).contiguous().clone() for n, t in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)  # safetensors leaves the file to its owner alone

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
            model.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
        except RuntimeError as error:
            raise ModelError(f"the weights {path} do not fit {folder / 'config.json'}: {error}") from error
        return model.eval()
