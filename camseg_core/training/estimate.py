"""What a training takes before it runs: memory of a device by what it is for, operations, and the least time on devices."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.config.model import CamSegConfig
from camseg_core.evaluation.roofline import Device
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.model.flops import work_by_stage
from camseg_core.model.training_work import (
    Load,
    inside_of_a_block,
    kept_for_backward,
    step_operations,
)
from camseg_core.training.distributed import (
    Processes,
    block_parameters,
    enable_gradient_checkpointing,
    repeated_blocks,
)
from camseg_core.training.objectives import Cut
from camseg_core.training.transformer import TransformerTraining

_LARGEST_VISIBLE = 0.3
"""Share of the mask's tokens that the encoder sees at the most: 0.7 are always hidden."""

CAVEAT = (
    "Counted, not measured. Times are bounds: all devices at their peak rate for dense matrices, or at --utilisation of it, and nothing "
    "waits. Memory is without the device's own context, the workspace of kernels, what the allocator wastes, and the autoencoder while it "
    "encodes."
)
"""What a reader of an estimate must know."""


@dataclass(frozen=True)
class TrainingEstimate:
    """A training of a model on `processes` devices.

    `memory` is bytes on each device by what they are for, `activations` those that are kept for the backward pass (with the inside of the
    largest block, where blocks are recomputed) as the configuration has it, and `other_activations` with `gradient_checkpointing` the other way
    round, if asked for. `step_operations` are floating-point operations of a step over all devices, `once` those of encoding all frames
    before the first.
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
        """The least time of a step on devices of `rate` operations/s."""
        return self.step_operations / (self.processes * rate)


def estimate(
    model: CamSegConfig,
    labels: tuple[Label, ...],
    training: TransformerTraining,
    frames: int,
    processes: int = 1,
    compare: bool = True,
) -> TrainingEstimate:
    """Of training `model` on so many frames; nothing is loaded or run, only shapes are followed. `compare` counts blocks both ways.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
    """
    loop = training.loop.in_steps(frames, training.batch)
    with torch.device("meta"):
        shapes = CamSeg(model, labels)
    codec = shapes.mask_autoencoder or shapes.autoencoder
    assert codec is not None
    codec.requires_grad_(False)
    if shapes.mask_autoencoder is not None:
        shapes.mask_autoencoder.decoder.requires_grad_(True)
    at_once = len(Processes(0, processes).samples(0, training.batch, parts=loop.grad_accum_steps))
    counted = _published if shapes.autoencoder is not None else _with_mask_autoencoder
    operations, encoding, activations = counted(
        model, labels, training, at_once, training.gradient_checkpointing
    )
    others = (
        counted(model, labels, training, at_once, not training.gradient_checkpointing)[2]
        if compare
        else None
    )
    fresh = training.augment in ("crop", "vary")
    return TrainingEstimate(
        learning=_count(shapes, learning=True),
        frozen=_count(shapes, learning=False),
        processes=processes,
        recompute=training.gradient_checkpointing,
        memory=_standing(shapes, training, processes),
        activations=activations,
        other_activations=others,
        step_operations=(operations + (encoding if fresh else 0)) * training.batch,
        once=0.0 if fresh else encoding * frames * (2 if training.augment == "flip" else 1),
        steps=loop.steps,
        steps_per_epoch=frames / training.batch,
    )


def mean_visible(cut: Cut) -> float:
    """The share of the mask's tokens that the encoder sees on average, where not all are hidden: see `Cut`."""
    ends = 0.3 / 0.25  # in deviations of 0.25 below 1
    within = 0.5 * math.erf(ends / math.sqrt(2))
    below = 0.25 * (1 - math.exp(-(ends**2) / 2)) / math.sqrt(2 * math.pi)
    return below / within if cut == "truncate" else below + 0.3 * (0.5 - within)


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
        # what is in no block stays gathered during a step; of blocks two are, as the next one is fetched ahead; and their gradients
        found["weights and gradients gathered"] = 4 * (root + root_learning) + 4 * 3 * max(
            in_blocks, default=0
        )
    elif processes > 1:
        found["gradients on their way"] = 4 * learning
    if training.loop.precision != "fp32":
        matrices = sum(p.numel() for p in shapes.parameters() if p.requires_grad and p.ndim > 1)
        found[f"matrices in {training.loop.precision}"] = 2 * matrices
    return found


