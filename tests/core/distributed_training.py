"""A short training of a small model of the published layout, started by `torchrun`.

Arguments: strategy, folder, steps. Each process that ends writes the names of its threads to
`threads-<rank>.txt` in the folder.
"""

import atexit
import os
import sys
from pathlib import Path
from typing import Literal

import torch

from camseg_core.config.model import (
    CamSegConfig,
    DenoiserConfig,
    KLAutoencoderConfig,
    TransformerConfig,
)
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import init_processes
from camseg_core.training.frames import Frames
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
CONFIG = CamSegConfig(
    name="tiny-published",
    network_pixels=64 * 64,
    transformer=TransformerConfig(
        width=32, encoder_depth=2, decoder_depth=2, heads=2, grid=(8, 8), dropout=0.0
    ),
    denoiser=DenoiserConfig(width=32, depth=2),
    autoencoder=KLAutoencoderConfig(
        base_width=32, multipliers=(1, 1, 1, 1), blocks_per_level=1, latent_channels=4
    ),
)


def train(strategy: Literal["ddp", "fsdp"], folder: Path, steps: int = 4) -> None:
    """Train for some steps of four samples; write the averaged weights to `weights.pt` there."""
    frames = Frames.load(SyntheticDrive(frames=4, height=64, width=64, seed=1), LABELS)
    torch.manual_seed(0)
    model = CamSeg(CONFIG, LABELS)
    loop = LoopConfig(
        steps=steps,
        lr=1e-3,
        warmup=1,
        schedule="constant",
        ema_decay=0.5,
        precision="fp32",
        strategy=strategy,
        save_every=2,
    )
    with init_processes() as processes:
        trained = train_transformer(
            TransformerTraining(loop, batch=4, augment="flip", crop=(64, 64), all_hidden=0.5),
            model,
            frames,
            Run(folder, processes=processes),
        )
        if processes.is_main_process:
            torch.save(trained.state_dict(), folder / "weights.pt")


def write_threads(folder: Path) -> None:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads-{os.environ['RANK']}.txt").write_text("\n".join(names))


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted, where, count = sys.argv[1:]
    atexit.register(write_threads, Path(where))  # the first that is registered runs last
    train("fsdp" if wanted == "fsdp" else "ddp", Path(where), int(count))
