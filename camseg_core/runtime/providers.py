"""Where a model can run: names of providers, and loading the first engine of several that can."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError, first_line
from camseg_core.runtime.engine import AUTO, Engine, EngineOptions
from camseg_core.runtime.onnx_engine import (
    EXECUTION_PROVIDERS,
    REMEDY,
    OnnxEngine,
    onnxruntime_module,
)
from camseg_core.runtime.openvino_engine import OpenVinoEngine

logger = logging.getLogger(__name__)

OPENVINO = ("openvino", "openvino:GPU", "openvino:NPU", "openvino:AUTO")
"""OpenVINO's devices; the first is its CPU."""

PROVIDERS = (AUTO, "cpu", *OPENVINO, "cuda", "tensorrt")
"""Names that options use; cpu is ONNX Runtime's."""

ALIASES = {"onnxruntime": "cpu", "openvino:CPU": "openvino"}

FASTEST_FIRST = ("tensorrt", "cuda", "openvino", "cpu")
"""What `AUTO` tries."""


def compiles(providers: Sequence[str]) -> bool:
    """Return whether one of these providers compiles graphs, so that an engine cache helps."""
    return any(name.partition(":")[0] in (AUTO, "openvino", "tensorrt") for name in providers)


Trial = Callable[[Engine], object]
"""Runs an engine once; raises an error of any type if it does not work."""


def provider_list(given: str | Sequence[str]) -> tuple[str, ...]:
    """Parse the providers to try in order, from `"tensorrt,cuda,cpu"` or a sequence of names.

    Raises:
        ConfigError: the list is empty, has an unknown name, or `AUTO` beside others; the message
            lists the choices.
    """
    names = given.split(",") if isinstance(given, str) else list(given)
    names = [ALIASES.get(name.strip(), name.strip()) for name in names]
    names, choices = list(dict.fromkeys(names)), ", ".join(PROVIDERS)
    for name in names:
        if name not in PROVIDERS:
            raise ConfigError(
                f"provider must be one of {choices}, or several, comma-separated, got {name!r}"
            )
    if not names:
        raise ConfigError(
            f"provider must be one of {choices}, or several, comma-separated, got nothing"
        )
    if AUTO in names and len(names) > 1:
        raise ConfigError(f"provider auto must be given alone, got {','.join(names)}")
    return tuple(names)


def load_engine(
    options: EngineOptions,
    provider: str | Sequence[str],
    fused: Fused | None = None,
    trial: Trial | None = None,
) -> Engine:
    """Load the first engine of these providers that can run the model.

    Args:
        options: of the engine, except the provider.
        provider: as `provider_list` takes it. `AUTO` takes the fastest of those installed.
        fused: see `Engine`.
        trial: runs each engine, except ONNX Runtime's CPU and TensorRT, whose engines take minutes;
            one that fails is passed over like one that cannot be loaded.

    Raises:
        ConfigError: no provider can be used, or the cache cannot be written.
        ModelError: a graph is missing or damaged, or the last provider cannot run it.
    """
    names, reasons, last = provider_list(provider), list[str](), None
    passed_over: list[tuple[str, str]] = []
    if options.cache is not None:
        try:
            options.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the engine cache {options.cache} cannot be made: {error.strerror}"
            ) from error
    automatic = names == (AUTO,)
    if automatic:
        absent = {name: _why_absent(name) for name in FASTEST_FIRST}
        names = tuple(name for name, why in absent.items() if not why)
        reasons = [why for why in absent.values() if why]
    for name in names:
        because = "; ".join(reasons)
        choice = f"auto: {because}" if because else "auto"
        fallback, choice = ("", choice) if automatic else (because, "")
        each = replace(options, provider=name, fallback=fallback, choice=choice)
        try:
            engine = _load(each, fused, trial)
        except (ConfigError, ModelError) as error:
            last, reason = error, str(error).removesuffix(f"; {REMEDY}")
            reasons.append(reason)
            passed_over += [(name, reason)] * automatic
            continue
        _warn_of(passed_over)
        if each.fallback:
            logger.warning("the model runs on %s: %s", name, each.fallback)
        return engine
    assert last is not None
    _warn_of(each for each in passed_over[:-1] if each[1] != passed_over[-1][1])
    if len(names) == 1 or isinstance(last, ModelError):
        raise last
    remedy = [REMEDY] if any(name in ("cuda", "tensorrt") for name in names) else []
    raise ConfigError("; ".join([*reasons, *remedy])) from last


def _warn_of(passed_over: Iterable[tuple[str, str]]) -> None:
    for name, reason in passed_over:
        logger.warning("%s cannot run the model: %s", name, reason)


def _load(options: EngineOptions, fused: Fused | None, trial: Trial | None) -> Engine:
    kind = OpenVinoEngine if options.provider in OPENVINO else OnnxEngine
    engine: Engine = kind(options, fused)
    if trial is not None and options.provider not in ("cpu", "tensorrt"):
        try:
            trial(engine)
        except (ConfigError, ModelError):
            raise
        except Exception as error:  # engines raise errors of any type
            raise ModelError(f"{engine.name} cannot run the model: {first_line(error)}") from error
    return engine


def _why_absent(provider: str) -> str:
    """Explain that a provider of `FASTEST_FIRST` is not installed; empty if it is."""
    if provider == "openvino":
        return "" if find_spec("openvino") else "openvino is not installed"
    if provider == "cpu":
        return ""
    if find_spec("onnxruntime") is None:
        return f"{provider} needs onnxruntime-gpu"
    has = EXECUTION_PROVIDERS[provider] in onnxruntime_module().get_available_providers()
    return "" if has else f"{provider} needs onnxruntime-gpu"
