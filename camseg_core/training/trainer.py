"""The training loop: optimiser, schedule, averaged weights, and a state for exact resume."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.long_runs import StopRequest
from camseg_core.training.distributed import (
    Objective,
    Processes,
    running_average,
    sync_context,
    unwrap_distributed,
    wrap_distributed,
)
from camseg_core.training.loading import seed_of
from camseg_core.training.settings import LoopConfig
from camseg_core.training.state import TrainingState

logger = logging.getLogger(__name__)

Loss = Callable[..., tuple[Tensor, dict[str, float]]]
"""`loss(step)` returns the loss of this process's samples (scalar) and the figures to log.

torch's global generator is seeded by the step. With `LoopConfig.grad_accum_steps` above 1 it is
called once for each part of a step, as `loss(step, part)` from the second part on.
"""

Picture = npt.NDArray[np.uint8]

Validation = tuple[Mapping[str, float], Picture | None]
"""Scores by name, and a picture RGB `(H, W, 3)` that shows them."""


class Callback:
    """Base callback; every hook is a no-op. Only the main process calls callbacks."""

    def on_average(self, averaged: nn.Module) -> None:
        """The run is about to start; `averaged` holds the running average of the weights."""

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        """The run starts, or resumes after `done` of its `steps`."""

    def on_step_end(self, done: int, figures: Mapping[str, float], learning_rate: float) -> None:
        """Step `done` is complete; `figures` holds its `loss` and the loss's parts."""

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        """The averaged model after `done` steps has these scores; `picture` is RGB `(H, W, 3)`."""

    def has_enough(self) -> bool:
        """Whether the run may end early; only supported with one process."""
        return False

    def on_train_end(self, done: int, reason: str) -> None:
        """No more steps follow."""


@dataclass(frozen=True)
class Run:
    """Where a training runs: the folder of its state, its callbacks and its processes.

    Without `keeps_state`, nothing is written to the folder: the training cannot be resumed.
    """

    folder: Path
    callbacks: Sequence[Callback] = ()
    processes: Processes = field(default_factory=Processes)
    keeps_state: bool = True


