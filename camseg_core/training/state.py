"""The file from which a training run goes on exactly where it was: tensors only, replaced in one move.

Random numbers and the position in the data need no place in it: both follow from the seed and the step number (see `seeds.py`).
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from camseg_core.errors import CamSegError
from camseg_core.replacing import replacing
from camseg_core.training.parallel import split_like, whole


class TrainingState:
    """Weights, their running average, the optimiser's moments and the gradient scale of fp16, kept in one safetensors file."""

    def __init__(
        self, path: Path, module: nn.Module, averaged: AveragedModel, optimizer: torch.optim.Optimizer, scaler: GradScaler
    ) -> None:
        self.path = path
        self._modules = {"module": module, "averaged": averaged}
        self._optimizer, self._scaler = optimizer, scaler

    def save(self, step: int, leads: bool) -> None:
        """Write the state after `step` steps. Gathering split tensors is collective; only the process that leads writes."""
        tensors = {f"{part}.{name}": whole(t) for part, module in self._modules.items() for name, t in module.state_dict().items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": whole(tensor) for name, tensor in entries.items()}
        if self._scaler.is_enabled():
            tensors |= {f"scaler.{name}": torch.tensor(float(self._scaler.state_dict()[name])) for name in ("scale", "_growth_tracker")}
        if not leads:
            return
        # contiguous clones: safetensors refuses tensors that share memory or are strided (channels_last)
        contiguous = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        with replacing(self.path) as temporary:
            save_file(contiguous, temporary, {"step": str(step)})

    def load(self) -> int:
        """Take the state over from the file; the number of steps done, 0 without a file.

        Raises:
            CamSegError: the file is damaged or belongs to another model.
        """
        if not self.path.is_file():
            return 0
        try:
            with safe_open(self.path, "pt") as file:
                step = int(file.metadata()["step"])
            tensors = load_file(self.path)
            self._take_over(tensors)
        except Exception as error:  # safetensors raises its own type, which is not exported
            reason = str(error).strip().splitlines()[0]
            raise CamSegError(
                f"cannot resume from {self.path}: {reason}; it is damaged or of another model: choose another --run"
            ) from error
        return step

    def _take_over(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for part, module in self._modules.items():
                for name, tensor in module.state_dict().items():
                    saved = tensors[f"{part}.{name}"]
                    if saved.shape != tensor.shape:
                        raise ValueError(f"{part}.{name} is {tuple(saved.shape)} in the file and {tuple(tensor.shape)} in the model")
                    tensor.copy_(split_like(saved, tensor))
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".", 2)
                reference = parameters[int(index)]
                state.setdefault(int(index), {})[entry] = split_like(tensor, reference) if tensor.shape == reference.shape else tensor
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})
        if self._scaler.is_enabled() and "scaler.scale" in tensors:
            scale = {"scale": tensors["scaler.scale"].item(), "_growth_tracker": int(tensors["scaler._growth_tracker"])}
            self._scaler.load_state_dict(self._scaler.state_dict() | scale)
