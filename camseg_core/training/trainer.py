"""The loop that all training shares: optimiser, schedule, averaged weights, and a state from which it resumes exactly."""

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.stop_request import StopRequest
from camseg_core.training.distributed import (
    Objective,
    Processes,
    Strategy,
    gathering,
    running_average,
    share,
    unshared,
)
from camseg_core.training.loading import seed_of
from camseg_core.training.state import TrainingState

logger = logging.getLogger(__name__)

Loss = Callable[..., tuple[Tensor, dict[str, float]]]
"""Step number to the loss of this process's samples and the figures to log; torch's global generator is seeded by the step.

Where `LoopConfig.accumulate` is more than 1, it is called for every part of a step, from the second on with the number of the part."""

Validation = tuple[Mapping[str, float], npt.NDArray[np.uint8] | None]
"""Scores by name, and a picture RGB `(H, W, 3)` that shows them."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast: AdamW with linear warm-up, clipped gradients, averaged weights.

    `schedule` is what follows the warm-up: half a `cosine` down to 1 % of `lr`, or `constant`. `precision` is autocast's: matrices
    and convolutions in bf16 or fp16 (whose gradients are scaled), or fp32 throughout. `clip` bounds the norm of the whole gradient.
    `ema_decay` is the weight of the past in the running average of the weights, which is what a run returns. `strategy` is how several
    processes share the work, see `parallel.py`. `save_every` and `validate_every` count steps; both also happen at the end.

    `epochs`, passes over the frames, and `warmup_epochs` stand in for `steps` and `warmup` where they are given, see `in_steps`. `betas`
    are AdamW's. Vectors (biases, norms) never decay; `undecayed` are the beginnings of names of parts whose matrices do not either.
    `accumulate` is in how many parts, one after the other, each process takes its share of a batch: the gradient is that of the whole, in
    the memory of a part.
    """

    steps: int
    lr: float
    warmup: int = 50
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.02
    clip: float = 3.0
    ema_decay: float = 0.995
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    strategy: Strategy = "ddp"
    seed: int = 0
    save_every: int = 100
    validate_every: int = 300
    epochs: float | None = None
    warmup_epochs: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    undecayed: tuple[str, ...] = ()
    accumulate: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.save_every, self.validate_every, self.accumulate) < 1:
            raise ConfigError("steps, save_every, validate_every and accumulate are at least 1")
        if (self.epochs is not None and not self.epochs > 0) or (
            self.warmup_epochs is not None and self.warmup_epochs < 0
        ):
            raise ConfigError("epochs is above 0, and warmup_epochs 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas is {list(self.betas)}; both are from 0 to below 1")
        if not (self.lr > 0 and self.clip > 0 and self.warmup >= 0 and self.weight_decay >= 0):
            raise ConfigError("lr and clip are above 0; warmup and weight_decay are 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay is {self.ema_decay}; it is from 0 to below 1")

    def in_steps(self, frames: int, batch: int) -> "LoopConfig":
        """The same with `epochs` and `warmup_epochs` as `steps` and `warmup`, for so many frames and a whole batch of `batch`.

        An epoch is as many samples as there are frames: the last batch of one may take its rest from the next.
        """

        def steps_of(epochs: float | None, otherwise: int) -> int:
            return otherwise if epochs is None else round(epochs * frames / batch)

        steps, warmup = (
            max(1, steps_of(self.epochs, self.steps)),
            steps_of(self.warmup_epochs, self.warmup),
        )
        return replace(self, steps=steps, warmup=warmup, epochs=None, warmup_epochs=None)

    @property
    def memory_format(self) -> torch.memory_format:
        """How kernels lie in memory: channels last, which convolutions are fastest with; FSDP splits contiguous ones only."""
        return torch.contiguous_format if self.strategy == "fsdp" else torch.channels_last

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which a loss calls its networks."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(device.type, dtype, enabled=self.precision != "fp32")


