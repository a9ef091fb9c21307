"""A training that is killed and resumed must end like an uninterrupted one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from camseg_core.training.trainer import Callback, Run


class Killed(Exception):
    """As by a signal that cannot be caught."""


class KillAfter(Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, done: int, figures: object, learning_rate: float) -> None:
        if done == self._step:
            raise Killed


def assert_resumes(train: Callable[[Run], nn.Module], folder: Path) -> None:
    """Check that a run killed after five steps and resumed ends with the same weights."""
    whole = train(Run(folder / "whole"))
    with pytest.raises(Killed):
        train(Run(folder / "killed", (KillAfter(5),)))
    assert (folder / "killed" / "state.safetensors").is_file()
    torch.manual_seed(99)  # a new process starts in another state
    resumed = train(Run(folder / "killed")).state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name
