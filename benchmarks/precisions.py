"""Compare engines and precisions: mean IoU on CamVid val, equal pixels, and time per frame.

    python benchmarks/precisions.py --data <CamVid root> --write docs/results.md

The first of `--runs` is what the others are compared with. Frames are timed interleaved, each with
every engine and precision, so that drift of the machine affects all.
"""

import argparse
from itertools import islice
from typing import Any

import numpy as np
from document import Outcome, camvid_parser, conclude, markdown_table, provenance

from camseg_core.cli.options import at_least
from camseg_core.data import Samples
from camseg_core.data.sets import open_set
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.evaluation.intervals import ratio_of_medians
from camseg_core.evaluation.timing import time_in_turns
from camseg_core.runtime import Segmenter

WARM_UP = 10


def measured_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each engine and precision, the first being what the others are compared with."""
    val = open_set("camvid", arguments.data, "val")
    segmenters = []
    for run in arguments.runs:
        provider, _, precision = run.partition("/")
        segmenters.append(
            Segmenter.from_pretrained(
                arguments.model, provider=provider, precision=precision, threads=arguments.threads
            )
        )
    images = (sample.image for sample in islice(val.samples, WARM_UP + arguments.frames))
    timed = time_in_turns(segmenters, images, WARM_UP)
    base = timed.latencies[0].frames_ms
    rows = []
    for segmenter, latency in zip(segmenters, timed.latencies, strict=True):
        scores = evaluate(segmenter, val.samples, val.scored())
        ratio = ratio_of_medians(latency.frames_ms, base)
        same, confidence = differences(segmenters[0], segmenter, val.samples)
        rows.append(
            {
                "engine": segmenter.engine.partition(" on ")[0],
                "precision": segmenter.precision,
                "p50_ms": round(latency.total().p50, 1),
                "p95_ms": round(latency.total().p95, 1),
                "ratio": round(ratio.value, 3),
                "ratio_low": round(ratio.low, 3),
                "ratio_high": round(ratio.high, 3),
                "mean_iou": round(scores.confusion.labelled_mean_iou(), 4),
                "calibration_error": round(scores.calibration.error(), 4),
                "same_class": round(same, 5),
                "confidence_difference": round(confidence, 4),
            }
        )
        print(rows[-1], flush=True)
    return rows


def differences(one: Segmenter, other: Segmenter, samples: Samples) -> tuple[float, float]:
    """The share of pixels with the same class, and the mean difference of their confidence."""
    same, confidence = [], []
    for sample in samples:
        first, second = one.segment(sample.image), other.segment(sample.image)
        same.append(float(np.mean(first.mask == second.mask)))
        confidence.append(float(np.mean(np.abs(first.confidence - second.confidence))))
    return float(np.mean(same)), float(np.mean(confidence))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    first = rows[0]
    heads = [
        "engine",
        "precision",
        "p50 ms",
        "p95 ms",
        "time of the first row's (95 % interval)",
        "mean IoU",
        "calibration error",
        "pixels of the same class",
        "mean difference of confidence",
    ]
    lines = []
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        compared = (f"{100 * row['same_class']:.2f} %", f"{row['confidence_difference']:.4f}")
        lines.append(
            [
                *(row[each] for each in ("engine", "precision", "p50_ms", "p95_ms")),
                "1" if row is first else ratio,
                f"{row['mean_iou']:.3f}",
                f"{row['calibration_error']:.3f}",
                *(("–", "–") if row is first else compared),
            ]
        )
    return markdown_table(heads, lines)


def measure(arguments: argparse.Namespace) -> Outcome:
    """The table of all precisions."""
    rows = measured_rows(arguments)
    return Outcome(table(rows), provenance(arguments), rows)


def main() -> None:
    """Print the table; with `--json` the rows as the last line."""
    parser = camvid_parser("Speed and mean IoU of a model by engine and precision.")
    parser.add_argument(
        "--runs",
        nargs="+",
        default=["cpu/fp32", "cpu/int8", "openvino/fp32", "openvino/bf16", "openvino/int8"],
        metavar="PROVIDER/PRECISION",
        help="the first is compared with",
    )
    parser.add_argument("--threads", type=at_least(0), default=0, help="0: one per core")
    parser.add_argument("--frames", type=at_least(1), default=90, help="frames to time")
    conclude(parser, "precisions", measure)


if __name__ == "__main__":
    main()
