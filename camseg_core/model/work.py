"""The work of one frame, as counts; no torch, as evaluation reads it without."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from camseg_core.diffusion.passes import PassOptions


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, weights read, and activations (other numbers) read and written."""

    multiply_accumulates: int
    weights: int
    activations: int

    def times(self, repeats: float) -> "Work":
        """Return the work of doing this `repeats` times, reading the weights each time."""
        return Work(
            round(self.multiply_accumulates * repeats),
            round(self.weights * repeats),
            round(self.activations * repeats),
        )


@dataclass(frozen=True)
class FrameWork:
    """One frame: the parameters on the vehicle, and the work by stage, `denoiser` for one step."""

    parameters: int
    stages: Mapping[str, Work]

    def with_steps(self, steps: int) -> dict[str, Work]:
        """Return the work by stage of a frame sampled in this many steps."""
        return self.repeated({"denoiser": steps})

    def repeated(self, repeats: Mapping[str, float]) -> dict[str, Work]:
        """Return the work by stage with some stages repeated, see `repeats_of`."""
        return {stage: work.times(repeats.get(stage, 1)) for stage, work in self.stages.items()}


def repeats_of(steps: int, samples: int, passes: PassOptions) -> dict[str, float]:
    """Return how often each stage runs for a frame.

    In confident order every pass denoises all that is still hidden.
    """
    again = passes.passes > 1 and passes.order == "confident"
    hidden = (
        sum(math.cos(math.pi / 2 * k / passes.passes) for k in range(passes.passes))
        if again
        else 1.0
    )
    return {
        "transformer": samples * passes.passes if passes.passes > 1 else 1,
        "denoiser": steps * samples * hidden,
        "decoder": samples * (1 + passes.passes if again else 1),
    }
