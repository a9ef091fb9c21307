"""The peer of a camseg-lite without a latent space: its network, training and segmenter.

It has the model's image encoder, transformer, refiner and mask decoder, and is trained on the same
samples in the same order with the same loss on pixels. In place of the diffusion head, the subject
of CAM-Seg (arXiv 2503.15617), convolutions of about the same size read the conditions and write
what the decoder reads; no autoencoder was trained before, and nothing asks for its latents.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from camseg_core.config.backbone import finer_features
from camseg_core.config.model import CamSegConfig
from camseg_core.labels import Label
from camseg_core.model.image_encoder import ImageEncoder
from camseg_core.model.mask_autoencoder import MaskDecoder
from camseg_core.model.transformer import ConditionRefiner, MaskedTransformer
from camseg_core.model.weights_file import save_tensors
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, prepared
from camseg_core.training.losses import half_of_pixels, pixel_loss
from camseg_core.training.trainer import Run, train
from camseg_core.training.transformer import TransformerTraining, frame_stream


class CellBlock(nn.Module):
    """A residual block of two 3×3 convolutions: together about as large as the diffusion head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)
        )
        self.norm1, self.norm2 = (nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.second(F.relu(self.norm1(self.first(x))))))


class PlainHead(nn.Module):
    """RGB `(B, 3, H, W)` in 0..255, whole multiples of the size multiple, to class logits."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: CamSegConfig) -> None:
        super().__init__()
        assert config.image_encoder is not None
        assert config.refiner is not None
        assert config.mask_autoencoder is not None
        self.config, codec, width = config, config.mask_autoencoder, config.denoiser.width
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.transformer = MaskedTransformer(
            config.transformer, config.image_encoder.width, config.token_channels
        )
        self.refiner = ConditionRefiner(
            config.refiner, config.transformer.width, finer_features(config.image_encoder.stride)
        )
        self.cells = nn.Sequential(
            nn.Conv2d(config.condition_width, width, 1),
            CellBlock(width),
            nn.Conv2d(width, config.denoised_channels, 1),
            nn.PixelShuffle(config.denoised_patch),
        )
        self.head = MaskDecoder(
            codec.latent_channels,
            codec.classes,
            codec.decoder_widths,
            codec.decoder_blocks,
            codec.separable,
        )
        for name in ("pixel_mean", "pixel_std"):
            values = torch.tensor(getattr(config, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.pixel_shuffle(self.blocks(pixels).flatten(1, 2), 2)

    def blocks(self, pixels: Tensor) -> Tensor:
        """Return the logits, 2×2 pixels side by side: `(B, classes, 4, H/2, W/2)`."""
        features = self.image_encoder((pixels.float() - self.pixel_mean) / self.pixel_std)
        rows, columns = features[0].shape[2:]
        tokens = features[0].flatten(2).transpose(1, 2)  # (B, L, D)
        # every mask token stays hidden: the transformer says where it is, and no more
        conditions = self.refiner(
            self.transformer(tokens, (rows, columns), None, None), (rows, columns), *features[1:]
        )
        return self.head.blocks(
            self.cells(conditions.transpose(1, 2).unflatten(2, (2 * rows, 2 * columns)))
        )

    def save(self, path: Path) -> None:
        """Write the weights as safetensors; that the file exists means that it is whole."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_tensors(tensors, path)


class PlainSegmenter:
    """Segments RGB `(H, W, 3)` uint8 as `Segmenter` does, with the peer in torch, in fp32."""

    def __init__(self, config: CamSegConfig, labels: Sequence[Label], weights: Path) -> None:
        self.network, self.labels = PlainHead(config), tuple(labels)
        self.network.load_state_dict(load_file(weights))
        self.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ids = torch.tensor([label.id for label in labels], dtype=torch.uint8)

    @torch.no_grad()
    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one frame; it is scaled and padded as for camseg-lite."""
        began, config = time.perf_counter(), self.network.config
        geometry = FrameGeometry.fit(
            *rgb.shape[:2],
            config.network_pixels,
            config.size_multiple,
            max_upscale=config.max_upscale,
        )
        image, _ = geometry.to_network(rgb, config.noise_filter)
        pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
        confidence, index = self.network(pixels)[0].softmax(0).max(0)
        mask, sure = geometry.from_network(self._ids[index].numpy(), confidence.numpy())
        return Segmentation(mask, sure, {"network": (time.perf_counter() - began) * 1000})


def loss_of(
    network: PlainHead, batch: Batch, weights: Tensor, config: TransformerTraining, members: Tensor
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy and soft Jaccard as for camseg-lite's decoded masks, in the same order."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        network.train()
        images, indices = batch(range(step * config.batch, (step + 1) * config.batch))
        with config.loop.autocast(images.device):
            blocks = network.blocks(images * 255)
        pixels = pixel_loss(
            *half_of_pixels(blocks, indices, step),
            config.task.class_weights(weights, step),
            config.task.jaccard_weight,
            members,
        )
        return pixels.total, {"cross_entropy": pixels.cross_entropy, "jaccard": pixels.jaccard}

    return loss


def trained(network: PlainHead, config: TransformerTraining, frames: Frames, run: Run) -> PlainHead:
    """Train or resume in the run's folder; returns the averaged network."""
    network.to(memory_format=config.loop.memory_format)  # type: ignore[call-overload]
    stream = frame_stream(config, frames, config.loop.seed)
    weights = frames.class_weights(len(frames.labels))

    def rate(name: str) -> float:
        backbone = name.startswith(("image_encoder.stem", "image_encoder.blocks"))
        return config.backbone_lr if backbone else 1.0

    with prepared(stream.batch, run.processes, config.batch) as batch:
        loss = loss_of(network, batch, weights, config, frames.members())
        averaged = train(network, loss, config.loop, run, config.batch, rate)
    assert isinstance(averaged, PlainHead)
    return averaged.eval()
