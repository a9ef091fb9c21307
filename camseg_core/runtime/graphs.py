"""Where a checkpoint folder keeps its graphs, and what they are called.

`onnx/<precision>/<part>.onnx` for the four parts, `onnx/<precision>/fused_<sampler>_<steps>.onnx` for a whole network in one graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError

PARTS = ("image_encoder", "transformer", "denoiser", "decoder")
"""The graphs of a model, in the order in which a frame passes them."""

PRECISIONS = ("fp32", "fp16", "int8")
"""What the graphs compute in; what goes in and comes out is the same for all."""

AUTO = "auto"
"""In place of a precision: the best for the provider of those that the checkpoint folder has."""

BEST_FIRST = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32"), "tensorrt": ("fp16", "fp32")}
"""What `AUTO` takes, by provider: on the CPU by measurement (docs/results.md), on GPUs by what they are built for."""


def check_precision(precision: str) -> str:
    """The precision, if it is one of `PRECISIONS`, or `AUTO`.

    Raises:
        ConfigError: it is none; the message lists the choices.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise ConfigError(
            f"unknown precision {precision!r}; choose one of {', '.join((AUTO, *PRECISIONS))}"
        )
    return precision


def graph_path(folder: Path, precision: str, graph: str) -> Path:
    """The file of a graph in a checkpoint folder; `graph` is one of `PARTS` or a `Fused.name`."""
    return folder / "onnx" / precision / f"{graph}.onnx"


@dataclass(frozen=True)
class Graphs:
    """The graphs of a checkpoint folder that will run, their files by name: those of a `precision`, one if `fused`, else the parts."""

    precision: str
    fused: Fused | None
    paths: Mapping[str, Path]


def graphs_of(folder: Path, provider: str, precision: str, fused: Fused | None) -> Graphs:
    """The graphs to run on a provider: in this precision, or the best if that is `AUTO`; `fused` where the folder has it.

    Raises:
        ConfigError: the precision is unknown.
        ModelError: the folder lacks the graphs; the message says which command makes them.
    """
    candidates = BEST_FIRST[provider] if check_precision(precision) == AUTO else (precision,)
    for each in candidates:
        parts = {part: graph_path(folder, each, part) for part in PARTS}
        if fused is not None and (path := graph_path(folder, each, fused.name)).is_file():
            return Graphs(each, fused, {fused.name: path})
        missing = [path for path in parts.values() if not path.is_file()]
        if not missing:
            return Graphs(each, None, parts)
        if (
            len(missing) < len(parts) or each == candidates[-1]
        ):  # a damaged folder is told, not passed over
            raise ModelError(
                f"missing {missing[0]}: the checkpoint folder is not whole, or not exported in {each}; "
                f"camseg export --model {folder} --precision {each} makes it"
            )
    raise AssertionError("there is a candidate")