class Watcher(Protocol):
    """Who is told how a run goes; see `watch.py`."""

    def started(self, done: int, steps: int, samples_per_step: int) -> None: ...
    def stepped(self, done: int, figures: Mapping[str, float], learning_rate: float) -> None: ...
    def validated(
        self, done: int, scores: Mapping[str, float], picture: npt.NDArray[np.uint8] | None
    ) -> None: ...
    def finished(self, done: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Run:
    """Where a training runs: its folder for the state, who watches, and the processes that share it."""

    folder: Path
    watcher: Watcher | None = None
    processes: Processes = field(default_factory=Processes)


def learning_rate(step: int, config: LoopConfig) -> float:
    """Factor on the base rate at `step`: linear warm-up, then the schedule."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    module: nn.Module, config: LoopConfig, scale: Callable[[str], float]
) -> list[dict[str, object]]:
    """Trainable parameters grouped by learning-rate scale and by whether they decay (vectors, such as biases and norms, do not).

    Raises:
        ConfigError: an entry of `config.undecayed` begins no parameter's name.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    names = [name for name, _ in module.named_parameters()]
    for part in config.undecayed:
        if not any(name.startswith(part) for name in names):
            raise ConfigError(
                f"undecayed names {part!r}, with which no parameter of the model begins; parameters are like {names[0]}"
            )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.startswith(config.undecayed)
            groups.setdefault((scale(name), decays), []).append(parameter)
    return [
        {
            "params": params,
            "lr": config.lr * factor,
            "base_lr": config.lr * factor,
            "weight_decay": config.weight_decay if decay else 0.0,
        }
        for (factor, decay), params in groups.items()
    ]


def train(
    module: nn.Module,
    loss: Loss,
    config: LoopConfig,
    run: Run,
    batch: int,
    scale: Callable[[str], float] = lambda name: 1.0,
    validate: Callable[[nn.Module], Validation] | None = None,
) -> nn.Module:
    """Train `module` in place and return its averaged copy.

    Every step seeds torch from (seed, step), and samples are drawn by number, so a run that is killed at any moment and started again
    in the same folder takes the same steps as one that was not. `batch` is how many samples a step has over all processes; `scale` gives a
    parameter's share of the learning rate; `validate` scores the averaged module every `validate_every` steps. `config` counts in steps,
    see `LoopConfig.in_steps`.

    Raises:
        CamSegError: the loss became NaN or infinite; the last saved state is kept. Or the saved state does not fit.
        Stopped: someone asked the run to stop; the state is saved.
    """
    if config.epochs is not None or config.warmup_epochs is not None:
        raise ConfigError("the loop counts steps: take LoopConfig.in_steps first")
    among, folder = run.processes, run.folder
    folder.mkdir(parents=True, exist_ok=True)
    module.to(among.device)
    original = (
        copy.deepcopy(module).cpu() if config.strategy == "fsdp" and among.count > 1 else module
    )
    averaged = AveragedModel(
        module, multi_avg_fn=running_average(config.ema_decay), use_buffers=True
    )
    objective = share(Objective(module, loss), averaged.module, among, config.strategy)
    optimizer = torch.optim.AdamW(parameter_groups(module, config, scale), betas=config.betas)
    scaler = torch.amp.GradScaler(among.device.type, enabled=config.precision == "fp16")
    state = TrainingState(folder / "state.safetensors", module, averaged, optimizer, scaler)
    start = state.load()
    if start and among.leads:
        logger.info("resuming %s at step %d of %d", folder, start, config.steps)
    watcher = run.watcher if among.leads else None
    if watcher is not None:
        watcher.started(start, config.steps, batch)
    done, reason = start, "done"
    with StopRequest(folder) as stop:
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * learning_rate(step, config)
            optimizer.zero_grad(set_to_none=True)
            means: dict[str, float] = {}
            for part in range(config.accumulate):
                with gathering(objective, last=part == config.accumulate - 1):
                    with torch.random.fork_rng(
                        devices=[] if among.device.type == "cpu" else [among.device]
                    ):
                        torch.manual_seed(
                            seed_of(config.seed, "step", step, *_place(part, among.rank))
                        )
                        value, figures = objective(step, part)
                    found = among.mean(
                        {"loss": value.item(), **figures, "stop": float(stop.requested is not None)}
                    )
                    if not math.isfinite(found["loss"]):
                        raise CamSegError(_not_finite("loss", found["loss"], step, state.path))
                    scaler.scale(value / config.accumulate).backward()
                means = {
                    name: means.get(name, 0.0) + figure / config.accumulate
                    for name, figure in found.items()
                }
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip)
            if not scaler.is_enabled() and not torch.isfinite(
                norm
            ):  # fp16's scaler leaves such a step out by itself
                raise CamSegError(_not_finite("gradient's norm", float(norm), step, state.path))
            scaler.step(optimizer)
            scaler.update()
            averaged.update_parameters(module)
            done = step + 1
            stopping = means.pop("stop") > 0
            if watcher is not None:
                watcher.stepped(done, means, config.lr * learning_rate(step, config))
            last = done == config.steps
            if validate is not None and (last or done % config.validate_every == 0):
                plain = unshared(averaged.module, original, among.device)
                if watcher is not None:
                    watcher.validated(done, *validate(plain))
                among.wait()
            # after the validation: a run killed in between does both again
            if last or stopping or done % config.save_every == 0:
                state.save(done, among.leads)
            if stopping and not last:
                reason = stop.requested or "another process was asked to stop"
                break
    if watcher is not None:
        watcher.finished(done, reason)
    if done < config.steps:
        raise Stopped(
            f"stopped after step {done} of {config.steps} ({reason}); the same command goes on from there"
        )
    result: nn.Module = unshared(averaged.module, original, among.device)
    return result


def _place(part: int, rank: int) -> tuple[int | str, ...]:
    """What sets the random numbers of a part of a step, and of a process, apart, such as those of dropout."""
    return (*(("part", part) if part else ()), *(("rank", rank) if rank else ()))


class Stopped(CamSegError):
    """The run was asked to stop, and has saved its state."""


def _not_finite(what: str, value: float, step: int, state: Path) -> str:
    kept = f"the last good state is {state}" if state.is_file() else "nothing was saved yet"
    return f"the {what} is {value} at step {step}; {kept}; train with a lower learning rate in another --run, or look for bad samples"
