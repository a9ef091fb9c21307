"""An fp32 graph computed in eight-bit integers where that pays (static quantisation, QDQ), calibrated on what it is fed in use."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from camseg_core.runtime.export.parts import Arrays, Part


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands recorded inputs to ONNX Runtime's calibration."""

    def __init__(self, names: tuple[str, ...], inputs: Sequence[Arrays]) -> None:
        self._inputs = iter([dict(zip(names, arrays, strict=True)) for arrays in inputs])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._inputs, None)


def to_int8(graph: onnx.ModelProto, part: Part, inputs: Sequence[Arrays]) -> onnx.ModelProto:
    """The graph in int8, calibrated on `inputs`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, prepared, quantised = folder / "plain.onnx", folder / "prepared.onnx", folder / "quantised.onnx"
        onnx.save(graph, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Reader(part.inputs, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(quantised)
