"""Static quantisation to int8 (QDQ) where it pays, with ranges from a model's own activations."""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from camseg_core.data import Sample
from camseg_core.diffusion.sampling import Sampling
from camseg_core.export.parts import Arrays, Part
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Array
from camseg_core.runtime.segmenter import Segmenter

QUANTISED = ("Conv", "MatMul", "Gemm", "Relu", "Clip", "Add")
"""Operators in int8. Norms, softmax and the confidence stay in floats."""

FLOAT_RESULT = ("MatMul", "Gemm")
"""Operators from int8 to floats, at no cost: what follows them in a transformer is not int8."""

_WARNINGS, _ERRORS = 2, 3
"""ONNX Runtime's severities; the former is its default."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds recorded inputs to ONNX Runtime's calibration."""

    def __init__(self, names: Iterable[str], inputs: Sequence[Arrays]) -> None:
        names = list(names)
        self._inputs = iter([dict(zip(names, arrays, strict=True)) for arrays in inputs])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._inputs, None)


def to_int8(graph: onnx.ModelProto, part: Part, inputs: Sequence[Arrays]) -> onnx.ModelProto:
    """Quantise a graph; a range is the mean smallest and the mean largest value on `inputs`.

    Weights are signed with a scale per channel. Activations are unsigned: VNNI instructions
    multiply unsigned by signed, and signed ones doubled the time of camseg-lite's image encoder.
    Weights have seven bits: CPUs without VNNI add two products in sixteen bits, where eight
    overflow. A single input has values far beyond the others': with the extremes of all as ranges,
    an image encoder of camseg-lite lost 0.0024 mIoU, with their means 0.0007.
    """
    with tempfile.TemporaryDirectory() as name, _quiet():
        plain, prepared, quantised = (Path(name) / f"{step}.onnx" for step in range(3))
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
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULT),
                "CalibMovingAverage": True,  # a plain mean where nothing is merged, as here
            },
        )
        return onnx.load(quantised)


def _kept_in_floats(graph: onnx.ModelProto) -> list[str]:
    """Return the operators of a quantised kind that int8 makes less exact and no faster.

    These are matrix products without weights on their right, such as attention's or the decoder's
    with the identity, and sums without a convolution before them: the residual sums of transformer
    and denoiser, whose errors add up over steps.
    """
    nodes = graph.graph.node
    constants = {weight.name for weight in graph.graph.initializer} | {
        node.output[0] for node in nodes if node.op_type == "Constant"
    }
    convolved = {node.output[0] for node in nodes if node.op_type == "Conv"}
    return [
        node.name
        for node in nodes
        if (node.op_type == "MatMul" and node.input[1] not in constants)
        or (node.op_type == "Add" and convolved.isdisjoint(node.input))
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which advises the pre-processing that was done on the root logger."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(_nothing)
    root.addHandler(handler)  # or logging would install one for good
    onnxruntime.set_default_logger_severity(_ERRORS)  # sessions warn of unused weights
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        root.removeHandler(handler)
        root.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


FUSED = "fused"
"""Key of the inputs that all fused graphs share."""

SEVERAL_STEPS_EVERY = 8

Recorded = dict[str, list[Arrays]]
"""Inputs by graph, in the graph's order."""


def record(model: CamSeg, samples: Sequence[Sample]) -> Recorded:
    """Segment the samples in torch and keep the inputs of each part.

    Each is segmented in one step, and every `SEVERAL_STEPS_EVERY`th in ten, so that the ranges hold
    for all that the denoiser may see. The transformer also gets a random half of each frame's own
    mask, for decoding in several passes.
    """
    engine = _Recorder(model)
    config, random = model.config, np.random.default_rng(0)
    one_step = Segmenter(config, model.labels, engine)
    ten_steps = Segmenter(config, model.labels, engine, Sampling("ddim", 10))
    for index, sample in enumerate(samples):
        if index % SEVERAL_STEPS_EVERY == 0:
            ten_steps.segment(sample.image)
        one_step.segment(sample.image)
        (latents, _), (tokens, *_) = engine.calls["decoder"][-1], engine.calls["denoiser"][-1]
        start = random.standard_normal((1, *tokens.shape), np.float32)
        geometry = one_step.geometry(sample.image)
        picture, _ = geometry.to_network(sample.image, config.noise_filter)
        engine.calls[FUSED].append((picture[None], start, np.array(1.0, np.float32)))
        if config.transformer.fusion == "grid":
            known = model.to_tokens(torch.from_numpy(latents[:, 0]))[0].numpy()
            *features, _, _ = engine.calls["transformer"][-1]
            hidden = random.random(known.shape[:2]) < 0.5
            engine.calls["transformer"].append((*features, known, hidden))
    return dict(engine.calls)


class _Recorder(TorchEngine):
    """Keeps the inputs of every call."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__(model)
        self.calls: dict[str, list[Arrays]] = defaultdict(list)
        self._config = model.config

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = tuple(np.asarray(each) for each in inputs.values())
        if graph == "transformer" and self._config.transformer.fusion == "grid":
            batch, _, height, width = arrays[0].shape
            nothing = np.zeros((batch, height * width, self._config.token_channels), np.float32)
            arrays += nothing, np.ones((batch, height * width), np.bool_)
        self.calls[graph].append(arrays)
        return super().run(graph, inputs)
