"""Export a model's graphs in one precision to its checkpoint folder, if they match torch."""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from camseg_core.data import Sample
from camseg_core.errors import ConfigError
from camseg_core.export.check import PARTS_SAMPLERS, Difference, Scores, check
from camseg_core.export.quantization import FUSED, Recorded, record, to_int8
from camseg_core.export.trace import (
    Traced,
    ask_for_the_least,
    holds_halves,
    store_as_halves,
    to_half,
    trace_all,
)
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import PRECISIONS, graph_path
from camseg_core.runtime.onnx_engine import OnnxEngine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """Result of an export: bytes and differences by graph, mIoU (ours, torch's) by sampling."""

    precision: str
    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    mean_iou: dict[str, tuple[float, float]] = field(default_factory=dict)


def export_onnx(
    model: CamSeg,
    folder: Path,
    precision: str = "fp32",
    *,
    traced: Sequence[Traced] | None = None,
    calibration: Sequence[Sample] = (),
    scores: Scores | None = None,
) -> Exported:
    """Write `onnx/<precision>/` of a checkpoint folder.

    Each graph is compared with torch at two sizes it was not traced at (int8: on frames of
    `calibration`); with `scores` whole frames are scored as well. The new graphs replace the old
    ones all at once at the end: graphs not written again are removed.

    Args:
        model: the model.
        folder: its checkpoint folder.
        precision: one of `PRECISIONS`.
        traced: graphs from `trace_all`; by default the four parts.
        calibration: frames that int8 needs for the ranges of activations.
        scores: scores the masks.

    Raises:
        ModelError: a graph differs from torch, or the masks lose too much; the old graphs stay.
        ConfigError: the precision is unknown, or int8 has no frames.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not calibration:
        raise ConfigError(
            "int8 graphs need frames of the camera's kind: name a data set with --data ROOT"
        )
    traced = trace_all(model) if traced is None else traced
    folder.mkdir(parents=True, exist_ok=True)
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
            engine = OnnxEngine(beside, precision=precision)
            for sampling in PARTS_SAMPLERS:
                what = f"{sampling.sampler}:{sampling.steps}"
                result.mean_iou[what] = scores.check(engine, sampling, f"{precision} with {what}")
            for fused in (each.part.fused for each in traced if each.part.fused is not None):
                engine = OnnxEngine(beside, precision=precision, fused=fused)
                what = f"{precision} {fused.name}"
                result.mean_iou[fused.name] = scores.check(engine, fused, what)
        _take_place(graph_path(beside, precision, "any").parent, result.folder)
    return result


def _write(
    traced: Traced, precision: str, path: Path, recorded: Recorded | None, halves: bool
) -> Difference:
    """Convert, check and write one graph; with `halves`, large weights are stored as fp16."""
    part, graph, inputs = traced.part, onnx.ModelProto(), None
    graph.CopyFrom(traced.graph)
    if recorded is not None:
        inputs = recorded[part.name if part.fused is None else FUSED]
        graph, inputs = to_int8(graph, part, inputs), inputs[:4]
    elif precision == "fp16":
        graph = to_half(graph)
    if halves:
        store_as_halves(graph)
    ask_for_the_least(graph)
    with atomic_write(path) as temporary:
        onnx.save(graph, temporary)
        found = check(part, temporary, precision, inputs)
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
    except OSError:
        if before.exists():
            before.rename(old)
        raise
    shutil.rmtree(before, ignore_errors=True)
