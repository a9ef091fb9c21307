"""A model's graphs on OpenVINO: Intel and AMD CPUs, Arm, Intel graphics and NPUs."""

import functools
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime.engine import (
    BF16,
    READ_BY_GRAPHS,
    Array,
    EngineOptions,
    FolderEngine,
    all_hidden,
    damaged,
    precision_name,
    shape_text,
)

_HINTS = {"fp32": "f32", BF16: "bf16", "fp16": "f16"}
"""Arithmetic to ask for, by precision; for the others OpenVINO takes the processor's fastest."""

_ARITHMETIC = {"float32": "fp32", "f32": "fp32", "bfloat16": BF16, "float16": "fp16", "f16": "fp16"}
"""Names of OpenVINO's types."""


class OpenVinoEngine(FolderEngine):
    """The graphs of a model on an OpenVINO device; see `Engine` for its attributes.

    A graph is compiled for each frame size, in about a second, or in a fifth from the cache.

    Args:
        options: of the engine; `cache` keeps what was compiled.
        fused: run this graph of the whole network in place of the parts, if the folder has it.

    Raises:
        ConfigError: OpenVINO is not installed, or lacks the device or the precision.
        ModelError: a graph is missing or damaged.
    """

    def __init__(self, options: EngineOptions, fused: Fused | None = None) -> None:
        self._core = openvino_core()
        super().__init__(options, fused)
        self._device = options.provider.partition(":")[2] or "CPU"
        self._check_device()
        self._settings = self._settings_of(options)
        version = openvino_module().__version__.partition("-")[0]
        self.name = f"OpenVINO {version} on {self._device}"
        self.precision = precision_name(self._chosen.precision, self._arithmetic())
        # on a CPU a batch takes as long as its frames one by one, and would be compiled again
        self.batches = self._device != "CPU"
        self._models = {name: _read(path) for name, path in self._chosen.paths.items()}
        self._requests: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        parts = self._models.get("transformer")
        known = {} if parts is None else {each.any_name: each for each in parts.inputs}
        self.takes_mask = "mask" in known
        self._token_channels = known["mask"].partial_shape[2].get_length() if self.takes_mask else 0

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        if graph == "transformer" and self.takes_mask and "mask" not in inputs:
            inputs = all_hidden(inputs, self._token_channels)
        arrays = {name: np.asarray(given) for name, given in inputs.items()}
        request = self._request(graph, arrays)
        kept = graph in READ_BY_GRAPHS  # not copied
        outputs = request.infer(arrays, share_inputs=True, share_outputs=kept)
        return {port.any_name: array for port, array in outputs.items()}

    def _request(self, graph: str, inputs: Mapping[str, Array]) -> Any:
        """Return what runs a graph at these shapes, compiled if it is not among the cached."""
        shapes = {name: list(given.shape) for name, given in inputs.items()}
        if graph == "denoiser" and self._device == "CPU":
            # in passes it gets other numbers of cells each time; this costs a sixth of its speed
            for name in ("tokens", "condition"):
                shapes[name][0] = -1
        key = graph, *map(tuple, shapes.values())
        if key not in self._requests:
            # the size used longest ago first makes room: both together need more memory
            if len(self._requests) >= self.options.kept_sizes * len(self._models):
                self._requests.popitem(last=False)
            what = f"{graph} for {shape_text(inputs)}"
            with self.options.compilations.compiling(what):
                self._requests[key] = self._compile(graph, shapes, what)
        self._requests.move_to_end(key)
        return self._requests[key]

    def _compile(self, graph: str, shapes: Mapping[str, list[int]], what: str) -> Any:
        model = self._models[graph].clone()
        try:
            model.reshape(shapes)  # static shapes are faster than dynamic ones
            device, settings = self._device, self._settings
            if device in ("CPU", "AUTO") and _as_many_tokens_as_heads(model):
                # never from the cache, whose key does not have this setting
                settings = {key: each for key, each in settings.items() if key != "CACHE_DIR"}
                device, settings = "CPU", {**settings, "SNIPPETS_MODE": "DISABLE"}
            compiled = self._core.compile_model(model, device, settings)
            return compiled.create_infer_request()
        except Exception as error:  # OpenVINO's plugins raise errors of several types
            raise ModelError(
                f"{self.name} cannot compile {what}: {_reason(error)}; choose another provider"
            ) from error

    def _check_device(self) -> None:
        there = self._core.available_devices
        if self._device == "AUTO" or any(each.split(".")[0] == self._device for each in there):
            return
        raise ConfigError(
            f"provider 'openvino:{self._device}' needs an OpenVINO device {self._device} and its "
            f"driver, but found only {', '.join(there)}; choose provider openvino"
        )

    def _settings_of(self, options: EngineOptions) -> dict[str, object]:
        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            # pinned threads of two nodes would share some cores and leave others idle
            settings["ENABLE_CPU_PINNING"] = False
            if options.threads:
                settings["INFERENCE_NUM_THREADS"] = options.threads
        if options.cache is not None:
            settings["CACHE_DIR"] = str(options.cache)
        if options.precision in _HINTS:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[options.precision]
        able = self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        if options.precision == BF16 and "BF16" not in able:
            raise ConfigError(
                f"precision bf16 needs a processor with bf16 arithmetic, but {self._device} has "
                f"only {', '.join(able)}; choose fp32 or auto"
            )
        if options.precision == "fp16" and "FP16" not in able:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        return settings

    def _arithmetic(self) -> str:
        """Return the precision of what int8 graphs leave in floats, or of all.

        Where OpenVINO chooses the device, it may be that of any; they are then all named.
        """
        hint = self._settings.get("INFERENCE_PRECISION_HINT")
        if hint is not None:
            return _ARITHMETIC.get(str(hint), str(hint))
        found = dict[str, None]()
        for device in self._core.available_devices if self._device == "AUTO" else [self._device]:
            kind = self._core.get_property(device, "INFERENCE_PRECISION_HINT").get_type_name()
            found[_ARITHMETIC.get(kind, kind)] = None
        return " or ".join(found)


