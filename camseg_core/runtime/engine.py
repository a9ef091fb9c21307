"""The interface between `Segmenter` and what computes, and the graphs in a checkpoint folder.

Graphs are `onnx/<precision>/<part>.onnx` for the four parts, and
`onnx/<precision>/fused_<sampler>_<steps>.onnx` for a whole network in one graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError

Array = Any
"""A numpy array, or an engine's own with `shape`, `reshape` and support for `numpy.asarray`."""


class Engine(Protocol):
    """Runs the graphs of one model on arrays by name.

    | graph | inputs | outputs |
    | --- | --- | --- |
    | `image_encoder` | `image` RGB `(B, H, W, 3)` uint8 | maps, `features` `(B, C, h, w)` first |
    | `transformer` | maps; `mask` `(B, L, c)`, `hidden` `(B, L)` | `condition` `(B, N, D)` |
    | `denoiser` | noisy `tokens` `(M, C)`, `step` `(1,)` int64, `condition` `(M, D)` | `output` |
    | `decoder` | `latents` `(B, S, C, h, w)`, `sharpness` `()` | `mask`, `confidence` `(B, H, W)` |
    | a `Fused.name` | `image`, noise `start` `(B, N, C)`, `sharpness` `()` | `mask`, `confidence` |

    Inputs come in this order. `mask` and `hidden` (bool) give the transformer the known part of the
    mask; without them everything is hidden. `sharpness` is the logit scale, S the samples that are
    averaged as probabilities. Floats are float32; `mask` of the last two holds uint8 train ids.
    What the first two graphs return may be the engine's own arrays; the rest is numpy.

    Attributes:
        provider: where it computes.
        fallback: why this is not the first provider asked for; empty if it is.
        precision: what it computes in.
        fused: the graph of the whole network, if that runs in place of the parts.
        takes_mask: whether `run` takes `mask` and `hidden`.
    """

    @property
    def provider(self) -> str: ...
    @property
    def fallback(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def fused(self) -> Fused | None: ...
    @property
    def takes_mask(self) -> bool: ...

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph; returns its outputs by name, in the graph's order."""

    def check_graphs(self, fused: Fused | None) -> None:
        """Check that `with_fused` finds its graphs, without loading any.

        Raises:
            ModelError: a graph is missing.
        """

    def with_fused(self, fused: Fused | None) -> "Engine":
        """Return an engine of the same model that runs this fused graph if there is one, else the
        parts: this engine if it does so already.

        Raises:
            ConfigError, ModelError: as for a new engine.
        """


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