def learning_rate(step: int, config: LoopConfig) -> float:
    """Return the factor on the base rate at `step`: linear warm-up, then the schedule."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    module: nn.Module, config: LoopConfig, scale: Callable[[str], float]
) -> list[dict[str, object]]:
    """Group trainable parameters by learning-rate scale and by whether they decay.

    Vectors, such as biases and norms, do not decay.

    Raises:
        ConfigError: an entry of `config.no_weight_decay` is a prefix of no parameter's name.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    names = [name for name, _ in module.named_parameters()]
    for prefix in config.no_weight_decay:
        if not any(name.startswith(prefix) for name in names):
            raise ConfigError(
                f"no_weight_decay must list prefixes of parameter names, got {prefix!r}; "
                f"names are like {names[0]}"
            )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.startswith(config.no_weight_decay)
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

    Every step seeds torch from (seed, step), and samples are drawn by number: a run that is killed
    at any moment and started again in the same folder takes the same steps as an uninterrupted one.

    Args:
        module: what is trained.
        loss: see `Loss`.
        config: counts in steps, see `LoopConfig.in_steps`.
        run: folder, callbacks and processes.
        batch: samples in a step over all processes.
        scale: a parameter's name to its share of the learning rate.
        validate: scores the averaged module every `validate_every` steps.

    Raises:
        CamSegError: the loss became NaN or infinite; the last saved state is kept. Or the saved
            state does not fit, or the state cannot be saved.
        Stopped: a stop was requested, even if no step was left; the state is saved.
    """
    if config.epochs is not None or config.warmup_epochs is not None:
        raise ConfigError("train() counts in steps: convert with LoopConfig.in_steps first")
    processes, folder = run.processes, run.folder
    folder.mkdir(parents=True, exist_ok=True)
    module.to(processes.device)
    sharded = config.strategy == "fsdp" and processes.world_size > 1
    original = copy.deepcopy(module).cpu() if sharded else module
    averaged = AveragedModel(
        module, multi_avg_fn=running_average(config.ema_decay), use_buffers=True
    )
    objective = wrap_distributed(
        Objective(module, loss), averaged.module, processes, config.strategy
    )
    optimizer = torch.optim.AdamW(parameter_groups(module, config, scale), betas=config.betas)
    scaler = torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16")
    state = TrainingState(folder / "state.safetensors", module, averaged, optimizer, scaler)
    start = state.load()
    if start and processes.is_main_process:
        logger.info("resuming %s at step %d of %d", folder, start, config.steps)
    callbacks = run.callbacks if processes.is_main_process else ()
    for callback in callbacks:
        callback.on_average(averaged.module)
        callback.on_train_begin(start, config.steps, batch)
    done = start
    last = done == config.steps or _enough(callbacks)
    with StopRequest(folder) as stop:
        for step in range(start, start if last else config.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * learning_rate(step, config)
            optimizer.zero_grad(set_to_none=True)
            figures = _backward(objective, step, config, processes, scaler, stop, state.path)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip)
            if not scaler.is_enabled() and not torch.isfinite(norm):  # fp16's scaler skips it
                raise CamSegError(_not_finite("gradient's norm", float(norm), step, state.path))
            scaler.step(optimizer)
            scaler.update()
            averaged.update_parameters(module)
            done = step + 1
            stopping = figures.pop("stop") > 0
            for callback in callbacks:
                callback.on_step_end(done, figures, config.lr * learning_rate(step, config))
            last = done == config.steps
            if validate is not None and (last or done % config.validate_every == 0):
                plain = unwrap_distributed(averaged.module, original, processes.device)
                if callbacks:
                    found = validate(plain)
                    for callback in callbacks:
                        callback.on_validation_end(done, *found)
                processes.wait()
                last = last or _enough(callbacks)
            # after the validation: a run killed in between repeats both
            if run.keeps_state and (last or stopping or done % config.save_every == 0):
                state.save(done, processes.is_main_process)
            if stopping or last:
                break
        # also a request that came after the last step began, as during its validation
        stopped = processes.mean({"stop": float(stop.requested is not None)})["stop"] > 0
        reason = stop.requested or "another process was asked to stop"
    for callback in callbacks:
        callback.on_train_end(done, "done" if last else reason)
    if not last or (stopped and not run.keeps_state):
        raise Stopped(
            f"stopped after step {done} of {config.steps} ({reason}); "
            "run the same command to continue"
        )
    if stopped:
        raise Stopped(
            f"stopped after the last step, {done} ({reason}): all steps are done; "
            "run the same command to finish"
        )
    result: nn.Module = unwrap_distributed(averaged.module, original, processes.device)
    return result


def _backward(
    objective: nn.Module,
    step: int,
    config: LoopConfig,
    processes: Processes,
    scaler: torch.amp.GradScaler,
    stop: StopRequest,
    state: Path,
) -> dict[str, float]:
    """Add up the gradients of a step, part by part; return its figures over all processes."""
    means: dict[str, float] = {}
    devices = [] if processes.device.type == "cpu" else [processes.device]
    for part in range(config.grad_accum_steps):
        with sync_context(objective, last=part == config.grad_accum_steps - 1):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed_of(config.seed, "step", step, *_place(part, processes.rank)))
                value, figures = objective(step, part)
            stopping = float(stop.requested is not None)
            found = processes.mean({"loss": value.item(), **figures, "stop": stopping})
            if not math.isfinite(found["loss"]):
                raise CamSegError(_not_finite("loss", found["loss"], step, state))
            scaler.scale(value / config.grad_accum_steps).backward()
        for name, figure in found.items():
            means[name] = means.get(name, 0.0) + figure / config.grad_accum_steps
    return means


def _enough(callbacks: Sequence[Callback]) -> bool:
    return any(callback.has_enough() for callback in callbacks)


def _place(part: int, rank: int) -> tuple[int | str, ...]:
    """Separate the random numbers, such as dropout's, of parts of a step and of processes."""
    return (*(("part", part) if part else ()), *(("rank", rank) if rank else ()))


class Stopped(CamSegError):
    """A stop was requested, and the state is saved."""


def _not_finite(what: str, value: float, step: int, state: Path) -> str:
    kept = f"the last good state is {state}" if state.is_file() else "no state was saved yet"
    return (
        f"the {what} must be finite, got {value} at step {step}; {kept}; "
        "lower the learning rate in another --run, or look for bad samples"
    )
