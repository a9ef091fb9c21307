"""A model's graphs on ONNX Runtime, on the first execution provider of a list that starts."""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError
from camseg_core.runtime.engine import AUTO, Array, graphs_of
from camseg_core.runtime.providers import onnxruntime_module, provider_list, start_sessions

logger = logging.getLogger(__name__)

MAX_CACHED_BUFFERS = 64
"""Page-locked buffers kept at a time: inputs and outputs of every graph for some frame sizes."""

_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

_KEPT_ON_DEVICE = ("image_encoder", "transformer")
"""Graphs whose outputs only other graphs read: on a GPU they stay there."""


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
        self.provider, self.fallback, sessions = start_sessions(
            onnxruntime, graphs, options, engine_cache
        )
        self._chosen = graphs[self.provider]
        self.precision, self.fused = self._chosen.precision, self._chosen.fused
        self._choose = partial(graphs_of, folder, self.provider, precision)
        self._load = partial(
            OnnxEngine, folder, wanted, threads, precision=precision, engine_cache=engine_cache
        )
        if self.fallback:
            logger.warning("the model runs on %s: %s", self.provider, self.fallback)
        on_gpu, buffers = self.provider != "cpu", None
        if on_gpu:
            buffers = HostBuffers.of(onnxruntime, next(iter(sessions.values())).get_providers())
        device = "cuda" if on_gpu else "cpu"
        self._graphs = {
            name: BoundGraph(session, device, on_gpu and name in _KEPT_ON_DEVICE, buffers)
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


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An `onnxruntime.OrtValue` that one graph leaves for the next, in any shape of its size."""

    value: Any
    shape: tuple[int, ...]

    def reshape(self, *shape: int) -> "DeviceArray":
        """Return the same memory in another shape; one side may be -1."""
        rest = math.prod(self.shape) // math.prod(side for side in shape if side >= 0)
        return DeviceArray(self.value, tuple(rest if side < 0 else side for side in shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Copy the array to the host."""
        return np.array(self.value.numpy(), dtype).reshape(self.shape)


class BoundGraph:
    """A session with IO binding.

    Args:
        session: an `onnxruntime.InferenceSession`.
        device: where its provider computes, `cpu` or `cuda` (TensorRT uses CUDA's memory).
        keep: leave the outputs on the device, as `DeviceArray`.
        host_buffers: page-locked memory for what crosses the bus, if there is any.
    """

    def __init__(
        self,
        session: Any,
        device: str,
        keep: bool = False,
        host_buffers: "HostBuffers | None" = None,
    ) -> None:
        self._session, self._device, self._keep = session, device, keep
        self._host_buffers = host_buffers
        self.inputs = {each.name: each for each in session.get_inputs()}
        self._outputs = [each.name for each in session.get_outputs()]
        self._known_outputs: dict[tuple[tuple[int, ...], ...], list[tuple[Any, Any]]] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph; outputs by name, on the host unless they are kept."""
        binding, buffers = self._session.io_binding(), self._host_buffers
        for name, given in inputs.items():
            if isinstance(given, DeviceArray):
                if given.shape == tuple(given.value.shape()):
                    binding.bind_ortvalue_input(name, given.value)
                else:  # an OrtValue cannot be reshaped, but its memory bound under another shape
                    kind, pointer = _NUMPY_TYPES[given.value.data_type()], given.value.data_ptr()
                    binding.bind_input(name, self._device, 0, kind, list(given.shape), pointer)
            elif buffers is not None and given.ndim:
                buffer = buffers.get(name, given.shape, given.dtype)
                np.copyto(buffer.numpy(), given)  # a view of the page-locked memory
                binding.bind_ortvalue_input(name, buffer)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(given) if given.ndim else given)
        shapes = tuple(tuple(given.shape) for given in inputs.values())
        values = []
        if buffers is not None and shapes in self._known_outputs:
            known = zip(self._outputs, self._known_outputs[shapes], strict=True)
            values = [buffers.get(name, *described) for name, described in known]
            for name, value in zip(self._outputs, values, strict=True):
                binding.bind_ortvalue_output(name, value)
        else:
            for name in self._outputs:
                binding.bind_output(name, self._device if self._keep else "cpu")
        binding.synchronize_inputs()  # copies to a GPU may be under way; nothing to do on the CPU
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        values = values or binding.get_outputs()
        if self._keep:
            arrays = (DeviceArray(value, tuple(value.shape())) for value in values)
            return dict(zip(self._outputs, arrays, strict=True))
        found = {n: value.numpy() for n, value in zip(self._outputs, values, strict=True)}
        if buffers is None:
            return found
        self._known_outputs[shapes] = [(array.shape, array.dtype) for array in found.values()]
        # copies: the next frame is written to the same memory
        return {name: np.array(array) for name, array in found.items()}


class HostBuffers:
    """Page-locked host memory, which a GPU reads and writes by itself: a buffer per name and shape.

    ONNX Runtime offers it to Python since an OrtValue can be made in a device's `HOST_ACCESSIBLE`
    memory (2026, pull request 28038). Not run on a GPU here; tests use the CPU's memory instead.
    """

    def __init__(self, memory_info: Any, make: Any) -> None:
        self._memory_info, self._make = memory_info, make
        self._buffers: OrderedDict[tuple[str, tuple[int, ...], str], Any] = OrderedDict()

    @staticmethod
    def of(onnxruntime: Any, providers: Sequence[str]) -> "HostBuffers | None":
        """Return buffers of the first of these providers with such memory; None if none has."""
        try:
            devices = {device.ep_name: device for device in onnxruntime.get_ep_devices()}
            kind = onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE
            for name in providers:
                info = devices[name].memory_info(kind) if name in devices else None
                if info is not None:
                    buffers = HostBuffers(info, onnxruntime.OrtValue.ortvalue_from_shape_and_type)
                    probe = buffers.get("probe", (1,), np.dtype(np.uint8))
                    probe.numpy()[:] = 7  # must be a view of the memory, not a copy
                    return buffers if probe.numpy()[0] == 7 else None
        except Exception:  # an older ONNX Runtime, or a provider without: one more copy per frame
            return None
        return None

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return the OrtValue for an input or output; the least recently used one is dropped."""
        kind = np.dtype(dtype)
        key = name, tuple(shape), kind.str
        if key not in self._buffers:
            made = self._make(list(shape), kind.type, memory_info=self._memory_info)
            self._buffers[key] = made
            if len(self._buffers) > MAX_CACHED_BUFFERS:
                self._buffers.popitem(last=False)
        self._buffers.move_to_end(key)
        return self._buffers[key]
