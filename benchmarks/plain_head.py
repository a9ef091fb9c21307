"""Train the peer of camseg-lite without a latent space, and score it on CamVid val.

    python benchmarks/plain_head.py --data <CamVid root> --run runs/plain-head

It has camseg-lite's image encoder, transformer and refiner and is trained the same way. Instead of
a mask autoencoder and a diffusion head, the subject of CAM-Seg (arXiv 2503.15617), a convolutional
head of the same size reads the conditions and writes class logits, with the same loss on pixels.
The same `--run` resumes. The result is `plain-head.safetensors` in that folder.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from document import (
    camvid_frames,
    current_commit,
    log_training,
    machine_and_torch,
    training_parser,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from camseg_core.config.backbone import finer_features
from camseg_core.config.yaml_file import load_yaml
from camseg_core.data.augmentation import random_crops
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import CAMVID_11_TRAIN_IDS
from camseg_core.model.image_encoder import ImageEncoder
from camseg_core.model.mask_autoencoder import MaskDecoder
from camseg_core.model.transformer import ConditionRefiner, MaskedTransformer
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.training.callbacks import Display
from camseg_core.training.distill import DistillationRecipe
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, FrameStream, prepared
from camseg_core.training.losses import pixel_loss
from camseg_core.training.mask_autoencoder import pad_to_multiple
from camseg_core.training.recipes import Recipe
from camseg_core.training.trainer import Run, train
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import CAMSEG_LITE_CAMVID

CONFIG = Path(__file__).parents[1] / "config" / "train"
CELL_WIDTH, CELL_CHANNELS = 128, 32
"""Channels of the block at stride 8, the width of the diffusion head, and at stride 4."""


class CellBlock(nn.Module):
    """A residual block of two 3×3 convolutions, about as large as the diffusion head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(CELL_WIDTH, CELL_WIDTH, 3, padding=1, bias=False) for _ in range(2)
        )
        self.norm1, self.norm2 = (nn.BatchNorm2d(CELL_WIDTH) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.second(F.relu(self.norm1(self.first(x))))))


class PlainHead(nn.Module):
    """RGB `(B, 3, H, W)` in 0..255, H and W multiples of 32, to class logits `(B, K, H, W)`."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        config = CAMSEG_LITE_CAMVID
        assert config.image_encoder is not None
        assert config.refiner is not None
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.transformer = MaskedTransformer(
            config.transformer, config.image_encoder.width, config.token_channels
        )
        self.refiner = ConditionRefiner(
            config.refiner, config.transformer.width, finer_features(config.image_encoder.stride)
        )
        assert config.mask_autoencoder is not None
        self.cells = nn.Sequential(
            nn.Conv2d(config.condition_width, CELL_WIDTH, 1),
            CellBlock(),
            nn.Conv2d(CELL_WIDTH, 4 * CELL_CHANNELS, 1),
            nn.PixelShuffle(2),
        )
        decoder = config.mask_autoencoder
        self.head = MaskDecoder(
            CELL_CHANNELS, decoder.classes, decoder.decoder_widths, decoder.decoder_blocks
        )
        self.register_buffer(
            "pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.image_encoder((pixels.float() - self.pixel_mean) / self.pixel_std)
        rows, columns = features[0].shape[2:]
        tokens = features[0].flatten(2).transpose(1, 2)  # (B, L, D)
        # every mask token stays hidden: the transformer says where it is, and no more
        conditions = self.refiner(
            self.transformer(tokens, (rows, columns), None, None), (rows, columns), *features[1:]
        )
        return self.head(
            self.cells(conditions.transpose(1, 2).unflatten(2, (2 * rows, 2 * columns)))
        )

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, path)


class PlainSegmenter:
    """The peer as `camseg robustness` takes it: segments RGB `(H, W, 3)` uint8 in torch, fp32."""

    def __init__(self, weights: Path) -> None:
        self.network = PlainHead()
        self.network.load_state_dict(load_file(weights))
        self.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ids = torch.tensor(CAMVID_11_TRAIN_IDS, dtype=torch.uint8)

    @torch.no_grad()
    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one frame at its own size."""
        began = time.perf_counter()
        height, width = rgb.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).unsqueeze(0).float()
        logits = self.network(pad_to_multiple(pixels, CAMSEG_LITE_CAMVID.size_multiple))[
            0, :, :height, :width
        ]
        confidence, index = logits.softmax(0).max(0)
        mask = self._ids[index]
        return Segmentation(
            mask.numpy(), confidence.numpy(), {"network": (time.perf_counter() - began) * 1000}
        )


