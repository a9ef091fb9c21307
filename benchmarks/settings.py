"""What camseg-lite gives on CamVid val in each of its settings: precision, steps, passes, several masks of a frame, logit_scale.

    python benchmarks/settings.py --data <CamVid root> --write docs/results.md

Through the runtime that ships, seed 0; each row is what `camseg evaluate` scores with the options named. Times are medians of a whole
frame, one setting after the other.
"""

import argparse
from pathlib import Path
from typing import Any

from document import Outcome, add_document_options, conclude, current_commit, machine

from camseg_core.data.sets.registry import open_set
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.runtime import Segmenter
from camseg_core.weights import DEFAULT_MODEL

SETTINGS: dict[str, dict[str, Any]] = {
    "one step": {},
    "one step, `--precision fp32`": {"precision": "fp32"},
    "one step, logit_scale 1: not calibrated": {"logit_scale": 1.0},
    "`--sampler ddim --steps 10`": {"sampler": "ddim", "steps": 10},
    "`--passes 4`": {"passes": 4},
    "`--passes 8`": {"passes": 8},
    "`--passes 4 --order confident`": {"passes": 4, "order": "confident"},
    "`--sampler ddim --steps 4 --samples 8`": {"sampler": "ddim", "steps": 4, "samples": 8},
    "`--sampler ddim --steps 4 --samples 8 --temperature 1`": {
        "sampler": "ddim",
        "steps": 4,
        "samples": 8,
        "temperature": 1.0,
    },
}
"""The rows, and what they ask of `Segmenter.from_pretrained`, and of `with_logit_scale`."""

COLUMNS = ("mean IoU", "pixel accuracy", "AP", "boundary F1", "calibration error")


def score(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """One row."""
    asked = dict(SETTINGS[name])
    logit_scale = asked.pop("logit_scale", None)
    segmenter = Segmenter.from_pretrained(arguments.model, **asked)
    if logit_scale is not None:
        segmenter = segmenter.with_logit_scale(logit_scale)
    found = evaluate(
        segmenter,
        open_set("camvid", arguments.data, "val").samples,
        cityscapes_labels(CAMVID_11_TRAIN_IDS),
        frames=arguments.frames,
    )
    values = (
        found.mean_iou,
        found.pixel_accuracy,
        found.average_precision,
        found.boundary_f1,
        found.calibration.error(),
    )
    row = {
        "setting": name,
        **{column: round(value, 4) for column, value in zip(COLUMNS, values, strict=True)},
        "frames": len(found.frames),
        "median ms": round(found.latency.total().p50, 1),
    }
    print(row, flush=True)
    return row


def measure(arguments: argparse.Namespace) -> Outcome:
    """Score every setting."""
    rows = [score(arguments, name) for name in SETTINGS]
    lines = [f"| | {' | '.join(COLUMNS)} | median ms |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
    lines += [
        f"| {row['setting']} | {' | '.join(f'{row[column]:.3f}' for column in COLUMNS)} | {row['median ms']:.0f} |"
        for row in rows
    ]
    options = f" --frames {arguments.frames}" if arguments.frames else ""
    below = [
        f"    python benchmarks/settings.py --data <CamVid root>{options} --write docs/results.md",
        f"{rows[0]['frames']} frames; {machine()}; commit {current_commit('camseg_core')}.",
    ]
    return Outcome("\n".join(lines), below, rows)


def main() -> None:
    """Print the table; with `--json` the rows as the last line."""
    parser = argparse.ArgumentParser(
        description="camseg-lite on CamVid val in each of its settings."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="CamVid root with val/images and val/labels"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--frames", type=int, help="stop after so many frames (default: all)")
    add_document_options(parser)
    conclude(parser.parse_args(), "settings", measure)


if __name__ == "__main__":
    main()
