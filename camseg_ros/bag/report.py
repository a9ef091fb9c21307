"""What `report.json` of an evaluated bag holds."""

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.machine import PACKAGES
from camseg_ros.bag.evaluate import BagFacts
from camseg_ros.bag.evaluation import Evaluating
from camseg_ros.bag.frames import Reading, read_frames
from camseg_ros.bag.merging import Merged
from camseg_ros.bag.scenario import DROPS, MIOU, P95_MS


def build_report(
    merged: Merged,
    bags: Sequence[tuple[int, BagFacts]],
    reading: Reading,
    about: Mapping[str, Any],
    problems: Sequence[str],
) -> dict[str, Any]:
    """Everything that was found but for the scenario, ready for JSON: six decimals, None for what there is no number for.

    The same bags and options give the same report, but for what is under `timings`.

    Args:
        merged: what was found.
        bags: those it was found in.
        reading: what was read of them.
        about: how masks were drawn.
        problems: what is not whole, a line each.
    """
    tally, facts = merged.tally, merged.facts
    scored = bool(tally.confusion.any())
    report = {
        "bag": {
            "paths": [bag.path.name for _, bag in bags],
            "topic": bags[0][1].topic,
            "labels": str(reading.labels) if reading.labels else None,
            "frames": int(tally.frames[0]),
            "scored": int(tally.frames[1]),
            "start_ns": merged.start_ns,
            "end_ns": merged.end_ns,
            "damage": "; ".join(problems),
        },
        "model": {
            "name": facts.name,
            "precision": facts.precision,
            "provider": facts.provider,
            **about,
        },
        "versions": _versions(),
        "scores": _scores(merged) if scored else None,
        "classes": _classes(merged, scored),
        "confusion": _confusion(merged) if scored else None,
        "confidence": {"mean": tally.mean_confidence(), "p05": tally.confidence_quantile(0.05)},
        "flicker": {"with_truth": tally.flicker(), "change_rate": tally.change_rate()},
        "compare": _compare(merged) if facts.compared is not None else None,
        "scenario": None,
        "worst": [each.index for each in merged.worst],
        "timings": _timings(merged),
    }
    return {name: _plain(value) for name, value in report.items()}


def measured(report: Mapping[str, Any], merged: Merged) -> dict[str, float]:
    """What a scenario has limits for; NaN for what was not measured."""
    miou = merged.tally.confusion_matrix().mean_iou() if report["scores"] else float("nan")
    return {MIOU: miou, P95_MS: float(np.percentile(merged.latency_ms, 95)), DROPS: merged.skipped}


ShownFrame = tuple[
    int,
    npt.NDArray[np.uint8],
    npt.NDArray[np.uint8] | None,
    npt.NDArray[np.uint8],
    npt.NDArray[np.float32],
]


def worst_frames(
    merged: Merged, bags: Mapping[int, BagFacts], evaluating: Evaluating
) -> Iterator[ShownFrame]:
    """The worst frames, the worst first, read and segmented again: number, image, label or None, mask and confidence of each."""
    model = evaluating.models().model
    found: dict[tuple[int, int], ShownFrame] = {}
    for number in {each.bag for each in merged.worst}:
        wanted = {each.index_in_bag: each.index for each in merged.worst if each.bag == number}
        with closing(evaluating.reading.open(bags[number].path)) as images:
            frames = read_frames(images, evaluating.reading, only=wanted)
            for _, frame in zip(
                wanted, frames, strict=False
            ):  # in this order: nothing is read after the last
                assert frame.image is not None
                result = model.segment(frame.image)
                found[number, frame.index] = (
                    wanted[frame.index],
                    frame.image,
                    frame.truth,
                    result.mask,
                    result.confidence,
                )
    return iter([found[each.bag, each.index_in_bag] for each in merged.worst])


def _scores(merged: Merged) -> dict[str, float]:
    confusion = merged.tally.confusion_matrix()
    return {
        "miou": confusion.mean_iou(),
        "pixel_accuracy": confusion.accuracy(),
        "boundary_f1": merged.tally.boundary_f1(),
        "ece": merged.tally.calibration_error(),
    }


def _classes(merged: Merged, scored: bool) -> list[dict[str, Any]]:
    tally, confusion = merged.tally, merged.tally.confusion_matrix()
    iou, precision, recall = confusion.iou(), confusion.precision(), confusion.recall()
    labelled, predicted = max(1, int(confusion.matrix.sum())), int(tally.predicted.sum())
    return [
        {
            "id": label.id,
            "name": label.name,
            "color": list(label.color),
            "iou": float(iou[i]) if scored else None,
            "precision": float(precision[i]) if scored else None,
            "recall": float(recall[i]) if scored else None,
            "truth_share": int(confusion.labelled[i]) / labelled if scored else None,
            "predicted_share": int(tally.predicted[i]) / predicted,
        }
        for i, label in enumerate(merged.facts.labels)
    ]


def _confusion(merged: Merged) -> dict[str, Any]:
    """Pixels by true class (rows) and predicted class; a model predicts no other class than its own, so there is no other column."""
    names = [label.name for label in merged.facts.labels]
    return {"names": names, "matrix": merged.tally.confusion[:, : len(names)].tolist()}


def _compare(merged: Merged) -> dict[str, Any]:
    names = [label.name for label in merged.facts.labels]
    shares = merged.tally.agreement_by_class()
    classes = [
        {"name": name, "agreement": share} for name, share in zip(names, shares, strict=True)
    ]
    return {
        "model": merged.facts.compared,
        "agreement": merged.tally.agreement_share(),
        "classes": classes,
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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
