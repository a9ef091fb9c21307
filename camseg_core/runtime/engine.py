"""The interface between `Segmenter` and what computes, and the graphs in a checkpoint folder.

Graphs are `onnx/<precision>/<part>.onnx` for the four parts, and
`onnx/<precision>/fused_<sampler>_<steps>.onnx` for a whole network in one graph.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from camseg_core.diffusion.sampling import Fused, is_whole
from camseg_core.errors import (
    ConfigError,
    ModelError,
    camseg_command,
    first_line,
    is_out_of_memory,
)
from camseg_core.runtime.origin import Contents, check_origin
from camseg_core.weights import is_bundled

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
    averaged as probabilities. Floats are float32; `mask` of the last two holds uint8 class ids,
    those of `labels.json`.
    What the first two graphs return may be the engine's own arrays; the rest is numpy.

    Attributes:
        options: what it was loaded with.
        name: library, version and device, as in "OpenVINO 2026.4.0 on CPU".
        precision: what it computes in, see `precision_name`.
        fused: the graph of the whole network, if that runs in place of the parts.
        takes_mask: whether `run` takes `mask` and `hidden`.
        batches: whether several frames are faster in one call than one by one.
    """

    @property
    def options(self) -> "EngineOptions": ...
    @property
    def name(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def fused(self) -> Fused | None: ...
    @property
    def takes_mask(self) -> bool: ...
    @property
    def batches(self) -> bool: ...

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

READ_BY_GRAPHS = ("image_encoder", "transformer")
"""Graphs whose outputs only other graphs read, before the next run."""

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of graphs; inputs and outputs have the same types in all."""

BF16 = "bf16"
"""A precision of arithmetic alone, on fp32 graphs."""

AUTO = "auto"
"""As a precision: the best one in the checkpoint folder for the provider. As a provider: the
fastest that is installed."""

ASKED_PRECISIONS = (AUTO, "fp32", BF16, "fp16", "int8")
"""Precisions that users may request."""

BEST_FIRST = {
    "cpu": ("int8", "fp32"),
    "openvino": ("int8", "fp32"),
    "cuda": ("fp16", "fp32"),
    "tensorrt": ("fp16", "fp32"),
}
"""What `AUTO` tries, by provider: measured on the CPU (docs/results.md); on GPUs by design."""


def precision_name(graphs: str, arithmetic: str) -> str:
    """Name the precision in use: "int8+bf16" are int8 graphs with everything else in bf16; fp32
    graphs are named by their arithmetic, "fp32" or "bf16"."""
    return arithmetic if graphs in ("fp32", arithmetic) else f"{graphs}+{arithmetic}"


class Compilations:
    """Counts and times what a model's engines compile: graphs for a new frame size.

    Other threads may read it during a compilation.

    Attributes:
        count: finished compilations.
        last: subject and seconds of the last one; empty before the first.
        running: what is being compiled; empty if nothing is.
    """

    def __init__(self) -> None:
        self._lock, self._began = threading.Lock(), 0.0
        self._ended: deque[tuple[float, float]] = deque(maxlen=64)
        self.count, self.last, self.running = 0, "", ""

    @contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Count the block as a compilation."""
        with self._lock:
            self._began, self.running = time.monotonic(), what
        try:
            yield
        finally:
            with self._lock:
                now = time.monotonic()
                self._ended.append((self._began, now))
                self.count, self.running = self.count + 1, ""
                self.last = f"{what} in {now - self._began:.1f} s"

    def seconds_since(self, moment: float) -> float:
        """Return the seconds spent compiling since `moment` (`time.monotonic`)."""
        with self._lock:
            spans = list(self._ended)
            if self.running:
                spans.append((self._began, time.monotonic()))
        return sum(max(0.0, ended - max(began, moment)) for began, ended in spans)


KEPT_SIZES = 4
"""Default of `EngineOptions.kept_sizes`."""


@dataclass(frozen=True)
class EngineOptions:
    """Options that an engine is loaded with.

    Attributes:
        folder: a checkpoint folder with `onnx/<precision>/<graph>.onnx`.
        provider: one of `PROVIDERS` other than `AUTO`.
        threads: CPU threads; 0 lets the engine choose, about one a core.
        precision: one of `ASKED_PRECISIONS`.
        cache: folder that keeps compiled graphs.
        kept_sizes: network sizes for which OpenVINO keeps compiled graphs in memory; the bundled
            model's take 65 MB each.
        fallback: why this is not the first requested provider; empty if it is.
        choice: why `AUTO` chose this provider; empty if it was requested by name.
        contents: what the folder held when the model was loaded; None if that does not matter.
        compilations: of all engines of this model.

    Raises:
        ConfigError: `threads` is not an integer >= 0, or `kept_sizes` not an integer >= 1.
    """

    folder: Path
    provider: str = "cpu"
    threads: int = 0
    precision: str = AUTO
    cache: Path | None = None
    kept_sizes: int = KEPT_SIZES
    fallback: str = ""
    choice: str = ""
    contents: Contents | None = None
    compilations: Compilations = field(default_factory=Compilations, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("kept_sizes", 1)):
            value = getattr(self, name)
            if not is_whole(value) or value < least:
                raise ConfigError(f"{name} must be a whole number >= {least}, got {value!r}")

    def graphs(self, fused: Fused | None) -> "Graphs":
        """Choose the graphs to run, see `graphs_of`."""
        return graphs_of(self.folder, self.provider, self.precision, fused)


Loaded = TypeVar("Loaded", bound="FolderEngine")


class FolderEngine:
    """Base of engines that load the graphs of a checkpoint folder; see `Engine`.

    Raises:
        ModelError: a graph is missing.
    """

    def __init__(self, options: EngineOptions, fused: Fused | None) -> None:
        self.options, self._chosen = options, options.graphs(fused)
        self.fused = self._chosen.fused

    def check_graphs(self, fused: Fused | None) -> None:
        """See `Engine.check_graphs`."""
        self._others(fused)

    def with_fused(self: Loaded, fused: Fused | None) -> Loaded:
        """See `Engine.with_fused`."""
        return type(self)(self.options, fused) if self._others(fused) else self

    def _others(self, fused: Fused | None) -> bool:
        """Return whether other graphs than these would be loaded, of the model in use."""
        if fused == self.fused:
            return False
        if self.options.contents is not None:
            self.options.contents.check(self.options.folder)
        return self.options.graphs(fused) != self._chosen


def damaged(path: Path, error: Exception) -> ModelError:
    """Return the error of a graph that an engine cannot load."""
    if is_out_of_memory(error):
        remedy = "there is not enough memory, free some or use a smaller model"
    elif isinstance(error, OSError):
        remedy = "make it readable"
    else:
        remedy = "the file is damaged, fetch or export it again"
    return ModelError(f"cannot load {path}: {first_line(error)}; {remedy}")


def shape_text(inputs: Mapping[str, Array]) -> str:
    """Describe the size that a graph is compiled for: the image's, or its first input's."""
    if "image" in inputs:
        _, height, width, _ = inputs["image"].shape
        return f"{width}x{height}"
    return "x".join(map(str, next(iter(inputs.values())).shape))


def all_hidden(inputs: Mapping[str, Array], channels: int) -> dict[str, Array]:
    """Add a mask of `channels` channels, completely hidden, to the transformer's inputs."""
    batch, _, height, width = inputs["features"].shape
    nothing = np.zeros((batch, height * width, channels), np.float32)
    return {**inputs, "mask": nothing, "hidden": np.ones((batch, height * width), np.bool_)}


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
        ModelError: the folder lacks the graphs; the message names the command that makes them. Or
            they are damaged, or of other weights or classes.
    """
    if precision not in ASKED_PRECISIONS:
        choices = ", ".join(ASKED_PRECISIONS)
        raise ConfigError(f"precision must be one of {choices}, got {precision!r}")
    given = "fp32" if precision == BF16 else precision
    candidates = BEST_FIRST[provider.partition(":")[0]] if given == AUTO else (given,)
    for each in candidates:
        parts = {part: graph_path(folder, each, part) for part in PARTS}
        if fused is not None and (path := graph_path(folder, each, fused.name)).is_file():
            check_origin(folder, each, [path])
            return Graphs(each, fused, {fused.name: path})
        missing = [path for path in parts.values() if not path.is_file()]
        if not missing:
            check_origin(folder, each, parts.values())
            return Graphs(each, None, parts)
        # a folder with some of the parts is damaged: report it rather than try the next precision
        if len(missing) < len(parts) or each == candidates[-1]:
            out = " --out FOLDER" * is_bundled(folder)
            raise ModelError(
                f"missing {missing[0]}: the checkpoint folder is incomplete, or not exported in "
                f"{each}; {camseg_command()} export --model {folder} --precision {each}{out} makes "
                "it"
            )
    raise AssertionError("there is a candidate")
