"""An evaluation for the page's tests: the synthetic drive with partly wrong masks."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.labels import CITYSCAPES
from camseg_ros.bag.report_page import WorstFrame

HOSTILE = "<script>alert(1)</script>\"'&\u202e/camera"
START_NS = 1_760_000_000 * 10**9
NAMES = [each.name for each in CITYSCAPES]


def evaluated(
    frames: int = 12, labels: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]], list[WorstFrame]]:
    """Return the report, the frames and the two worst frames of a synthetic drive."""
    rng = np.random.default_rng(0)
    whole, before = np.zeros((19, 19), np.int64), None
    rows: list[dict[str, Any]] = []
    kept: dict[int, WorstFrame] = {}
    image: Any
    truth: Any
    mask: Any
    confidence: Any
    for i, sample in enumerate(SyntheticDrive(frames=frames)):
        image, truth = (
            cv2.resize(sample.image, (320, 240)),
            cv2.resize(sample.label, (320, 240), interpolation=cv2.INTER_NEAREST),
        )
        mask = cv2.medianBlur(truth, 5)
        for _ in range(rng.integers(0, 8)):
            x, y = rng.integers(0, 280), rng.integers(0, 200)
            mask[y : y + 40, x : x + 40] = rng.choice([0, 2, 8, 11, 13])
        mask[mask == 255] = 0
        known = truth != 255
        one = np.bincount(19 * truth[known].astype(np.int64) + mask[known], minlength=361).reshape(
            19, 19
        )
        whole += one
        iou = ious(one)
        confidence = cv2.GaussianBlur(
            np.where(mask == truth, 0.95, 0.4).astype(np.float32), (0, 0), 4
        )
        kept[i] = WorstFrame(i, image, truth if labels else None, mask, confidence)
        rows.append(
            {
                "index": i,
                "stamp_ns": START_NS + i * 100_000_000,
                "frame_id": HOSTILE,
                "bag": "drive <b>1</b>.mcap",
                "miou": float(np.nanmean(iou)) if labels else None,
                "iou": {
                    name: float(x) for name, x in zip(NAMES, iou, strict=True) if np.isfinite(x)
                }
                if labels
                else {},
                "pixel_accuracy": float((mask == truth)[known].mean()) if labels else None,
                "confidence": float(confidence.mean()),
                "changed": None if before is None else float((mask != before).mean()),
                "share": {
                    NAMES[j]: float(n / mask.size)
                    for j, n in zip(*np.unique(mask, return_counts=True), strict=True)
                },
                "latency_ms": float(rng.gamma(40, 1)),
            }
        )
        before = mask
    by_confidence = sorted(rows, key=lambda row: row["miou"] if labels else row["confidence"])
    worst = [row["index"] for row in by_confidence[:2]]
    return _report(rows, whole, worst, labels), rows, [kept[i] for i in worst]


def ious(matrix: Any) -> Any:
    """IoU by class; NaN for a class that does not occur."""
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return np.divide(matrix.diagonal(), union, out=np.full(len(matrix), np.nan), where=union > 0)


def long(frames: int) -> Iterator[dict[str, Any]]:
    """Yield the frames of a long recording.

    Half of it has labels, the first frame is slow, and a class comes and goes.
    """
    for i in range(frames):
        wave = 0.5 + 0.3 * np.sin(i / frames * 20)
        labelled = i < frames / 2
        yield {
            "index": i,
            "stamp_ns": START_NS + i * 100_000_000,
            "frame_id": "camera",
            "bag": "long",
            "miou": wave + 0.1 * np.sin(i) if labelled else None,
            "iou": {"road": wave} if labelled else {},
            "pixel_accuracy": wave if labelled else None,
            "confidence": 0.9 - 0.05 * np.cos(i),
            "changed": 0.03 * wave,
            "share": {"road": 0.4, "car": max(0.0, 0.1 * np.sin(i / frames * 30))},
            "latency_ms": 40 + 3 * np.sin(i) + (900 if i == 0 else 0),
        }


def _report(
    rows: list[dict[str, Any]], whole: Any, worst: list[int], labels: bool
) -> dict[str, Any]:
    iou, tp, total = ious(whole), whole.diagonal(), whole.sum()
    ms = [row["latency_ms"] for row in rows]
    percentiles = {f"p{q}": float(np.percentile(ms, q)) for q in (50, 95, 99)}
    return {
        "bag": {
            "paths": ["drive <b>1</b>.mcap"],
            "topic": HOSTILE,
            "labels": "/labels" if labels else None,
            "frames": len(rows),
            "scored": len(rows) if labels else 0,
            "start_ns": START_NS,
            "end_ns": rows[-1]["stamp_ns"],
            "damage": "",
        },
        "model": {
            "name": "camseg-lite",
            "precision": "fp32",
            "engine": "ONNX Runtime 1.32.0 on CPU",
            "sampler": "one_step",
            "steps": 1,
            "seed": 0,
        },
        "versions": {"camseg": "0.1.0", "onnxruntime": "1.32.0"},
        "scores": {
            "miou": float(np.nanmean(iou)),
            "pixel_accuracy": float(tp.sum() / total),
            "boundary_f1": 0.71,
            "ece": 0.0314,
        }
        if labels
        else None,
        "classes": [
            {
                "id": each.id,
                "name": each.name,
                "color": list(each.color),
                "iou": _ratio(tp[i], whole[i].sum() + whole[:, i].sum() - tp[i])
                if labels
                else None,
                "precision": _ratio(tp[i], whole[:, i].sum()) if labels else None,
                "recall": _ratio(tp[i], whole[i].sum()) if labels else None,
                "truth_share": float(whole[i].sum() / total) if labels else None,
                "predicted_share": float(whole[:, i].sum() / total),
            }
            for i, each in enumerate(CITYSCAPES)
        ],
        "confusion": {"names": NAMES, "matrix": whole.tolist()} if labels else None,
        "confidence": {"mean": float(np.mean([row["confidence"] for row in rows])), "p05": 0.41},
        "flicker": {
            "with_truth": 0.0123 if labels else None,
            "change_rate": float(np.mean([row["changed"] for row in rows[1:]]))
            if rows[1:]
            else None,
        },
        "counted_as": {
            "merged": {"car": ["car", "truck"]},
            "predicted_outside": {"sky": 12},
            "not_scored": {},
        },
        "compare": {
            "model": "camseg-published",
            "agreement": 0.9312,
            "classes": [
                {"name": "road", "agreement": 0.98},
                {"name": "car", "agreement": 0.71},
                {"name": "train", "agreement": None},
            ],
        },
        "scenario": {"passed": True, "failures": []},
        "worst": worst,
        "timings": {
            "latency_ms": percentiles,
            "stages_ms": {
                "image_encoder": {"p50": 20.0, "p95": 25.0, "p99": 30.0},
                "decoder": 10.0,
            },
            "read_share": 0.21,
            "seconds": 12.3,
        },
    }


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
