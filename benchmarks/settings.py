"""Score camseg-lite on CamVid val in each of its settings, from precision to logit scale.

    python benchmarks/settings.py --data <CamVid root> --write docs/results.md

Runs the shipped runtime with seed 0; each row is what `camseg evaluate` scores with these options.
Times are medians of a whole frame, one setting after the other.
"""

import argparse
from typing import Any

from document import Outcome, camvid_parser, conclude, markdown_table, provenance

from camseg_core.cli.options import at_least
from camseg_core.data.sets import open_set
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.runtime import Segmenter

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
    val = open_set("camvid", arguments.data, "val")
    found = evaluate(segmenter, val.samples, val.scored(), frames=arguments.frames)
    values = (
        found.confusion.labelled_mean_iou(),
        found.pixel_accuracy,
        found.confusion.labelled_precision(),
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
    lines = [
        [row["setting"], *(f"{row[each]:.3f}" for each in COLUMNS), f"{row['median ms']:.0f}"]
        for row in rows
    ]
    below = provenance(arguments, f"{rows[0]['frames']} frames; ")
    return Outcome(markdown_table(["", *COLUMNS, "median ms"], lines), below, rows)


def main() -> None:
    """Print the table; with `--json` the rows as the last line."""
    parser = camvid_parser("camseg-lite on CamVid val in each of its settings.")
    help_text = "stop after this many frames (default: all)"
    parser.add_argument("--frames", type=at_least(1), help=help_text)
    conclude(parser, "settings", measure)


if __name__ == "__main__":
    main()
