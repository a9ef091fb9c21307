"""One graph whose inputs and outputs are bound to memory where the provider computes, so that nothing crosses the bus unasked."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.runtime.providers import onnxruntime_module
from camseg_core.runtime.recent import Recent

Array = npt.NDArray[Any]

MOST_BUFFERS = 64
"""Kept at a time: the inputs and outputs of every graph for some sizes of frames."""

MOST_SIZES = 8
"""Of frames, for which something is kept ready."""


class DeviceArray:
    """An array in the memory of the provider (of the host, for the CPU), as one graph leaves it for the next.

    `reshaped` gives the same memory another shape. `numpy` copies it to the host.
    """

    def __init__(self, value: Any, shape: tuple[int, ...] | None = None) -> None:
        self.value = value  # an onnxruntime.OrtValue, which owns the memory
        self.shape = tuple(value.shape()) if shape is None else shape

    @staticmethod
    def of(array: Array, device: str = "cpu") -> "DeviceArray":
        """A host array where the provider computes, `cpu` or `cuda`."""
        return DeviceArray(
            onnxruntime_module().OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(array), device, 0
            )
        )

    def reshaped(self, *shape: int) -> "DeviceArray":
        """The same numbers in another shape; one side may be -1, for what is left."""
        known = math.prod(side for side in shape if side >= 0)
        return DeviceArray(
            self.value,
            tuple(math.prod(self.shape) // known if side < 0 else side for side in shape),
        )

    def numpy(self) -> Array:
        """A copy on the host."""
        return np.array(self.value.numpy()).reshape(self.shape)


class BoundGraph:
    """A session with IO binding.

    Args:
        session: an `onnxruntime.InferenceSession`.
        device: where its provider computes, `cpu` or `cuda` (TensorRT's memory is CUDA's).
        host_buffers: page-locked memory for what crosses the bus, if there is any.
    """

    def __init__(
        self, session: Any, device: str, host_buffers: "HostBuffers | None" = None
    ) -> None:
        self._session, self._device, self._host_buffers = session, device, host_buffers
        self.inputs = {each.name: each for each in session.get_inputs()}
        self.outputs = [each.name for each in session.get_outputs()]
        self._output_shapes: dict[
            tuple[tuple[int, ...], ...], list[tuple[tuple[int, ...], Any]]
        ] = {}

    def to_device(self, array: Array) -> DeviceArray:
        """A copy of a host array where the provider computes."""
        return DeviceArray.of(array, self._device)

    def keep(self, inputs: Mapping[str, Array | DeviceArray]) -> list[DeviceArray]:
        """Run and leave the outputs where the provider computes."""
        binding = self._bound(inputs)
        for name in self.outputs:
            binding.bind_output(name, self._device)
        self._run(binding)
        return [DeviceArray(value) for value in binding.get_outputs()]

    def fetch(self, inputs: Mapping[str, Array | DeviceArray]) -> list[Array]:
        """Run and bring the outputs to the host, as arrays of their own."""
        binding = self._bound(inputs)
        sizes = tuple(tuple(array.shape) for array in inputs.values())
        known = self._output_shapes.get(sizes) if self._host_buffers is not None else None
        if known is None:
            for name in self.outputs:
                binding.bind_output(name, "cpu")
            self._run(binding)
            fetched = [value.numpy() for value in binding.get_outputs()]
            self._output_shapes[sizes] = [(array.shape, array.dtype) for array in fetched]
            return fetched
        assert self._host_buffers is not None
        buffers = [
            self._host_buffers.get(name, shape, dtype)
            for name, (shape, dtype) in zip(self.outputs, known, strict=True)
        ]
        for name, buffer in zip(self.outputs, buffers, strict=True):
            binding.bind_ortvalue_output(name, buffer)
        self._run(binding)
        return [
            np.array(buffer.numpy()) for buffer in buffers
        ]  # copies: the next frame is written to the same place

    def _run(self, binding: Any) -> None:
        binding.synchronize_inputs()  # copies to and from a GPU may still be under way; nothing to do on the CPU
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def _bound(self, inputs: Mapping[str, Array | DeviceArray]) -> Any:
        binding = self._session.io_binding()
        for name, given in inputs.items():
            if isinstance(given, DeviceArray):
                if given.shape == tuple(given.value.shape()):
                    binding.bind_ortvalue_input(name, given.value)
                else:  # ONNX Runtime's arrays cannot be reshaped, but their memory can be bound under another shape
                    kind = _NUMPY_TYPES[given.value.data_type()]
                    binding.bind_input(
                        name, self._device, 0, kind, list(given.shape), given.value.data_ptr()
                    )
            elif self._host_buffers is not None and given.ndim:
                buffer = self._host_buffers.get(name, given.shape, given.dtype)
                np.copyto(buffer.numpy(), given)  # a view of the page-locked memory
                binding.bind_ortvalue_input(name, buffer)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(given) if given.ndim else given)
        return binding


class HostBuffers:
    """Page-locked memory of the host, which a GPU reads and writes by itself; one buffer for each name, shape and type, used again.

    ONNX Runtime hands it out in Python since an OrtValue can be made in a device's `HOST_ACCESSIBLE` memory (2026, pull request 28038);
    before, only C++ could. Not run on a GPU here.
    """

    def __init__(self, memory_info: Any, make: Any) -> None:
        self._memory_info, self._make = memory_info, make
        self._buffers: Recent[tuple[str, tuple[int, ...], str], Any] = Recent(MOST_BUFFERS)

    @staticmethod
    def of(onnxruntime: Any, providers: list[str]) -> "HostBuffers | None":
        """The buffers of the first of these providers whose memory ONNX Runtime offers; None if it offers none."""
        try:
            devices = {device.ep_name: device for device in onnxruntime.get_ep_devices()}
            for name in providers:
                info = (
                    devices[name].memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
                    if name in devices
                    else None
                )
                if info is not None:
                    buffers = HostBuffers(info, onnxruntime.OrtValue.ortvalue_from_shape_and_type)
                    probe = buffers.get("probe", (1,), np.dtype(np.uint8))
                    probe.numpy()[:] = 7
                    return (
                        buffers if probe.numpy()[0] == 7 else None
                    )  # a view of the memory, not a copy
        except Exception:  # an ONNX Runtime that is too old, or whose provider has no such memory: frames are copied once more
            return None
        return None

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """The OrtValue for an input or output of that name."""
        kind = np.dtype(dtype)
        make = partial(self._make, list(shape), kind.type, memory_info=self._memory_info)
        return self._buffers.get((name, tuple(shape), kind.str), make)


_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
