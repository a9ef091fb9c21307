"""The file from which a training run resumes exactly: tensors only, replaced atomically.

Random numbers and the position in the data follow from seed and step number, see `loading.seed_of`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from camseg_core.errors import CamSegError, first_line
from camseg_core.model.weights_file import save_tensors
from camseg_core.training.distributed import full_tensor, split_like


class TrainingState:
    """One safetensors file: weights, their average, AdamW's moments, fp16's gradient scale."""

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        averaged: AveragedModel,
        optimizer: torch.optim.Optimizer,
        scaler: GradScaler,
    ) -> None:
        self.path = path
        self._modules = {"module": module, "averaged": averaged}
        self._optimizer, self._scaler = optimizer, scaler

    def save(self, step: int, is_main_process: bool) -> None:
        """Write the state after `step` steps, in the main process; a collective call.

        Raises:
            CamSegError: the file cannot be written; the last one stays.
        """
        contiguous: dict[str, Tensor] = {}
        for name, tensor in self._tensors():
            gathered = full_tensor(tensor)  # one by one: no device holds all that FSDP has split
            if is_main_process:
                # safetensors refuses tensors that share memory or are strided (channels_last)
                contiguous[name] = gathered.detach().cpu().clone().contiguous()
        if is_main_process:
            save_tensors(contiguous, self.path, {"step": str(step)})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for part, module in self._modules.items():
            for name, tensor in module.state_dict().items():
                yield f"{part}.{name}", tensor
        for index, entries in self._optimizer.state_dict()["state"].items():
            for name, tensor in entries.items():
                yield f"optimizer.{index}.{name}", tensor
        if self._scaler.is_enabled():
            for name in ("scale", "_growth_tracker"):
                yield f"scaler.{name}", torch.tensor(float(self._scaler.state_dict()[name]))

    def load(self) -> int:
        """Load the state and return the number of steps done, 0 without a file.

        Raises:
            CamSegError: the file is damaged or belongs to another model.
        """
        if not self.path.is_file():
            return 0
        try:
            with safe_open(self.path, "pt") as file:
                step = int(file.metadata()["step"])
                self._read(file)
        except Exception as error:  # safetensors raises its own type, which is not exported
            raise CamSegError(
                f"cannot resume from {self.path}: {first_line(error)}; "
                "it is damaged or belongs to another model: choose another --run"
            ) from error
        return step

    def _read(self, file: Any) -> None:
        """Copy from an open file tensor by tensor, since every process of a machine does this."""
        with torch.no_grad():
            for part, module in self._modules.items():
                for name, tensor in module.state_dict().items():
                    saved = file.get_tensor(f"{part}.{name}")
                    if saved.shape != tensor.shape:
                        raise ValueError(
                            f"{part}.{name} must be {tuple(tensor.shape)}, as in the model, "
                            f"got {tuple(saved.shape)}"
                        )
                    tensor.copy_(split_like(saved, tensor))
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        names = set(file.keys())
        for name in sorted(names):
            if name.startswith("optimizer."):
                _, index, entry = name.split(".", 2)
                tensor = file.get_tensor(name)
                reference = parameters[int(index)]
                state.setdefault(int(index), {})[entry] = (
                    split_like(tensor, reference) if tensor.shape == reference.shape else tensor
                )
        self._optimizer.load_state_dict(
            {"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]}
        )
        if self._scaler.is_enabled() and "scaler.scale" in names:
            scale = {
                name: file.get_tensor(f"scaler.{name}").item()
                for name in ("scale", "_growth_tracker")
            }
            scale["_growth_tracker"] = int(scale["_growth_tracker"])
            self._scaler.load_state_dict(self._scaler.state_dict() | scale)
