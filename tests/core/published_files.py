"""The published model's two files as its release has them, with the reference weights: a Lightning checkpoint and a training's dict."""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import reference
import torch
from safetensors.torch import load_file
from torch import Tensor


class TrainerCallback:
    """Something of a trainer that a Lightning checkpoint carries along; no reader knows its class."""

    def __init__(self) -> None:
        self.best, self.history = torch.ones(2), [1, 2]


def autoencoder_content() -> dict[str, Any]:
    """Weights under `state_dict`, with those of the training loss among them."""
    weights = OrderedDict(load_file(reference.FOLDER / "autoencoder.safetensors"))
    weights["loss.logvar"] = torch.zeros(())
    weights["loss.discriminator.main.0.weight"] = torch.zeros(4, 3, 4, 4)
    return {"epoch": 3, "global_step": 10, "state_dict": weights, "callbacks": {"early": TrainerCallback()}, "loops": TrainerCallback}


def transformer_content() -> dict[str, Any]:
    """`model`, `model_ema` (here half of it), and what a training keeps beside them."""
    weights = load_file(reference.FOLDER / "transformer.safetensors")
    model = OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in weights.items())
    return {
        "model": model,
        "model_ema": {name: tensor / 2 for name, tensor in weights.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 1999,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="mar_base", img_size=768),
    }


def write(folder: Path, autoencoder: Any = None, transformer: Any = None, **options: Any) -> tuple[Path, Path]:
    """Write both files, of these contents or the usual ones; returns their paths. `options` are those of `torch.save`."""
    paths = folder / "modelf16.ckpt", folder / "city768.16.pth"
    for path, content in zip(paths, (autoencoder or autoencoder_content(), transformer or transformer_content()), strict=True):
        torch.save(content, path, **options)
    return paths


def shared_view() -> Tensor:
    """A view with an offset and strides of its own, of a larger storage."""
    return torch.arange(12.0).view(3, 4)[1:, 1:].t()
