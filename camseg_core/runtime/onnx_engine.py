"""A model's graphs on ONNX Runtime, on one of its execution providers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError, first_line
from camseg_core.runtime.engine import (
    BF16,
    READ_BY_GRAPHS,
    Array,
    EngineOptions,
    FolderEngine,
    Graphs,
    all_hidden,
    damaged,
    precision_name,
    shape_text,
)
from camseg_core.runtime.onnx_graph import BoundGraph, HostBuffers
from camseg_core.runtime.origin import fingerprint

EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""ONNX Runtime's providers by the name that options use."""

REMEDY = (
    "put onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime onnxruntime-gpu, "
    "then pip install onnxruntime-gpu), or choose provider auto"
)
"""What to do about a missing GPU provider."""


class OnnxEngine(FolderEngine):
    """The graphs of a model on one execution provider; see `Engine` for its attributes.

    Args:
        options: of the engine; `cache` keeps the engines that TensorRT builds.
        fused: run this graph of the whole network in place of the parts, if the folder has it.

    Raises:
        ConfigError: the precision is unknown, or the provider does not start or not run it.
        ModelError: a graph is missing or damaged.
    """

    batches = True

    def __init__(self, options: EngineOptions, fused: Fused | None = None) -> None:
        super().__init__(options, fused)
        provider = options.provider
        onnxruntime = onnxruntime_module()
        sessions = _start(onnxruntime, options, self._chosen)
        device = "CPU" if provider == "cpu" else "CUDA" if provider == "cuda" else "TensorRT"
        self.name = f"ONNX Runtime {onnxruntime.__version__} on {device}"
        # on the CPU, ONNX Runtime stores fp16 graphs in fp16 and computes them in fp32
        plain = "fp16" if self._chosen.precision == "fp16" and provider != "cpu" else "fp32"
        self.precision = precision_name(self._chosen.precision, plain)
        on_gpu, buffers = provider != "cpu", None
        if on_gpu:
            buffers = HostBuffers.of(onnxruntime, next(iter(sessions.values())).get_providers())
        memory = "cuda" if on_gpu else "cpu"
        self._graphs = {
            name: BoundGraph(session, memory, on_gpu and name in READ_BY_GRAPHS, buffers)
            for name, session in sessions.items()
        }
        known = None if self.fused else self._graphs["transformer"].inputs.get("mask")
        self.takes_mask = known is not None
        self._token_channels = 0 if known is None else known.shape[2]
        self._built: set[tuple[object, ...]] = set()

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        if graph == "transformer" and self.takes_mask and "mask" not in inputs:
            inputs = all_hidden(inputs, self._token_channels)
        if self.options.provider != "tensorrt":
            return self._graphs[graph].run(inputs)
        return self._run_or_build(graph, inputs)

    def _run_or_build(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on TensorRT, which builds an engine at the first run of a size."""
        key = graph, *(tuple(each.shape) for each in inputs.values())
        if key in self._built:
            return self._graphs[graph].run(inputs)
        what = f"{graph} for {shape_text(inputs)}"
        with self.options.compilations.compiling(what):
            try:
                outputs = self._graphs[graph].run(inputs)
            except Exception as error:  # ONNX Runtime's error types share no base but Exception
                raise ModelError(
                    f"{self.name} cannot build an engine of {what}: {first_line(error)}; choose "
                    "provider cuda"
                ) from error
        self._built.add(key)
        return outputs


def onnxruntime_module() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        ConfigError: it cannot be imported; the message says what to install.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"ONNX Runtime cannot be imported ({error}); "
            "pip install onnxruntime, or onnxruntime-gpu"
        ) from error
    return onnxruntime


def why_missing(provider: str, available: Sequence[str]) -> str:
    """Explain that the installed ONNX Runtime lacks a provider; empty if it has it."""
    wanted = EXECUTION_PROVIDERS[provider]
    if wanted in available:
        return ""
    return (
        f"provider {provider!r} needs ONNX Runtime's {wanted}, "
        f"but the installed one has only {', '.join(available)}"
    )


def session_providers(
    provider: str, available: Sequence[str], precision: str, engine_cache: Path | None
) -> list[tuple[str, dict[str, str]]]:
    """Return the `providers` of an `InferenceSession`: this one, then fallbacks for its operators.

    The GPU options follow ONNX Runtime's documentation. Not run on a GPU here; to check one:
    `camseg bench --provider tensorrt --against provider=cpu`.
    """
    options: dict[str, dict[str, str]] = {"cpu": {}}
    options["tensorrt"] = {"trt_fp16_enable": str(precision == "fp16")}
    if engine_cache is not None:  # building an engine takes minutes, for each frame size
        for kind in ("engine", "timing"):
            options["tensorrt"][f"trt_{kind}_cache_enable"] = "True"
            options["tensorrt"][f"trt_{kind}_cache_path"] = str(engine_cache)
    options["cuda"] = {
        # the default, EXHAUSTIVE, times kernels: another run may round differently
        "cudnn_conv_algo_search": "HEURISTIC",
        # a camera's frames keep their size: do not reserve more memory
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0" if precision == "fp32" else "1",
    }
    chosen = {"cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}
    return [
        (EXECUTION_PROVIDERS[name], options[name])
        for name in chosen[provider]
        if name == provider or EXECUTION_PROVIDERS[name] in available
    ]


def cache_of(graph: Path, cache: Path) -> Path:
    """Return the folder of a graph's TensorRT engines in an engine cache.

    ONNX Runtime names engines by the graph's file and outputs, which all models of one architecture
    share: without a folder for each content, new weights would run as the old.
    """
    return cache / f"{graph.stem}-{fingerprint(graph)}"


def _start(onnxruntime: ModuleType, options: EngineOptions, graphs: Graphs) -> dict[str, Any]:
    """Start a session for each graph.

    Raises:
        ConfigError: the provider is not there, does not start, or does not suit the precision.
        ModelError: a graph cannot be loaded.
    """
    provider, available = options.provider, onnxruntime.get_available_providers()
    if missing := why_missing(provider, available):
        raise ConfigError(f"{missing}; {REMEDY}")
    if options.precision == BF16:
        raise ConfigError(f"precision bf16 needs provider openvino, got {provider}; choose auto")
    if provider != "cpu" and graphs.precision == "int8":
        raise ConfigError(
            "int8 graphs are made for CPUs, with unsigned activations, "
            f"which {provider} rejects or does not gain from: choose fp16"
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    # threads that spin while they wait burn a core that the camera driver needs
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = {}
    for graph, path in graphs.paths.items():
        cache = None if options.cache is None else cache_of(path, options.cache)
        providers = session_providers(provider, available, graphs.precision, cache)
        sessions[graph] = _load(onnxruntime, path, settings, providers)
    # without its libraries, ONNX Runtime skips a provider and takes the next
    name = EXECUTION_PROVIDERS[provider]
    if any(session.get_providers()[0] != name for session in sessions.values()):
        raise ConfigError(
            f"{name} did not start: its libraries (CUDA, cuDNN, TensorRT) "
            "are missing or do not match it"
        )
    return sessions


def _load(
    onnxruntime: ModuleType, path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]
) -> Any:
    try:
        # ONNX Runtime takes names only in UTF-8
        text = str(path).encode(errors="replace").decode()
        model = path if text == str(path) else path.read_bytes()
        # fallbacks are chosen by `load_engine`, not by ONNX Runtime
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's error types share no base but Exception
        raise damaged(path, error) from error
