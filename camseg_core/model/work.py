"""How much a part of a model has to do, in numbers that do not depend on the machine. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, how many weights are read, and how many other numbers (activations) are read and written."""

    multiply_accumulates: int
    weights: int
    activations: int

    def times(self, repeats: int) -> "Work":
        """This work done `repeats` times over: the weights are read anew each time."""
        return Work(self.multiply_accumulates * repeats, self.weights * repeats, self.activations * repeats)


@dataclass(frozen=True)
class FrameWork:
    """What one frame takes: the parameters that run on the vehicle, and the work by stage, `denoiser` being a single step."""

    parameters: int
    stages: Mapping[str, Work]

    def with_steps(self, steps: int) -> dict[str, Work]:
        """The work by stage of a frame that is sampled in so many steps."""
        return {stage: work.times(steps) if stage == "denoiser" else work for stage, work in self.stages.items()}
