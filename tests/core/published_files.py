"""Files in the layout of the published ones, with the reference weights in them."""

import argparse
import os
from pathlib import Path
from typing import Any

import reference
import torch
from safetensors.torch import load_file
from torch import Tensor

from camseg_core.config.model import CamSegConfig, save_config


class Callback:
    """A trainer's callback in a Lightning checkpoint; unpickling it makes the file `trap`."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trap}'",)


def config() -> CamSegConfig:
    """The small configuration of the reference tensors."""
    return reference.model().config


def config_file(folder: Path, of: CamSegConfig | None = None) -> Path:
    """The same as a file for `--config`."""
    path = folder / "small.json"
    save_config(of or config(), path)
    return path


def autoencoder_state() -> dict[str, Tensor]:
    """The reference weights in the published names."""
    return load_file(reference.FOLDER / "autoencoder.safetensors")


def transformer_state() -> dict[str, Tensor]:
    """The reference weights in the published names and the published model's order."""
    state = load_file(reference.FOLDER / "transformer.safetensors")
    order = {
        name: index for index, name in enumerate(reference.published_shapes("transformer_base_768"))
    }
    return {name: state[name] for name in sorted(state, key=order.__getitem__)}


def autoencoder_content(trap: Path, state: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """What the autoencoder's file holds: a Lightning checkpoint."""
    state = autoencoder_state() if state is None else state
    return {
        "epoch": 3,
        "global_step": 70,
        "pytorch-lightning_version": "1.9.0",
        "callbacks": {
            Callback: {"best": Callback(trap)},
            "ModelCheckpoint{'monitor': 'val/rec_loss'}": {"best": torch.tensor(0.5)},
        },
        "state_dict": state
        | {
            "loss.logvar": torch.zeros(()),
            "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
        },
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.zeros(7)}}, "param_groups": [{"lr": 1e-5}]}
        ],
    }


def transformer_content(
    state: dict[str, Tensor] | None = None, ema: object = None
) -> dict[str, Any]:
    """Return the transformer file's content; `ema` is its `model_ema` (default: weights + 1)."""
    state = transformer_state() if state is None else state
    layer = torch.nn.Linear(2, 2)
    return {
        "model": state,
        "model_ema": {name: tensor + 1 for name, tensor in state.items()} if ema is None else ema,
        "optimizer": torch.optim.AdamW(layer.parameters()).state_dict(),
        "epoch": 5,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(
            img_size=4096, model="mar_base", lr=1e-4, device=torch.device("cpu")
        ),
    }


def write_files(folder: Path) -> tuple[Path, Path]:
    """Both files with the reference weights; the trap is `folder / "sprung"`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "modelf16.ckpt", folder / "city768.16.pth"
    torch.save(autoencoder_content(folder / "sprung"), paths[0])
    torch.save(transformer_content(), paths[1])
    return paths