def _published(
    model: CamSegConfig,
    labels: tuple[Label, ...],
    training: TransformerTraining,
    at_once: int,
    recompute: bool,
) -> tuple[float, float, float]:
    """Operations of a frame's step and of its encoding, and bytes of activations of `at_once` frames, in closed form."""
    height, width = (side // model.token_stride for side in training.crop)
    mean = (1 - training.all_hidden) * mean_visible(training.hidden_cut)
    most = _LARGEST_VISIBLE if training.all_hidden < 1 else 0.0
    load = Load(1, height * width, mean, training.diffusion_batch_mul, recompute)
    largest = replace(load, frames=at_once, visible=most)
    matrix = 4 if training.loop.precision == "fp32" else 2
    activations = kept_for_backward(model, largest).bytes(matrix) + inside_of_a_block(
        model, largest
    ).bytes(matrix)
    with FakeTensorMode():
        work = work_by_stage(CamSeg(model, labels).eval(), *training.crop)
    return (
        step_operations(model, load),
        2 * 2 * work["image_encoder"].multiply_accumulates,
        activations,
    )  # image and mask; two operations


def _with_mask_autoencoder(
    model: CamSegConfig,
    labels: tuple[Label, ...],
    training: TransformerTraining,
    at_once: int,
    recompute: bool,
) -> tuple[float, float, float]:
    """The same for a model with a mask autoencoder, counted by torch over a step that is made of its networks and of shapes alone."""
    with FakeTensorMode():
        network = CamSeg(model, labels).train()
        assert network.mask_autoencoder is not None
        network.mask_autoencoder.eval().requires_grad_(False).decoder.requires_grad_(True)
        if recompute:
            enable_gradient_checkpointing(network)
        own = round(training.task.late_own_share * at_once)

        def step() -> Tensor:
            with training.loop.autocast(torch.device("cpu")):
                features = network.image_features(torch.zeros(at_once, 3, *training.crop))
                condition = network.conditions(features).flatten(0, 1)
                cells = torch.zeros(len(condition), model.denoised_channels)
                steps = torch.zeros(len(condition), dtype=torch.long)
                first, later = (
                    network.denoiser(cells, steps, condition).unflatten(0, (at_once, -1))
                    for _ in range(2)
                )
                decoded = torch.cat(
                    [first, later[:own], later[:own]]
                )  # the true latents of as many frames are decoded too
                assert network.mask_autoencoder is not None
                return (
                    network.mask_autoencoder.decode(
                        network.to_latents(decoded, network.denoised_grid(features))
                    )
                    .float()
                    .sum()
                )

        return _operations(step) / at_once, 0.0, _saved_bytes(step, network)


def _operations(step: Callable[[], Tensor]) -> float:
    # attention in its plain form: torch's counter does not know the CPU's fused one
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step().backward()
    return counter.get_total_flops()


def _saved_bytes(step: Callable[[], Tensor], network: nn.Module) -> float:
    """Bytes that are kept for the backward pass, beside weights; each piece of memory counts once.

    Of blocks that are recomputed these are the inputs; the inside of one, while it is recomputed, is not in it.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    def keep_inputs(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if block.gradient_checkpointing:
            for tensor in inputs:
                keep(tensor)

    for block in repeated_blocks(network):
        block.register_forward_pre_hook(keep_inputs)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return float(
        sum(storage.nbytes() for storage in saved.values() if storage._cdata not in weights)
    )


def estimate_lines(
    found: TrainingEstimate, devices: tuple[Device, ...], utilisation: float = 1.0
) -> Iterator[str]:
    """The estimate as text; `devices` are those that it is judged for, at a share of their peak rate."""
    yield f"{found.learning / 1e6:.1f} million parameters learn, {found.frozen / 1e6:.1f} million are frozen"
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
        f"{_flop(found.step_operations)} a step, {_flop(epoch)} an epoch of {found.steps_per_epoch:.1f} steps, "
        f"{_flop(whole)} in {found.steps} steps"
    )
    at = "the peak rate" if utilisation == 1 else f"{100 * utilisation:.0f} % of the peak rate"
    for device in devices:
        if device.training is None:
            continue
        seconds = found.step_seconds(device.training * utilisation)
        fits = "" if device.memory is None else f"; {_fits(found.total, device.memory)}"
        yield f"{found.processes} × {device.name} at {at}: {1e3 * seconds:.1f} ms a step, {_span(seconds * found.steps)} for the run{fits}"


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
