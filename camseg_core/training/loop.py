"""The loop that all training shares: optimiser, schedule, averaged weights, and a state from which it resumes exactly."""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from camseg_core.errors import CamSegError

logger = logging.getLogger(__name__)

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]
"""Step number to the loss to minimise and the figures to log; draws its randomness from torch's seeded global generator."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast: AdamW with linear warm-up and cosine decay, clipped gradients, averaged weights."""

    steps: int
    lr: float
    warmup: int = 50
    weight_decay: float = 0.02
    clip: float = 3.0
    ema_decay: float = 0.995
    seed: int = 0
    save_every: int = 100
    log_every: int = 10


def learning_rate(step: int, config: LoopConfig) -> float:
    """Factor on the base rate at `step`: linear warm-up, then half a cosine down to 1 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(module: nn.Module, config: LoopConfig, scale: Callable[[str], float]) -> list[dict[str, object]]:
    """Trainable parameters grouped by learning-rate scale and by whether they decay (vectors, such as biases and norms, do not)."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scale(name), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": params, "lr": config.lr * factor, "base_lr": config.lr * factor, "weight_decay": config.weight_decay if decay else 0.0}
        for (factor, decay), params in groups.items()
    ]


def train(
    module: nn.Module,
    loss: Loss,
    config: LoopConfig,
    run: Path,
    scale: Callable[[str], float] = lambda name: 1.0,
    on_save: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train `module` in place and return its averaged copy.

    Every step seeds torch from (seed, step), so a run that is killed and started again in the same folder takes the same
    steps as one that was not. `scale` gives a parameter's share of the learning rate; `on_save` is called with the step
    and the averaged module whenever the state is saved.

    Raises:
        CamSegError: the loss became NaN or infinite; the last saved state is kept.
    """
    run.mkdir(parents=True, exist_ok=True)
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(parameter_groups(module, config, scale), betas=(0.9, 0.95))
    start = _load_state(run / "state.safetensors", module, averaged, optimizer)
    if start:
        logger.info("resuming %s at step %d of %d", run, start, config.steps)
    began, figures_sum = time.monotonic(), dict[str, float]()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate(step, config)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed * 1_000_003 + step)
            value, figures = loss(step)
        if not torch.isfinite(value):
            raise CamSegError(f"the loss is {value.item()} at step {step}; the last good state is {run / 'state.safetensors'}")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        optimizer.step()
        averaged.update_parameters(module)
        for name, figure in {"loss": value.item(), **figures}.items():
            figures_sum[name] = figures_sum.get(name, 0.0) + figure
        done = step + 1
        if done % config.log_every == 0:
            pace = (time.monotonic() - began) / (done - start)
            text = " ".join(f"{name} {total / config.log_every:.4f}" for name, total in figures_sum.items())
            logger.info("step %d/%d %s  %.2f s/step, %.0f min left", done, config.steps, text, pace, pace * (config.steps - done) / 60)
            figures_sum.clear()
        if done % config.save_every == 0 or done == config.steps:
            _save_state(run / "state.safetensors", done, module, averaged, optimizer)
            if on_save is not None:
                on_save(done, averaged.module)
    result: nn.Module = averaged.module
    return result


def _save_state(path: Path, step: int, module: nn.Module, averaged: AveragedModel, optimizer: torch.optim.Optimizer) -> None:
    """Write everything a resumed run needs, tensors only, and put it in place in one move."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in entries.items()}
    temporary = path.with_suffix(".tmp")
    # contiguous clones: safetensors refuses tensors that share memory or are strided (channels_last)
    contiguous = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, {"step": str(step)})
    os.replace(temporary, path)


def _load_state(path: Path, module: nn.Module, averaged: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
    """Read what `_save_state` wrote; the step to go on from, 0 without a file."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    module.load_state_dict({name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")})
    averaged.load_state_dict({name.removeprefix("averaged."): t for name, t in tensors.items() if name.startswith("averaged.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
