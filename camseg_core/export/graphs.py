"""Trace a model to ONNX graphs, convert them to a precision, and write those that match torch."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from camseg_core.data import Sample
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.export.check import PARTS_SAMPLERS, Difference, Scores, check
from camseg_core.export.parts import Part, fused_part, parts_of
from camseg_core.export.quantization import FUSED, Recorded, record, to_int8
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import PRECISIONS, EngineOptions, graph_path
from camseg_core.runtime.onnx_engine import OnnxEngine
from camseg_core.runtime.origin import weights_of, write_origin

_IR_VERSION = 9
"""ONNX's file format of operator set 20, in which graphs are traced."""


@dataclass(frozen=True)
class Traced:
    """A part and its graph in fp32."""

    part: Part
    graph: onnx.ModelProto


def trace_all(model: CamSeg, fused: Sequence[Fused] = ()) -> list[Traced]:
    """Trace the four parts of a model, and its network fused in each of these ways."""
    model.eval()
    return [
        Traced(part, trace(part))
        for part in [*parts_of(model), *(fused_part(model, each) for each in fused)]
    ]


def trace(part: Part) -> onnx.ModelProto:
    """Trace a part in fp32."""
    part.module.eval()
    example = tuple(torch.from_numpy(array) for array in part.make(2, 3, 4))
    # the exporter logs its internals, and warns of torchvision, which is not needed
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            part.module,
            example,
            input_names=list(part.inputs),
            output_names=part.outputs,
            dynamic_shapes=part.sizes,  # type: ignore[arg-type]
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _strip_source_lines(graph)
    _normalise_in_one_pass(graph)
    return graph