def loss_of(
    network: PlainHead,
    batch: Batch,
    weights: Tensor,
    config: TransformerTraining,
    members: Tensor | None = None,
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy and soft Jaccard as for camseg-lite's decoded masks, in the same order."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        network.train()
        images, indices = batch(range(step * config.batch, (step + 1) * config.batch))
        with config.loop.autocast(images.device):
            logits = network(images * 255)
        pixels = pixel_loss(
            logits,
            indices,
            config.task.class_weights(weights, step),
            config.task.jaccard_weight,
            members,
        )
        return pixels.total, {"cross_entropy": pixels.cross_entropy, "jaccard": pixels.jaccard}

    return loss


def trained(
    network: PlainHead,
    config: TransformerTraining,
    frames: Frames,
    val: Frames,
    folder: Path,
    workers: int = 0,
) -> PlainHead:
    """Train or resume in `folder`; returns the averaged network. `workers` prepare samples."""
    network.to(memory_format=config.loop.memory_format)  # type: ignore[call-overload]
    stream = FrameStream(
        frames,
        random_crops(config.crop, config.crop_area, color=True),
        config.loop.seed,
    )
    weights = frames.class_weights(len(CAMVID_11_TRAIN_IDS))

    def rate(name: str) -> float:
        return (
            config.backbone_lr
            if name.startswith(("image_encoder.stem", "image_encoder.blocks"))
            else 1.0
        )

    def validate(averaged: nn.Module) -> tuple[dict[str, float], None]:
        return {"mIoU": mean_iou(averaged.eval(), val.every(5))}, None

    run = Run(folder, (Display(folder.name, every=50),), Processes(workers=workers))
    with prepared(stream.batch, run.processes, config.batch) as batch:
        averaged = train(
            network,
            loss_of(network, batch, weights, config, frames.members()),
            config.loop,
            run,
            config.batch,
            rate,
            validate,
        )
    assert isinstance(averaged, PlainHead)
    return averaged.eval()


@torch.no_grad()
def mean_iou(network: nn.Module, frames: Frames) -> float:
    """Mean IoU on whole frames, in bf16, as trainings validate."""
    confusion = Confusion(len(CAMVID_11_TRAIN_IDS))
    for image, indices in frames:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(
                pad_to_multiple(image.unsqueeze(0).float(), CAMSEG_LITE_CAMVID.size_multiple)
            )
        confusion.add(
            indices.numpy(), logits[0, :, : indices.shape[0], : indices.shape[1]].argmax(0).numpy()
        )
    return confusion.mean_iou()


def main() -> None:
    """Train, tune and score."""
    parser = training_parser("Train the peer of camseg-lite without a latent space.")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that prepare samples; they change nothing but the time",
    )
    arguments = parser.parse_args()
    log_training()
    frames, val = camvid_frames(arguments.data)
    recipe, tuning = (
        load_yaml(CONFIG / "camseg-lite-camvid.yaml", Recipe),
        load_yaml(CONFIG / "distill.yaml", DistillationRecipe),
    )
    commit = current_commit("camseg_core", "benchmarks/plain_head.py")
    torch.manual_seed(recipe.training.loop.seed)
    network = PlainHead()
    network.image_encoder.load_imagenet()
    network = trained(
        network, recipe.training, frames, val, arguments.run / "trained", arguments.workers
    )
    # camseg-lite was tuned for some steps on nearly whole frames as well
    network = trained(
        network, tuning.training, frames, val, arguments.run / "tuned", arguments.workers
    )
    network.save(arguments.run / "plain-head.safetensors")
    score = {
        "mean_iou": round(mean_iou(network, val), 4),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "commit": commit,
        "machine": machine_and_torch(),
    }
    (arguments.run / "result.json").write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(score))


if __name__ == "__main__":
    main()
