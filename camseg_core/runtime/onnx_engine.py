"""A model's graphs on ONNX Runtime, on the first execution provider of a list that starts."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime.bound_graph import BoundGraph, HostBuffers
from camseg_core.runtime.engine import Array
from camseg_core.runtime.graphs import AUTO, Graphs, graphs_of
from camseg_core.runtime.providers import (
    REMEDY,
    onnxruntime_module,
    provider_list,
    session_providers,
    why_missing,
    why_unsuited,
)

logger = logging.getLogger(__name__)

_KEPT_ON_DEVICE = ("image_encoder", "transformer")
"""Graphs whose outputs only other graphs read."""


class OnnxEngine:
    """The graphs of a model on one execution provider; see `Engine` for its attributes.

    Args:
        folder: a checkpoint folder with `onnx/<precision>/<graph>.onnx`.
        provider: keys of `PROVIDERS` in the order to try them, a sequence or comma-separated.
        threads: threads per operator; 0 lets ONNX Runtime choose (one per core).
        precision: one of `PRECISIONS`, or `AUTO`, the best of the folder's for the provider.
        fused: run this graph of the whole network in place of the parts, if the folder has it.
        engine_cache: folder in which TensorRT keeps the engines it builds.

    Raises:
        ConfigError: a provider or the precision is unknown, no provider of the list starts, or the
            cache cannot be written.
        ModelError: a graph is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        provider: str | Sequence[str] = "cpu",
        threads: int = 0,
        *,
        precision: str = AUTO,
        fused: Fused | None = None,
        engine_cache: Path | None = None,
    ) -> None:
        wanted = provider_list(provider)
        graphs = {name: graphs_of(folder, name, precision, fused) for name in wanted}
        if engine_cache is not None:
            try:
                engine_cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"the engine cache {engine_cache} cannot be made: {error.strerror}"
                ) from error
        onnxruntime = onnxruntime_module()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # threads that spin while they wait burn a core that the camera driver needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.provider, self.fallback, sessions = _start(onnxruntime, graphs, options, engine_cache)
        self._chosen = graphs[self.provider]
        self.precision, self.fused = self._chosen.precision, self._chosen.fused
        self._choose = partial(graphs_of, folder, self.provider, precision)
        self._load = partial(
            OnnxEngine, folder, wanted, threads, precision=precision, engine_cache=engine_cache
        )
        if self.fallback:
            logger.warning("the model runs on %s: %s", self.provider, self.fallback)
        device, buffers = "cpu", None
        if self.provider != "cpu":
            device = "cuda"
            buffers = HostBuffers.of(onnxruntime, next(iter(sessions.values())).get_providers())
        self._graphs = {
            name: BoundGraph(session, device, name in _KEPT_ON_DEVICE, buffers)
            for name, session in sessions.items()
        }
        known = None if self.fused else self._graphs["transformer"].inputs.get("mask")
        self.takes_mask = known is not None
        self._token_channels = 0 if known is None else known.shape[2]

    def check_graphs(self, fused: Fused | None) -> None:
        """See `Engine.check_graphs`."""
        self._choose(fused)

    def with_fused(self, fused: Fused | None) -> "OnnxEngine":
        """See `Engine.with_fused`."""
        return self if self._choose(fused) == self._chosen else self._load(fused=fused)

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        if graph == "transformer" and self.takes_mask and "mask" not in inputs:
            batch, _, height, width = inputs["features"].shape
            nothing = np.zeros((batch, height * width, self._token_channels), np.float32)
            hidden = np.ones((batch, height * width), np.bool_)
            inputs = {**inputs, "mask": nothing, "hidden": hidden}
        return self._graphs[graph].run(inputs)


def _start(
    onnxruntime: ModuleType, graphs: Mapping[str, Graphs], options: Any, engine_cache: Path | None
) -> tuple[str, str, dict[str, Any]]:
    """Start the first provider that can; `graphs` are by provider.

    Returns:
        The provider, why those before it did not start, and its sessions by graph.
    """
    available = onnxruntime.get_available_providers()
    wanted, reasons = tuple(graphs), list[str]()
    for provider, each in graphs.items():
        reason = why_missing(provider, available) or why_unsuited(provider, each.precision)
        if not reason:
            providers = session_providers(provider, available, each.precision, engine_cache)
            try:
                sessions = {
                    graph: _load(onnxruntime, path, options, providers)
                    for graph, path in each.paths.items()
                }
            except ModelError as error:
                if provider == wanted[-1]:
                    raise
                reason = str(error)
            else:
                # without its libraries, ONNX Runtime skips a provider and takes the next
                name = providers[0][0]
                if all(session.get_providers()[0] == name for session in sessions.values()):
                    return provider, "; ".join(reasons), sessions
                reason = (
                    f"{name} did not start: its libraries (CUDA, cuDNN, TensorRT) "
                    "are missing or do not match it"
                )
        reasons.append(reason)
    absent = any(why_missing(provider, available) for provider in wanted)
    raise ConfigError("; ".join([*reasons, REMEDY] if absent else reasons))


def _load(
    onnxruntime: ModuleType, path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]
) -> Any:
    try:
        # fallbacks are chosen by `_start`, not by ONNX Runtime
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's error types share no base but Exception
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load {path}: {first_line}; the file is damaged, fetch or export it again"
        ) from error