def _strip_source_lines(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes on sources, which hold paths of the exporting machine."""
    inner = graph.graph
    values = *inner.value_info, *inner.input, *inner.output
    for described in (graph, inner, *inner.node, *values):
        del described.metadata_props[:]


def _normalise_in_one_pass(graph: onnx.ModelProto) -> None:
    """Replace the image's normalisation, a subtraction and a division, by one BatchNormalization.

    Saves a sixth of camseg-lite's image encoder in int8; no number changes.
    """
    nodes = graph.graph.node
    constants = {weight.name: numpy_helper.to_array(weight) for weight in graph.graph.initializer}
    for node in nodes:
        if node.op_type != "Sub":
            continue
        users = [user for user in nodes if node.output[0] in user.input]
        if [user.op_type for user in users] != ["Div"]:
            continue
        shift, divisor = constants.get(node.input[1]), constants.get(users[0].input[1])
        if shift is None or divisor is None:
            continue
        if not shift.shape == divisor.shape == (1, shift.size, 1, 1):
            continue
        parameters = {
            f"{node.name}.scale": np.ones(shift.size),
            f"{node.name}.bias": np.zeros(shift.size),
            f"{node.name}.mean": shift.ravel(),
            f"{node.name}.variance": divisor.ravel() ** 2,
        }
        for name, values in parameters.items():
            graph.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        inputs, outputs = [node.input[0], *parameters], [users[0].output[0]]
        both = onnx.helper.make_node(
            "BatchNormalization", inputs, outputs, name=node.name, epsilon=0.0
        )
        nodes.remove(users[0])
        node.CopyFrom(both)
        return


def ask_for_the_least(graph: onnx.ModelProto) -> None:
    """Declare the oldest format and operator sets that suffice, so that older JetPacks load it.

    Tools declare their newest; ONNX Runtime 1.17, which setup.py allows, refuses formats above 9.
    """
    graph.ir_version = min(graph.ir_version, _IR_VERSION)
    nodes = [*graph.graph.node, *(node for each in graph.functions for node in each.node)]
    used = {"", *(node.domain for node in nodes)}
    kept = [opset for opset in graph.opset_import if opset.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)


def holds_halves(model: CamSeg) -> bool:
    """Return whether the model's matrices and kernels are exact in fp16."""
    matrices = (weight for weight in model.parameters() if weight.ndim > 1)
    return all(torch.equal(weight, weight.half().float()) for weight in matrices)


def store_as_halves(graph: onnx.ModelProto) -> None:
    """Store large matrices and kernels as fp16 with a cast to fp32: half the file, same arithmetic.

    ONNX Runtime folds the casts at load. If the model `holds_halves` nothing is lost except where
    the exporter folded a batch norm into a convolution: where that is too much for the check
    against torch, the weights stay as they are.
    """
    casts = []
    for weight in graph.graph.initializer:
        large = len(weight.dims) > 1 and np.prod(weight.dims) >= 256
        if large and weight.data_type == onnx.TensorProto.FLOAT:
            name, halves = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            casts.append(
                onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


KEPT_IN_FP32 = ("LayerNormalization", "Softmax", "Cos", "Sin")
"""Operators kept in fp32: squares and exponentials leave fp16's range, angles its precision."""


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph to fp16, with fp32 and uint8 at its ends; consumes `graph`."""
    return convert_float_to_float16(
        graph, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FP32]
    )


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """Result of an export: bytes and differences by graph, mIoU (ours, torch's) by sampling, and
    the graphs that were there before and are no more."""

    precision: str
    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    mean_iou: dict[str, tuple[float, float]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def export_onnx(
    model: CamSeg,
    folder: Path,
    precision: str = "fp32",
    *,
    traced: Sequence[Traced] | None = None,
    calibration: Sequence[Sample] = (),
    scores: Scores | None = None,
    weights: str | None = None,
) -> Exported:
    """Write `onnx/<precision>/` of a checkpoint folder.

    Each graph is compared with torch at two sizes it was not traced at (int8: on frames of
    `calibration`); with `scores` whole frames are scored as well. The new graphs replace the old
    ones all at once at the end: graphs not written again are removed.

    Args:
        model: the model.
        folder: its checkpoint folder; the graphs are recorded as those of its weights.
        precision: one of `PRECISIONS`.
        traced: graphs from `trace_all`; by default the four parts.
        calibration: frames that int8 needs for the ranges of activations.
        scores: scores the masks.
        weights: fingerprint of the weights that `model` was read from, see `weights_of`; by default
            of those in `folder`.

    Raises:
        ModelError: a graph differs from torch, the masks lose too much, or the weights in `folder`
            are others at the end; the old graphs stay.
        ConfigError: the precision is unknown, or int8 has no frames.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "int8" and not calibration:
        raise ConfigError(
            "int8 graphs need frames of the camera's kind: name a data set with --data ROOT"
        )
    traced = trace_all(model) if traced is None else traced
    folder.mkdir(parents=True, exist_ok=True)
    weights = weights_of(folder) if weights is None else weights
    result = Exported(precision, folder / "onnx" / precision)
    # the new graphs are checked in a folder beside the old ones
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as name:
        beside, halves = Path(name), holds_halves(model)
        recorded = record(model, calibration) if precision == "int8" else None
        graph_path(beside, precision, "any").parent.mkdir(parents=True)
        for each in traced:
            path = graph_path(beside, precision, each.part.name)
            result.differences[each.part.name] = _write(each, precision, path, recorded, halves)
            result.sizes[each.part.name] = path.stat().st_size
        if scores is not None:
            engine = OnnxEngine(EngineOptions(beside, precision=precision))
            for sampling in PARTS_SAMPLERS:
                what = f"{sampling.sampler}:{sampling.steps}"
                result.mean_iou[what] = scores.check(engine, sampling, f"{precision} with {what}")
            for fused in (each.part.fused for each in traced if each.part.fused is not None):
                engine = OnnxEngine(EngineOptions(beside, precision=precision), fused)
                what = f"{precision} {fused.name}"
                result.mean_iou[fused.name] = scores.check(engine, fused, what)
        before = {path.stem for path in result.folder.glob("*.onnx")}
        result.removed.extend(sorted(before - set(result.sizes)))
        graphs = graph_path(beside, precision, "any").parent
        if weights_of(folder) != weights:
            raise ModelError(
                f"the weights in {folder} must stay as they are during an export, but were "
                "replaced: export again"
            )
        write_origin(graphs, weights, [label.id for label in model.labels])
        _take_place(graphs, result.folder)
    return result


def _write(
    traced: Traced, precision: str, path: Path, recorded: Recorded | None, halves: bool
) -> Difference:
    """Convert, check and write one graph.

    With `halves`, large weights are stored as fp16 unless the graph is then too far from torch.
    """
    part, graph, inputs = traced.part, onnx.ModelProto(), None
    graph.CopyFrom(traced.graph)
    if recorded is not None:
        inputs = recorded[part.name if part.fused is None else FUSED]
        graph, inputs = to_int8(graph, part, inputs), inputs[:4]
    elif precision == "fp16":
        graph = to_half(graph)
    ask_for_the_least(graph)

    def checked(stored: onnx.ModelProto) -> Difference:
        with atomic_write(path) as temporary:
            onnx.save(stored, temporary)
            return check(part, temporary, precision, inputs)

    found = None
    if halves:
        small = onnx.ModelProto()
        small.CopyFrom(graph)
        store_as_halves(small)
        try:
            found = checked(small)
        except ModelError as error:
            reason = str(error).partition(";")[0]
            logger.info("weights of %s stay in fp32, as in fp16 %s", part.name, reason)
    if found is None:
        found = checked(graph)
    logger.info("exported %s in %s: %.1f MB", part.name, precision, path.stat().st_size / 1e6)
    return found


def _take_place(new: Path, old: Path) -> None:
    """Move a folder over another; an interruption leaves one of the two, there or beside it."""
    before = new.with_name("before")
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        old.rename(before)
    try:
        new.rename(old)
    except BaseException:  # Ctrl-C too
        if before.exists() and not old.exists():
            before.rename(old)
        raise
    shutil.rmtree(before, ignore_errors=True)
