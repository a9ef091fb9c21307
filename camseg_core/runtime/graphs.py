"""Where a checkpoint folder keeps its graphs, and what they are called.

`onnx/<precision>/<part>.onnx` for the four parts, `onnx/<precision>/fused_<sampler>_<steps>.onnx` for a whole network in one graph.
"""

from dataclasses import dataclass
from pathlib import Path

from camseg_core.errors import ConfigError
from camseg_core.model.samplers import FUSABLE

PARTS = ("image_encoder", "transformer", "denoiser", "decoder")
"""The graphs of a model, in the order in which a frame passes them."""

PRECISIONS = ("fp32", "fp16", "int8")
"""What the graphs compute in; what goes in and comes out is the same for all."""

DEFAULT_PRECISION = "fp32"
"""The precision of whoever does not ask for one."""


@dataclass(frozen=True)
class Fused:
    """A graph of the whole network, with a sampler and its number of steps laid down.

    Raises:
        ConfigError: the sampler draws noise on the way, or the number of steps does not suit it; the message lists the choices.
    """

    sampler: str
    steps: int

    def __post_init__(self) -> None:
        if self.sampler not in FUSABLE:
            raise ConfigError(f"sampler {self.sampler!r} cannot be fused into one graph; choose one of {', '.join(FUSABLE)}")
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; a fused graph has at least 1")
        if self.sampler == "one_step" and self.steps != 1:
            raise ConfigError(f"one_step has one step, not {self.steps}; choose ddim or dpm_solver for more")

    @property
    def name(self) -> str:
        """The graph's name."""
        return f"fused_{self.sampler}_{self.steps}"

    @staticmethod
    def parse(text: str) -> "Fused":
        """A fused graph from `SAMPLER:STEPS`, or `one_step` alone.

        Raises:
            ConfigError: it is not of that form, or names no graph that can be.
        """
        sampler, _, steps = text.partition(":")
        if not (steps or "1").isdecimal():
            raise ConfigError(f"fused graph {text!r} is not SAMPLER:STEPS, as in ddim:4")
        return Fused(sampler, int(steps or 1))


def check_precision(precision: str) -> str:
    """The precision, if it is one.

    Raises:
        ConfigError: it is none; the message lists the choices.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    return precision


def graph_path(folder: Path, precision: str, graph: str) -> Path:
    """The file of a graph in a checkpoint folder; `graph` is one of `PARTS` or a `Fused.name`."""
    return folder / "onnx" / precision / f"{graph}.onnx"
