"""A graph in an ONNX Runtime session, with its arrays bound to the memory where they are."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.runtime.engine import Array

MAX_CACHED_BUFFERS = 64
"""Page-locked buffers kept at a time: inputs and outputs of every graph for some frame sizes."""

_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


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
