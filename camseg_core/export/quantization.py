"""An fp32 graph computed in eight-bit integers where that pays (static quantisation, QDQ), calibrated on what it is fed in use."""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from camseg_core.data.sample import Sample
from camseg_core.diffusion.sampling import Sampling
from camseg_core.export.parts import Arrays, Part
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Array
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.runtime.segmenter import Segmenter

QUANTISED = ("Conv", "MatMul", "Gemm", "Relu", "Clip", "Add")
"""Operators in int8. Norms, softmax and all that gives the confidence stay in floats."""

FLOAT_RESULT = ("MatMul", "Gemm")
"""Operators that take int8 and give floats, which costs no pass of its own: what follows them in a transformer is not quantised."""


_WARNINGS, _ERRORS = 2, 3
"""Of ONNX Runtime's scale of severity; it starts with the former."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands recorded inputs to ONNX Runtime's calibration."""

    def __init__(self, names: tuple[str, ...], inputs: Sequence[Arrays]) -> None:
        self._inputs = iter([dict(zip(names, arrays, strict=True)) for arrays in inputs])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._inputs, None)


def to_int8(graph: onnx.ModelProto, part: Part, inputs: Sequence[Arrays]) -> onnx.ModelProto:
    """The graph in int8, its ranges the smallest and largest values on `inputs`.

    Weights are signed with a scale per channel. Activations are unsigned: the CPU's VNNI instructions multiply unsigned by signed,
    and with signed ones camseg-lite's image encoder took twice as long. Weights have seven bits: CPUs without VNNI add two
    products in sixteen bits, where eight would overflow. Ranges of percentiles gave the same masks as the extremes.
    """
    with tempfile.TemporaryDirectory() as name, _quiet():
        folder = Path(name)
        plain, prepared, quantised = (
            folder / "plain.onnx",
            folder / "prepared.onnx",
            folder / "quantised.onnx",
        )
        onnx.save(graph, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Reader(part.inputs, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_kept_in_floats(onnx.load(prepared)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_RESULT)},
        )
        return onnx.load(quantised)


def _kept_in_floats(graph: onnx.ModelProto) -> list[str]:
    """Names of the operators of a quantised kind that int8 makes no faster, and less exact.

    They are the matrix products without weights, such as attention's, and the sums that no convolution feeds: the residual sums of the
    transformer and of the denoiser, whose small errors would add up from step to step.
    """
    nodes = graph.graph.node
    constants = {weight.name for weight in graph.graph.initializer} | {
        node.output[0] for node in nodes if node.op_type == "Constant"
    }
    convolved = {node.output[0] for node in nodes if node.op_type == "Conv"}
    fed_by = {"MatMul": constants, "Add": convolved}
    return [
        node.name
        for node in nodes
        if node.op_type in fed_by and not fed_by[node.op_type] & set(node.input)
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's remarks on the root logger, such as that a graph should be pre-processed, which it was."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(_nothing)
    root.addHandler(handler)  # or logging would set one up, for good
    onnxruntime.set_default_logger_severity(
        _ERRORS
    )  # of the sessions that calibration opens: they report weights that are not used
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        root.removeHandler(handler)
        root.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


FUSED = "fused"
"""Under this name, the inputs of every fused graph."""

SEVERAL_STEPS_EVERY = 8

Recorded = dict[str, list[Arrays]]
"""Inputs by graph, in the order in which the graph takes them."""


def record(model: CamSeg, samples: Sequence[Sample]) -> Recorded:
    """Segment the samples in torch and keep what each part was fed.

    Each is segmented in one step, and one in `SEVERAL_STEPS_EVERY` in ten, so that the ranges hold for all that the denoiser may see. The
    transformer is also told a random half of each frame's own mask, for decoding in several passes.
    """
    engine = _Recorder(model)
    config, random = model.config, np.random.default_rng(0)
    one_step = Segmenter(config, model.labels, engine)
    ten_steps = Segmenter(config, model.labels, engine, Sampling("ddim", 10))
    for index, sample in enumerate(samples):
        if index % SEVERAL_STEPS_EVERY == 0:
            ten_steps.segment(sample.image)
        one_step.segment(sample.image)
        geometry = FrameGeometry.fit(
            sample.image.shape[0],
            sample.image.shape[1],
            config.network_pixels,
            config.size_multiple,
        )
        (latents, _), (tokens, *_) = engine.calls["decoder"][-1], engine.calls["denoiser"][-1]
        start = random.standard_normal((1, *tokens.shape), np.float32)
        engine.calls[FUSED].append(
            (geometry.to_network(sample.image)[None], start, np.array(1.0, np.float32))
        )
        if config.transformer.fusion == "grid":
            known = model.to_tokens(torch.from_numpy(latents[:, 0]))[0].numpy()
            *features, _, _ = engine.calls["transformer"][-1]
            engine.calls["transformer"].append(
                (*features, known, random.random(known.shape[:2]) < 0.5)
            )
    return dict(engine.calls)


class _Recorder(TorchEngine):
    """Keeps the inputs of every call."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__(model)
        self.calls: dict[str, list[Arrays]] = defaultdict(list)
        self.masked = model.config.transformer.fusion == "grid"
        self._token_channels = model.config.token_channels

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = tuple(np.asarray(each) for each in inputs.values())
        if graph == "transformer" and self.masked:
            batch, _, height, width = arrays[0].shape
            nothing = np.zeros((batch, height * width, self._token_channels), np.float32)
            arrays += nothing, np.ones((batch, height * width), np.bool_)
        self.calls[graph].append(arrays)
        return super().run(graph, inputs)
