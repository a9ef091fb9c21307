"""Compare precisions: mean IoU on CamVid val, and time per frame against fp32 in the same run.

    python benchmarks/precisions.py --data <CamVid root> --write docs/results.md

Frames are timed by turns, each with every precision, so that drift of the machine affects all.
"""

import argparse
from itertools import islice
from typing import Any

from document import Outcome, camvid_parser, conclude, markdown_table, provenance

from camseg_core.data.sets import open_set
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.evaluation.intervals import ratio_of_medians
from camseg_core.evaluation.timing import time_in_turns
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.runtime import Segmenter
from camseg_core.runtime.engine import PRECISIONS
from camseg_core.weights import checkpoint_folder

WARM_UP = 10


def measured_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each precision, the first being what the others are compared with."""
    val = open_set("camvid", arguments.data, "val").samples
    segmenters = [
        Segmenter.from_pretrained(arguments.model, precision=each, threads=arguments.threads)
        for each in arguments.precisions
    ]
    timed = time_in_turns(
        segmenters, (sample.image for sample in islice(val, WARM_UP + arguments.frames)), WARM_UP
    )
    base = timed.latencies[0].frames_ms
    rows = []
    for segmenter, latency in zip(segmenters, timed.latencies, strict=True):
        scores = evaluate(segmenter, val, cityscapes_labels(CAMVID_11_TRAIN_IDS))
        graphs = checkpoint_folder(arguments.model) / "onnx" / segmenter.precision
        ratio = ratio_of_medians(latency.frames_ms, base)
        rows.append(
            {
                "precision": segmenter.precision,
                "p50_ms": round(latency.total().p50, 1),
                "p95_ms": round(latency.total().p95, 1),
                "ratio": round(ratio.value, 3),
                "ratio_low": round(ratio.low, 3),
                "ratio_high": round(ratio.high, 3),
                "mean_iou": round(scores.mean_iou, 4),
                "calibration_error": round(scores.calibration.error(), 4),
                "megabytes": round(
                    sum(path.stat().st_size for path in graphs.glob("*.onnx")) / 1e6, 1
                ),
            }
        )
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    relative = f"time of {rows[0]['precision']}'s (95 % interval)"
    heads = ["precision", "p50 ms", "p95 ms", relative, "mean IoU", "calibration error"]
    lines = []
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        times = row["precision"], row["p50_ms"], row["p95_ms"], "1" if row is rows[0] else ratio
        scores = f"{row['mean_iou']:.3f}", f"{row['calibration_error']:.3f}", row["megabytes"]
        lines.append([*times, *scores])
    return markdown_table([*heads, "graphs, MB"], lines)


def measure(arguments: argparse.Namespace) -> Outcome:
    """The table of all precisions."""
    rows = measured_rows(arguments)
    options = f"--data <CamVid root> --precisions {' '.join(arguments.precisions)}"
    below = provenance(arguments, "precisions", options, ["camseg_core"])
    return Outcome(table(rows), below, rows)


def main() -> None:
    """Print the table; with `--json` the rows as the last line."""
    parser = camvid_parser("Speed and mean IoU of a model's graphs in several precisions.")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=["fp32", "int8"],
        help="the first is compared with",
    )
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--frames", type=int, default=90, help="frames to time")
    conclude(parser.parse_args(), "precisions", measure)


if __name__ == "__main__":
    main()
