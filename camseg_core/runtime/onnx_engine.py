"""A model's graphs as ONNX Runtime sessions, on the first execution provider of a list that starts."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime.bound_graph import MOST_SIZES, Array, BoundGraph, DeviceArray, HostBuffers
from camseg_core.runtime.graphs import AUTO, Graphs, graphs_of
from camseg_core.runtime.providers import (
    REMEDY,
    onnxruntime_module,
    provider_list,
    session_providers,
    why_missing,
    why_unsuited,
)
from camseg_core.runtime.recent import Recent

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]


class OnnxEngine:
    """The graphs of a model on one execution provider.

    What one graph leaves for the next stays in the provider's memory, as a `DeviceArray`; numpy arrays cross over.

    Args:
        folder: a checkpoint folder with `onnx/<precision>/<graph>.onnx`.
        provider: keys of `PROVIDERS` in the order to try them, as a sequence or with commas between.
        threads: threads per operator; 0 leaves the choice to ONNX Runtime (one per core).
        precision: one of `PRECISIONS`, or `AUTO`, the best of those that the folder has for the provider that starts.
        fused: run this graph of the whole network, by `run_fused`, in place of the parts, if the folder has it.
        engine_cache: folder in which TensorRT keeps the engines that it builds.

    Attributes:
        provider: the one in use.
        fallback: why it is not the first of the list; empty if it is.
        precision: the one in use.
        fused: the graph of the whole network, if it is that which runs.

    Raises:
        ConfigError: a provider is unknown, or none of the list is there and starts; an unknown precision; the cache cannot be written to.
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
            _make(engine_cache)
        onnxruntime = onnxruntime_module()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # threads that spin while they wait burn a core that the camera driver or the middleware needs
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
        device = "cpu" if self.provider == "cpu" else "cuda"
        buffers = (
            None
            if device == "cpu"
            else HostBuffers.of(onnxruntime, sessions[next(iter(sessions))].get_providers())
        )
        self._graphs = {
            name: BoundGraph(session, device, buffers) for name, session in sessions.items()
        }
        self._nothing_known: Recent[tuple[int, int], dict[str, DeviceArray]] = Recent(MOST_SIZES)

    @property
    def takes_mask(self) -> bool:
        """Whether the transformer can be told what is known of the mask; a graph of the whole network cannot."""
        return self.fused is None and "mask" in self._graphs["transformer"].inputs

    def check(self, fused: Fused | None) -> None:
        """Look whether the folder has what `running` needs, without loading it.

        Raises:
            ModelError: a graph is missing.
        """
        self._choose(fused)

    def running(self, fused: Fused | None) -> "OnnxEngine":
        """An engine of this model that runs the fused graph if the folder has it, else the parts: this one if it does so, else another.

        Raises:
            ConfigError, ModelError: as for a new engine.
        """
        return self if self._choose(fused) == self._chosen else self._load(fused=fused)

    def encode_image(self, image: Ids) -> dict[str, DeviceArray]:
        """RGB `(B, H, W, 3)` to feature maps by name; `features` is `(B, C, h, w)` with one cell per token."""
        graph = self._graphs["image_encoder"]
        return dict(zip(graph.outputs, graph.keep({"image": image}), strict=True))

    def conditions(
        self,
        features: Mapping[str, DeviceArray],
        mask: Floats | None = None,
        hidden: npt.NDArray[np.bool_] | None = None,
    ) -> DeviceArray:
        """Feature maps to conditions `(B, N, D)`.

        `mask` `(B, L, token_channels)` and `hidden` `(B, L)` tell what is known of the mask; without them, nothing is. Only a model that
        `takes_mask` can be told.
        """
        if mask is not None and hidden is not None:
            known: Mapping[str, Any] = {"mask": mask, "hidden": hidden}
        else:
            known = self._all_hidden(features["features"].shape) if self.takes_mask else {}
        return self._graphs["transformer"].keep({**features, **known})[0]

    def denoise(self, tokens: Floats, step: int, condition: Floats | DeviceArray) -> Floats:
        """Noisy tokens `(M, C)` at a step number to the denoiser's raw output; conditions `(M, D)` or `(B, N, D)`, B·N being M."""
        rows = (
            condition.reshaped(-1, condition.shape[-1])
            if isinstance(condition, DeviceArray)
            else condition
        )
        inputs: dict[str, Array | DeviceArray] = {
            "tokens": tokens,
            "step": np.array([step], np.int64),
            "condition": rows,
        }
        return self._graphs["denoiser"].fetch(inputs)[0]

    def decode(self, latents: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """Mask latents `(B, S, C, h, w)`, S samples of each frame, to train ids and confidence, `(B, H, W)` each.

        Class probabilities are the softmax of `logit_scale` times the logits, averaged over the samples.
        """
        mask, confidence = self._graphs["decoder"].fetch(
            {"latents": latents, "sharpness": np.array(logit_scale, np.float32)}
        )
        return mask, confidence

    def run_fused(self, image: Ids, start: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """RGB `(B, H, W, 3)` and what the sampler starts from `(B, N, C)` to train ids and confidence, `(B, H, W)` each."""
        assert self.fused is not None
        inputs: dict[str, Array | DeviceArray] = {
            "image": image,
            "start": start,
            "sharpness": np.array(logit_scale, np.float32),
        }
        mask, confidence = self._graphs[self.fused.name].fetch(inputs)
        return mask, confidence

    def _all_hidden(self, features: tuple[int, ...]) -> dict[str, DeviceArray]:
        """The transformer's inputs where nothing is known; made once for a size, and left where the provider computes."""
        graph = self._graphs["transformer"]
        batch, tokens = features[0], features[2] * features[3]

        def make() -> dict[str, DeviceArray]:
            mask = np.zeros((batch, tokens, graph.inputs["mask"].shape[2]), np.float32)
            return {
                "mask": graph.to_device(mask),
                "hidden": graph.to_device(np.ones((batch, tokens), np.bool_)),
            }

        return self._nothing_known.get((batch, tokens), make)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the engine cache {folder} cannot be made: {error.strerror}") from error


def _start(
    onnxruntime: ModuleType, graphs: Mapping[str, Graphs], options: Any, engine_cache: Path | None
) -> tuple[str, str, dict[str, Any]]:
    """Of the providers, each with its graphs: the first that is there and starts, why those before it do not, and its sessions by graph."""
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
                # without its libraries, ONNX Runtime leaves a provider out and goes on with the next
                if all(
                    session.get_providers()[0] == providers[0][0] for session in sessions.values()
                ):
                    return provider, "; ".join(reasons), sessions
                reason = f"{providers[0][0]} did not start: its libraries (CUDA, cuDNN, TensorRT) are missing or do not match it"
        reasons.append(reason)
    absent = any(why_missing(provider, available) for provider in wanted)
    raise ConfigError("; ".join([*reasons, REMEDY] if absent else reasons))


def _load(
    onnxruntime: ModuleType, path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]
) -> Any:
    try:
        # falling back is for the list of providers to say, not for ONNX Runtime
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's error types share no base but Exception
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load {path}: {first_line}; the file is damaged, fetch or export it again"
        ) from error
