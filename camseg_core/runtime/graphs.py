"""Where a checkpoint folder keeps its graphs, and what they are called.

`onnx/<precision>/<part>.onnx` for the four parts, `onnx/<precision>/fused_<sampler>_<steps>.onnx`
for a whole network in one graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError

PARTS = ("image_encoder", "transformer", "denoiser", "decoder")
"""The graphs of a model, in the order in which a frame passes them."""

PRECISIONS = ("fp32", "fp16", "int8")
"""What graphs compute in; their inputs and outputs have the same types in all."""

AUTO = "auto"
"""Instead of a precision: the best of the checkpoint folder's for the provider."""

BEST_FIRST = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32"), "tensorrt": ("fp16", "fp32")}
"""What `AUTO` tries, by provider: measured on the CPU (docs/results.md); on GPUs by design."""


def graph_path(folder: Path, precision: str, graph: str) -> Path:
    """Return the file of a graph, one of `PARTS` or a `Fused.name`, in a checkpoint folder."""
    return folder / "onnx" / precision / f"{graph}.onnx"


@dataclass(frozen=True)
class Graphs:
    """Graphs chosen to run, as files by name: one if `fused`, else the parts."""

    precision: str
    fused: Fused | None
    paths: Mapping[str, Path]


def graphs_of(folder: Path, provider: str, precision: str, fused: Fused | None) -> Graphs:
    """Choose the graphs to run on a provider: `fused` if the folder has it, else the parts.

    Raises:
        ConfigError: the precision is unknown.
        ModelError: the folder lacks the graphs; the message names the command that makes them.
    """
    if precision not in (AUTO, *PRECISIONS):
        choices = ", ".join((AUTO, *PRECISIONS))
        raise ConfigError(f"unknown precision {precision!r}; choose one of {choices}")
    candidates = BEST_FIRST[provider] if precision == AUTO else (precision,)
    for each in candidates:
        parts = {part: graph_path(folder, each, part) for part in PARTS}
        if fused is not None and (path := graph_path(folder, each, fused.name)).is_file():
            return Graphs(each, fused, {fused.name: path})
        missing = [path for path in parts.values() if not path.is_file()]
        if not missing:
            return Graphs(each, None, parts)
        # a folder with some of the parts is damaged: report it rather than try the next precision
        if len(missing) < len(parts) or each == candidates[-1]:
            raise ModelError(
                f"missing {missing[0]}: the checkpoint folder is incomplete, or not exported in "
                f"{each}; camseg export --model {folder} --precision {each} makes it"
            )
    raise AssertionError("there is a candidate")
