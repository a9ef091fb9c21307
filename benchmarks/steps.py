"""Plot mean IoU on CamVid val over the number of denoising steps, by sampler and temperature.

    python benchmarks/steps.py --data <CamVid root> --write docs/results.md

Runs the shipped runtime with seed 0. 100 steps take about two seconds a frame on two cores:
`--every` leaves frames out.
"""

import argparse
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from document import Outcome, camvid_parser, conclude, markdown_table, picture, provenance, pyplot

from camseg_core.cli.options import at_least, number
from camseg_core.data import Sample
from camseg_core.data.sets import open_set
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.groups import ScoredLabels
from camseg_core.long_runs import writable_file
from camseg_core.runtime import Segmenter

Result = dict[str, Any]
SAMPLERS = ("ddim", "dpm_solver", "ancestral")


def score(
    arguments: argparse.Namespace,
    samples: Sequence[Sample],
    scored: ScoredLabels,
    sampler: str,
    steps: int,
    temperature: float | None,
) -> Result:
    """One cell of the table."""
    segmenter = Segmenter.from_pretrained(
        arguments.model, sampler=sampler, steps=steps, temperature=temperature
    )
    found = evaluate(segmenter, samples, scored)
    result = {
        "sampler": sampler,
        "steps": steps,
        "temperature": segmenter.temperature,
        "mean_iou": round(found.confusion.labelled_mean_iou(), 4),
    }
    print(result, flush=True)
    return result


def table(results: list[Result], steps: Sequence[int]) -> str:
    """A row for each sampler and temperature, a column for each number of steps, in Markdown."""
    rows: dict[tuple[str, float], dict[int, float]] = {}
    for r in results:
        rows.setdefault((r["sampler"], r["temperature"]), {})[r["steps"]] = r["mean_iou"]
    heads = ["sampler", "temperature", *(f"{n} step{'s' if n > 1 else ''}" for n in steps)]
    lines = [
        [sampler, f"{temperature:g}", *(f"{row[n]:.3f}" if n in row else "–" for n in steps)]
        for (sampler, temperature), row in rows.items()
    ]
    return markdown_table(heads, lines)


def plot(results: list[Result], path: Path) -> None:
    """Mean IoU over the number of steps as a PNG, a line for each row of the table."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    lines: dict[str, list[tuple[int, float]]] = {}
    for r in results:
        lines.setdefault(f"{r['sampler']}, temperature {r['temperature']:g}", []).append(
            (r["steps"], r["mean_iou"])
        )
    styles = cycle(("o-", "s--", "^:", "D-.", "v-", "x--", "*:", "+-.", "p-"))
    for (name, points), style in zip(lines.items(), styles, strict=False):
        axes.plot(*zip(*points, strict=True), style, linewidth=2, markersize=7, label=name)
    counts = sorted({r["steps"] for r in results})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_xlabel("denoising steps")
    axes.set_ylabel("mIoU on CamVid val")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Score every cell of the table, and plot it."""
    writable_file(arguments.plot, "--plot")
    val = open_set("camvid", arguments.data, "val")
    samples = [val.samples[i] for i in range(0, len(val.samples), arguments.every)]
    results = [
        score(arguments, samples, val.scored(), sampler, steps, temperature)
        for temperature in arguments.temperatures or [None]
        for sampler in arguments.samplers
        for steps in arguments.steps
    ]
    plot(results, arguments.plot)
    below = [
        picture(arguments, "mIoU over the number of steps"),
        *provenance(arguments, f"{len(samples)} frames; "),
    ]
    return Outcome(table(results, arguments.steps), below, results)


def main() -> None:
    """Print the table; with `--json` the results as the last line."""
    parser = camvid_parser("Mean IoU on CamVid val over the number of denoising steps.")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--steps", type=at_least(1), nargs="+", default=[1, 2, 4, 10, 25, 100])
    parser.add_argument(
        "--temperatures",
        type=number(0),
        nargs="+",
        help="scales of the noise; the model's own by default",
    )
    parser.add_argument("--every", type=at_least(1), default=1, help="score every n-th frame")
    parser.add_argument(
        "--plot", type=Path, default=Path("docs/images/steps.png"), help="the picture to write"
    )
    conclude(parser, "steps", measure)


if __name__ == "__main__":
    main()
