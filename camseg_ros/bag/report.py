"""Builds `report.json` of evaluated bags and finds the frames that its page shows."""

import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from camseg_core.evaluation.machine import PACKAGES
from camseg_core.evaluation.report.page import plain
from camseg_ros.bag.evaluation import EvaluationRun
from camseg_ros.bag.frames import read_frames
from camseg_ros.bag.merging import Merged
from camseg_ros.bag.report_page import WorstFrame
from camseg_ros.bag.scenario import DROPS, MIOU, P95_MS


def build_report(
    merged: Merged, run: EvaluationRun, sampling: Mapping[str, Any], problems: Sequence[str]
) -> dict[str, Any]:
    """Return everything that was found except the scenario, ready for JSON.

    Numbers have six decimals, and None replaces NaN. The same bags and options give the same
    report, apart from `timings`.

    Args:
        merged: the result.
        run: the bags it comes from.
        sampling: the sampling options, for the section `model`.
        problems: a line for each failure and each damage.
    """
    scorer, info, labels = merged.scorer, merged.info, run.options.read.labels
    scored = bool(scorer.confusion.matrix.any())
    good = list(run.good.values())
    report = {
        "bag": {
            "paths": [bag.path.name for bag in good],
            "topic": good[0].topic,
            "labels": str(labels) if labels else None,
            "frames": int(scorer.frames[0]),
            "scored": int(scorer.frames[1]),
            "start_ns": merged.start_ns,
            "end_ns": merged.end_ns,
            "damage": "; ".join(problems),
        },
        "model": {
            "name": info.name,
            "precision": info.precision,
            "provider": info.provider,
            **sampling,
        },
        "versions": _versions(),
        "scores": _scores(merged) if scored else None,
        "classes": _classes(merged, scored),
        "confusion": _confusion(merged) if scored else None,
        "confidence": {"mean": scorer.mean_confidence(), "p05": scorer.confidence_quantile(0.05)},
        "flicker": {
            "with_truth": scorer.flicker.flicker,
            "change_rate": scorer.flicker.change_rate,
        },
        "compare": _compare(merged) if info.compared is not None else None,
        "scenario": None,
        "worst": [each.index for each in merged.worst],
        "timings": _timings(merged),
    }
    return {name: plain(value) for name, value in report.items()}


def measured(merged: Merged) -> dict[str, float]:
    """Return the values that a scenario limits; NaN if not measured."""
    return {
        MIOU: merged.scorer.confusion.mean_iou(),
        P95_MS: float(np.percentile(merged.latency_ms, 95)),
        DROPS: merged.skipped,
    }


def worst_frames(merged: Merged, run: EvaluationRun) -> list[WorstFrame]:
    """Read and segment the worst frames again; return them, the worst first."""
    model = run.options.models().model
    found: dict[int, WorstFrame] = {}
    for number in {each.bag for each in merged.worst}:
        wanted = {each.index_in_bag: each.index for each in merged.worst if each.bag == number}
        with closing(run.options.read.open(run.bags[number].path)) as images:
            frames = read_frames(images, run.options.read, only=wanted)
            # `wanted` first: then nothing is read after the last of them
            for _, frame in zip(wanted, frames, strict=False):
                assert frame.image is not None
                result, index = model.segment(frame.image), wanted[frame.index]
                found[index] = WorstFrame(
                    index, frame.image, frame.truth, result.mask, result.confidence
                )
    return [found[each.index] for each in merged.worst]


def _scores(merged: Merged) -> dict[str, float]:
    scorer = merged.scorer
    return {
        "miou": scorer.confusion.mean_iou(),
        "pixel_accuracy": scorer.confusion.accuracy(),
        "boundary_f1": scorer.boundary.mean(),
        "ece": scorer.calibration.error(),
    }


def _classes(merged: Merged, scored: bool) -> list[dict[str, Any]]:
    confusion, counts = merged.scorer.confusion, merged.scorer.predicted
    iou, precision, recall = confusion.iou(), confusion.precision(), confusion.recall()
    labelled, predicted = max(1, int(confusion.matrix.sum())), int(counts.sum())
    return [
        {
            "id": label.id,
            "name": label.name,
            "color": list(label.color),
            "iou": float(iou[i]) if scored else None,
            "precision": float(precision[i]) if scored else None,
            "recall": float(recall[i]) if scored else None,
            "truth_share": int(confusion.labelled[i]) / labelled if scored else None,
            "predicted_share": int(counts[i]) / predicted,
        }
        for i, label in enumerate(merged.info.labels)
    ]


def _confusion(merged: Merged) -> dict[str, Any]:
    """Pixels by true class (rows) and predicted class (columns)."""
    names = [label.name for label in merged.info.labels]
    return {"names": names, "matrix": merged.scorer.confusion.matrix[:, : len(names)].tolist()}


def _compare(merged: Merged) -> dict[str, Any]:
    shares = merged.scorer.agreement_by_class()
    return {
        "model": merged.info.compared,
        "agreement": merged.scorer.agreement_share(),
        "classes": [
            {"name": label.name, "agreement": share}
            for label, share in zip(merged.info.labels, shares, strict=True)
        ],
    }


def _timings(merged: Merged) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(merged.latency_ms, (50, 95, 99)).tolist()
    return {
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(values)) for name, values in merged.stages_ms.items()},
        "read_share": merged.read_ms / merged.wall_ms,
        "seconds": merged.wall_ms / 1000,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, "rosbags"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # one of the two ONNX Runtimes
            continue
    return found
