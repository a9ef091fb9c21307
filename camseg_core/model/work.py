"""How much a part of a model has to do, in numbers that do not depend on the machine. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from camseg_core.model.passes import PassOptions


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, how many weights are read, and how many other numbers (activations) are read and written."""

    multiply_accumulates: int
    weights: int
    activations: int

    def times(self, repeats: float) -> "Work":
        """This work done `repeats` times over, each time reading the weights anew."""
        return Work(round(self.multiply_accumulates * repeats), round(self.weights * repeats), round(self.activations * repeats))


@dataclass(frozen=True)
class FrameWork:
    """What one frame takes: the parameters that run on the vehicle, and the work by stage, `denoiser` being a single step."""

    parameters: int
    stages: Mapping[str, Work]

    def with_steps(self, steps: int) -> dict[str, Work]:
        """The work by stage of a frame that is sampled in so many steps."""
        return self.repeated({"denoiser": steps})

    def repeated(self, repeats: Mapping[str, float]) -> dict[str, Work]:
        """The work by stage of a frame for which some stages are done so many times over, see `repeats_of`."""
        return {stage: work.times(repeats.get(stage, 1)) for stage, work in self.stages.items()}


def repeats_of(steps: int, samples: int, passes: PassOptions) -> dict[str, float]:
    """How often the stages are done for a frame; in passes that denoise again what they do not keep, what is hidden counts."""
    again = passes.passes > 1 and passes.order == "confident"
    hidden = sum(math.cos(math.pi / 2 * k / passes.passes) for k in range(passes.passes)) if again else 1.0
    return {
        "transformer": samples * passes.passes if passes.passes > 1 else 1,
        "denoiser": steps * samples * hidden,
        "decoder": samples * (1 + passes.passes if again else 1),
    }
