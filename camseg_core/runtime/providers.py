"""ONNX Runtime's execution providers: parsing a list of them, and starting the first that can."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime.engine import Graphs

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution providers by the name that options use."""

REMEDY = (
    "put onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime onnxruntime-gpu, "
    "then pip install onnxruntime-gpu), or choose provider cpu"
)
"""What to do about a missing GPU provider."""


def provider_list(given: str | Sequence[str]) -> tuple[str, ...]:
    """Parse the providers to try in order, from `"tensorrt,cuda,cpu"` or a sequence of names.

    Raises:
        ConfigError: the list is empty or has an unknown name; the message lists the choices.
    """
    names = given.split(",") if isinstance(given, str) else list(given)
    names = list(dict.fromkeys(name.strip() for name in names))
    choices = ", ".join(PROVIDERS)
    for name in names:
        if name not in PROVIDERS:
            raise ConfigError(
                f"unknown provider {name!r}; choose one of {choices}, or several, comma-separated"
            )
    if not names:
        raise ConfigError(
            f"no provider is given; choose one of {choices}, or several in the order to try them"
        )
    return tuple(names)


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
    wanted = PROVIDERS[provider]
    if wanted in available:
        return ""
    return (
        f"provider {provider!r} needs ONNX Runtime's {wanted}, "
        f"but the installed one has only {', '.join(available)}"
    )


def why_unsuited(provider: str, precision: str) -> str:
    """Explain that a provider does not run graphs of this precision; empty if it does."""
    if provider == "cpu" or precision != "int8":
        return ""
    return (
        "int8 graphs are made for CPUs, with unsigned activations, "
        f"which {provider} rejects or does not gain from: choose fp16"
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
        (PROVIDERS[name], options[name])
        for name in chosen[provider]
        if name == provider or PROVIDERS[name] in available
    ]


def start_sessions(
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
        # fallbacks are chosen by `start_sessions`, not by ONNX Runtime
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's error types share no base but Exception
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load {path}: {first_line}; the file is damaged, fetch or export it again"
        ) from error