def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which has only one and keeps it to its end.

    Each sets the stack on which signal handlers run, and puts back the one before when it is
    deleted. Of several, that may be the freed stack of another: the next signal then kills the
    process.

    Raises:
        ConfigError: as `openvino_module` does.
    """
    return _core_of(openvino_module())


@functools.cache
def _core_of(openvino: ModuleType) -> Any:
    return openvino.Core()


def openvino_module() -> ModuleType:
    """Import OpenVINO, without the package that would report the import over the network.

    Raises:
        ConfigError: it cannot be imported; the message says what to install.
    """
    if "openvino" not in sys.modules:
        # OpenVINO takes the absence of this package as a wish not to report
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            f"OpenVINO cannot be imported ({error}); pip install openvino, or choose provider auto"
        ) from error
    return openvino


def _as_many_tokens_as_heads(model: Any) -> bool:
    """Whether attention multiplies [B, heads, tokens, tokens] with `heads` equal to `tokens`.

    OpenVINO 2026.4 joins an attention's operations into one. On AVX2 this one confuses the two
    dimensions if they are equal, and its threads overwrite each other's results.
    """
    products = (each for each in model.get_ops() if each.get_type_name() == "MatMul")
    shapes = (each.get_output_partial_shape(0) for each in products)
    return any(
        shape.rank.is_static
        and shape.rank.get_length() == 4
        and len({str(each) for each in list(shape)[1:]}) == 1
        and shape[1].is_static
        for shape in shapes
    )


def _read(path: Path) -> Any:
    # the frontend by name: otherwise a damaged file is tried in every format, which print errors
    from openvino.frontend import FrontEndManager

    try:
        frontend = FrontEndManager().load_by_framework("onnx")
        return frontend.convert(frontend.load(str(path)))
    except Exception as error:
        raise damaged(path, ValueError(_reason(error))) from error


def _reason(error: Exception) -> str:
    """Return the last line of an error of OpenVINO; those before it are places in its sources."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else repr(error)
