"""Execution providers: which one is asked for, whether it is there, and how its sessions are set up."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from camseg_core.errors import ConfigError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution providers by the name that options use."""

Options = dict[str, str]


def provider_list(given: str | Sequence[str]) -> tuple[str, ...]:
    """The providers to try in order, from `"tensorrt,cuda,cpu"` or a sequence of names.

    Raises:
        ConfigError: there is none, or one is unknown; the message lists the choices.
    """
    names = given.split(",") if isinstance(given, str) else list(given)
    names = list(dict.fromkeys(name.strip() for name in names))
    for name in names:
        if name not in PROVIDERS:
            raise ConfigError(
                f"unknown provider {name!r}; choose one of {', '.join(PROVIDERS)}, or several with commas between"
            )
    if not names:
        raise ConfigError(
            f"no provider is given; choose one of {', '.join(PROVIDERS)}, or several in the order to try them"
        )
    return tuple(names)


def onnxruntime_module() -> ModuleType:
    """ONNX Runtime, imported late so that a machine without it gets an error that says what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"ONNX Runtime cannot be imported ({error}); pip install onnxruntime, or onnxruntime-gpu"
        ) from error
    return onnxruntime


def why_missing(provider: str, available: Sequence[str]) -> str:
    """What the installed ONNX Runtime lacks for a provider; empty if it is built with it."""
    wanted = PROVIDERS[provider]
    if wanted in available:
        return ""
    return f"provider {provider!r} needs ONNX Runtime's {wanted}, but the installed one has only {', '.join(available)}"


def why_unsuited(provider: str, precision: str) -> str:
    """Why a provider does not run graphs of this precision; empty if it does."""
    if provider == "cpu" or precision != "int8":
        return ""
    return f"int8 graphs are made for CPUs, with unsigned activations, which {provider} does not gain from or does not take: choose fp16"


REMEDY = (
    "put onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu), "
    "or choose provider cpu"
)
"""What to do about a missing GPU provider."""


def session_providers(
    provider: str, available: Sequence[str], precision: str, engine_cache: Path | None
) -> list[tuple[str, Options]]:
    """What `InferenceSession` takes as providers: the one wanted, then those that get the operators it lacks.

    The GPU options were checked against ONNX Runtime's documentation, not on a GPU.
    """
    chosen = [provider]
    if provider == "tensorrt" and PROVIDERS["cuda"] in available:
        chosen.append("cuda")
    if provider != "cpu":
        chosen.append("cpu")
    return [(PROVIDERS[name], _options(name, precision, engine_cache)) for name in chosen]


def _options(provider: str, precision: str, engine_cache: Path | None) -> Options:
    if provider == "tensorrt":
        options = {"trt_fp16_enable": _flag(precision == "fp16")}
        if (
            engine_cache is not None
        ):  # building an engine takes minutes, and each frame size needs one
            folder = str(engine_cache)
            options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": folder}
            options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": folder}
        return options
    if provider == "cuda":
        return {
            # not the default, EXHAUSTIVE: that picks kernels by timing them, so another run may round otherwise and give another mask
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",  # the sizes of a camera's frames never change: no memory is taken ahead
            "use_tf32": _flag(precision != "fp32", "1", "0"),  # fp32 means fp32
        }
    return {}


def _flag(on: bool, yes: str = "True", no: str = "False") -> str:
    return yes if on else no
