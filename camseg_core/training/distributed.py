"""Training in several processes, started by `torchrun`: shares of a batch, gradients, figures.

`DistributedDataParallel` averages gradients; FSDP (`fully_shard`) also splits weights, gradients
and optimiser, for models too large for one device.
"""

import atexit
import copy
import gc
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from camseg_core.errors import ConfigError

Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Processes:
    """This process's rank, the number of processes, its device, and its workers for samples."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def samples(self, step: int, batch: int, part: int = 0, parts: int = 1) -> range:
        """Return the numbers of this process's samples in `part` of `parts` of a step.

        `batch` is the number of samples in the whole step.

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        shares = self.world_size * parts
        if batch % shares:
            each = f" in {parts} parts each" if parts > 1 else ""
            raise ConfigError(
                f"a batch of {batch} cannot be shared by {self.world_size} processes{each}: "
                f"make it a multiple of {shares}"
            )
        share = batch // shares
        start = step * batch + (part * self.world_size + self.rank) * share
        return range(start, start + share)

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return figures averaged over all processes; a collective call."""
        if self.world_size == 1:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        values = values.to(self.device, torch.float32)
        dist.all_reduce(values)
        return dict(zip(figures, (values / self.world_size).tolist(), strict=True))

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def check_shared(self, folder: Path, patience_s: float = 60.0) -> None:
        """Check that all processes see the same `folder`; a collective call.

        A network file system may show a new file late, so this waits up to `patience_s` seconds.

        Raises:
            ConfigError: a process does not find what the main process wrote.
        """
        if self.world_size == 1:
            return
        token = torch.tensor([secrets.randbits(62)], device=self.device)
        dist.broadcast(token, 0)
        path = folder / f".shared-{token.item():x}"
        if self.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        self.wait()
        until = time.monotonic() + patience_s
        while not (seen := path.is_file()) and time.monotonic() < until:
            time.sleep(0.2)
        seen_by = torch.tensor([float(seen)], device=self.device)
        dist.all_reduce(seen_by)
        if self.is_main_process:
            path.unlink(missing_ok=True)
        if seen_by.item() < self.world_size:
            which = "another process" if seen else f"process {self.rank} on {platform.node()}"
            raise ConfigError(
                f"{folder} is not one folder for all processes "
                f"({which} does not see what process 0 writes there): "
                "put --run on a file system that all machines share"
            )


@contextmanager
def init_processes(device: str = "cpu", workers: int = 0) -> Iterator[Processes]:
    """Connect the processes that `torchrun` has started; without it, this process is the only one.

    `device` is `cpu` or `cuda`, where each process takes the device of its local rank. `workers`
    background processes prepare samples for each.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device must be one of cpu, cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device cuda: torch finds no CUDA device here; check the driver and that torch is a "
            "CUDA build, or choose cpu"
        )
    local = torch.device("cpu")
    if device == "cuda":
        local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(device=local, workers=workers)
        return
    if device == "cuda":
        torch.cuda.set_device(local)
    # the others wait while one process validates or encodes a data set, which may take hours
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local, workers)
    finally:
        dist.destroy_process_group()


class Objective(nn.Module):
    """A module and its loss as one module, as DDP and FSDP need it.

    `forward` maps a step number, and a part of the step, to loss and figures.
    """

    def __init__(
        self, module: nn.Module, loss: Callable[..., tuple[Tensor, dict[str, float]]]
    ) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        return self._loss(step, part) if part else self._loss(step)


def wrap_distributed(
    objective: Objective, averaged: nn.Module, processes: Processes, strategy: Strategy
) -> nn.Module:
    """Return the module to call instead of `objective`, which reduces gradients.

    FSDP splits `objective`, and `averaged`, the running average, in place.
    """
    if processes.world_size == 1:
        return objective
    if processes.device.type == "cuda":
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    if strategy == "fsdp":
        mesh = init_device_mesh(processes.device.type, (processes.world_size,))
        # gloo's threads end with the last reference to the group; where Python ends first, a
        # thread that then releases a tensor aborts the process. FSDP's references are cyclic, and
        # DTensor's caches keep the mesh, whose registry only torch.compile reads.
        mesh._pg_registry.clear()
        atexit.register(gc.collect)
        for root in (objective, averaged):
            for part in (*repeated_blocks(root), root):
                fully_shard(part, mesh=mesh)
        return objective
    # some parameters only learn later, see `objectives.TaskLoss.decoder_joins`
    devices = None if processes.device.type == "cpu" else [processes.device.index]
    return DistributedDataParallel(objective, device_ids=devices, find_unused_parameters=True)


def sync_context(objective: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Return the context of one part of a step: DDP reduces gradients with the `last` part only.

    FSDP reduces them after every part, so that no process ever holds all of them.
    """
    if last or not isinstance(objective, DistributedDataParallel):
        return nullcontext()
    return objective.no_sync()


def repeated_blocks(root: nn.Module) -> Iterable[nn.Module]:
    """Yield the blocks of transformers and denoisers: the unit in which FSDP gathers weights."""
    lists = ("encoder_blocks", "decoder_blocks", "res_blocks")
    for name, part in root.named_modules():
        if isinstance(part, nn.ModuleList) and name.rsplit(".", 1)[-1] in lists:
            yield from part


def block_parameters(root: nn.Module) -> list[int]:
    """Return the number of parameters of each block: what FSDP gathers at once."""
    return [
        sum(parameter.numel() for parameter in block.parameters())
        for block in repeated_blocks(root)
    ]


def enable_gradient_checkpointing(root: nn.Module) -> None:
    """Have the repeated blocks keep only their inputs and recompute in the backward pass.

    Loss, gradients and dropout are unchanged. Source: arXiv 1604.06174.
    """
    for block in repeated_blocks(root):
        block.gradient_checkpointing = True  # type: ignore[assignment] # a flag, not a part


def running_average(
    decay: float,
) -> Callable[[Sequence[Tensor], Sequence[Tensor], int | Tensor], None]:
    """Return torch's exponential average for `AveragedModel`, for DTensors and plain tensors."""
    update = get_ema_multi_avg_fn(decay)

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: int | Tensor) -> None:
        for split in (False, True):
            pairs = [
                (a, c)
                for a, c in zip(averaged, current, strict=True)
                if isinstance(a, DTensor) is split
            ]
            if pairs:
                update([a for a, _ in pairs], [c for _, c in pairs], count)

    return average


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a tensor that FSDP has split, a collective call; return others unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Split a whole tensor as FSDP has split `reference`, on its device."""
    if isinstance(reference, DTensor):
        return distribute_tensor(
            tensor.to(reference.device), reference.device_mesh, reference.placements
        )
    return tensor.to(reference.device)


def unwrap_distributed(module: nn.Module, original: nn.Module, device: torch.device) -> nn.Module:
    """Return a module on `device` with the full weights of `module`; a collective call.

    `original` is a copy made before FSDP split it. A module that is not split is returned as it is.
    """
    state = module.state_dict()
    if not any(isinstance(tensor, DTensor) for tensor in state.values()):
        return module
    plain = copy.deepcopy(original).to(device)
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():  # one by one: the model may be large
            tensor.copy_(full_tensor(state[name]))
    return plain
