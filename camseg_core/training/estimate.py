"""Training estimates: memory by purpose, operations and least time; and timing of a few steps."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from camseg_core.config.model import CamSegConfig
from camseg_core.evaluation.flops import work_by_stage
from camseg_core.evaluation.roofline import Device
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import (
    Processes,
    block_parameters,
)
from camseg_core.training.settings import LoopConfig
from camseg_core.training.step_cost import count_step
from camseg_core.training.trainer import Callback, Run
from camseg_core.training.transformer import TransformerTraining

CAVEAT = (
    "Counted, not measured. Times are lower bounds: every device at its peak rate for dense "
    "matrices, or at --utilisation of it, and nothing waits. Memory excludes the device's own "
    "context, the workspace of kernels, fragmentation, and the autoencoder while it encodes."
)
"""What a reader of an estimate must know."""


@dataclass(frozen=True)
class TrainingEstimate:
    """The cost of training a model on `processes` devices.

    Attributes:
        learning: parameters that are trained.
        frozen: parameters that are not.
        processes: devices.
        recompute: whether blocks are checkpointed.
        memory: bytes on each device, by purpose.
        activations: bytes kept for the backward pass, with the inside of the largest block where
            blocks are checkpointed.
        other_activations: the same with checkpointing the other way round, if asked for.
        step_operations: floating-point operations of a step over all devices.
        once: floating-point operations of encoding all frames before the first step.
        steps: optimiser steps.
        steps_per_epoch: steps in one pass over the frames.
    """

    learning: int
    frozen: int
    processes: int
    recompute: bool
    memory: Mapping[str, float]
    activations: float
    other_activations: float | None
    step_operations: float
    once: float
    steps: int
    steps_per_epoch: float

    @property
    def total(self) -> float:
        """Bytes on each device."""
        return sum(self.memory.values()) + self.activations

    def step_seconds(self, rate: float) -> float:
        """Return the least time of a step on devices of `rate` operations/s."""
        return self.step_operations / (self.processes * rate)


def estimate(
    model: CamSegConfig,
    labels: tuple[Label, ...],
    training: TransformerTraining,
    frames: int,
    processes: int = 1,
    compare: bool = True,
) -> TrainingEstimate:
    """Estimate the training of `model` on `frames` frames from shapes alone.

    With `compare`, activations are counted both with and without checkpointing.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
    """
    loop = training.loop.in_steps(frames, training.batch)
    with torch.device("meta"):
        shapes = CamSeg(model, labels)
    training.freeze(shapes)
    at_once = len(Processes(0, processes).samples(0, training.batch, parts=loop.grad_accum_steps))
    checkpointing = training.gradient_checkpointing
    counted = count_step(model, labels, training, at_once, checkpointing)
    other = count_step(model, labels, training, at_once, not checkpointing) if compare else None
    encoding = _encoding(model, labels, training)
    fresh = training.augment in ("crop", "vary")
    return TrainingEstimate(
        learning=_count(shapes, learning=True),
        frozen=_count(shapes, learning=False),
        processes=processes,
        recompute=checkpointing,
        memory=_standing(shapes, training, processes),
        activations=counted.activations,
        other_activations=None if other is None else other.activations,
        step_operations=(counted.operations + (encoding if fresh else 0)) * training.batch,
        once=0.0 if fresh else encoding * frames * (2 if training.augment == "flip" else 1),
        steps=loop.steps,
        steps_per_epoch=frames / training.batch,
    )


def _count(module: nn.Module, learning: bool) -> int:
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad is learning
    )


def _standing(shapes: CamSeg, training: TransformerTraining, processes: int) -> dict[str, float]:
    """Bytes that stay from step to step, and those of weights in another form."""
    learning, everything = _count(shapes, True), _count(shapes, True) + _count(shapes, False)
    split = training.loop.strategy == "fsdp" and processes > 1
    share = processes if split else 1
    found = {
        "weights": 4 * everything / share,
        "gradients": 4 * learning / share,
        "optimiser": 8 * learning / share,
        "running average": 4 * everything / share,
    }
    if split:
        in_blocks = block_parameters(shapes)
        root, root_learning = everything - sum(in_blocks), learning - sum(in_blocks)
        # parameters outside blocks stay gathered during a step; so do two blocks (the next one is
        # prefetched) and the gradients of one
        found["weights and gradients gathered"] = 4 * (root + root_learning) + 4 * 3 * max(
            in_blocks, default=0
        )
    elif processes > 1:
        found["gradients on their way"] = 4 * learning
    if training.loop.precision != "fp32":
        matrices = sum(p.numel() for p in shapes.parameters() if p.requires_grad and p.ndim > 1)
        found[f"matrices in {training.loop.precision}"] = 2 * matrices
    return found


def _encoding(
    model: CamSegConfig, labels: tuple[Label, ...], training: TransformerTraining
) -> float:
    """Floating-point operations of encoding a frame and its mask to latents."""
    if model.autoencoder is None:
        return 0.0
    with FakeTensorMode():
        work = work_by_stage(CamSeg(model, labels).eval(), *training.crop)
    return 2 * 2 * work["image_encoder"].multiply_accumulates  # image and mask; two operations


def estimate_lines(
    found: TrainingEstimate, devices: tuple[Device, ...], utilisation: float = 1.0
) -> Iterator[str]:
    """Yield the estimate as lines of text, with the least time on each of `devices`.

    `utilisation` is the share of their peak rate that is assumed.
    """
    learning, frozen = found.learning / 1e6, found.frozen / 1e6
    yield f"{learning:.1f} million parameters learn, {frozen:.1f} million are frozen"
    yield f"on each of {found.processes} devices:" if found.processes > 1 else "on the device:"
    for name, size in found.memory.items():
        yield f"  {name:<32}{_gigabytes(size)}"
    way, other = ("recomputed", "kept") if found.recompute else ("kept", "recomputed")
    against = (
        ""
        if found.other_activations is None
        else f"   ({found.other_activations / 1e9:.2f} GB with blocks {other})"
    )
    yield f"  {f'activations, blocks {way}':<32}{_gigabytes(found.activations)}{against}"
    yield f"  {'total':<32}{_gigabytes(found.total)}"
    if found.once:
        yield f"{_flop(found.once)} once, to encode all frames"
    epoch, whole = (
        found.steps_per_epoch * found.step_operations,
        found.steps * found.step_operations,
    )
    yield (
        f"{_flop(found.step_operations)} a step, "
        f"{_flop(epoch)} an epoch of {found.steps_per_epoch:.1f} steps, "
        f"{_flop(whole)} in {found.steps} steps"
    )
    at = "the peak rate" if utilisation == 1 else f"{100 * utilisation:.0f} % of the peak rate"
    for device in devices:
        if device.training is None:
            continue
        seconds = found.step_seconds(device.training * utilisation)
        fits = "" if device.memory is None else f"; {_fits(found.total, device.memory)}"
        yield (
            f"{found.processes} × {device.name} at {at}: {1e3 * seconds:.1f} ms a step, "
            f"{_span(seconds * found.steps)} for the run{fits}"
        )


def _fits(needed: float, there: float) -> str:
    return f"{needed / 1e9:.1f} of {there / 1e9:g} GB" + (
        "" if needed < there else ": DOES NOT FIT"
    )


def _flop(operations: float) -> str:
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if operations >= size:
            return f"{operations / size:.2f} {prefix}FLOP"
    return f"{operations / 1e9:.2f} GFLOP"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:8.2f} GB"


def _span(seconds: float) -> str:
    hours = seconds / 3600
    return (
        f"{seconds / 60:.1f} min"
        if hours < 2
        else f"{hours:.1f} h"
        if hours < 72
        else f"{hours / 24:.1f} days"
    )


_TIMED_STEPS = 3
"""The first of them is not counted."""


class _Clock(Callback):
    """Records when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, done: int, figures: Mapping[str, float], learning_rate: float) -> None:
        self.ends.append(time.perf_counter())


def seconds_per_step(train: Callable[[Run], object], processes: Processes) -> float:
    """Time a training with a `timed_loop`, in s a step; 0 except in the main process."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        train(Run(Path(folder), (clock,), processes, keeps_state=False))
    if len(clock.ends) < 2:
        return 0.0
    return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)


def timed_loop(loop: LoopConfig) -> LoopConfig:
    """Return the loop with as few steps as `seconds_per_step` needs."""
    return replace(loop, steps=_TIMED_STEPS, epochs=None, warmup=0, warmup_epochs=None)
