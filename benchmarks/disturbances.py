"""What the bundled model keeps under disturbances, on three data sets, with and without its filter.

    python benchmarks/disturbances.py --data <folder of the sets> --write docs/results.md

What is kept is the mean of the three sets' scores, as a share of that without disturbance.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from document import ROOT, Outcome, add_document_options, conclude, markdown_table, provenance

from camseg_core.cli.options import at_least
from camseg_core.data.disturbances import gaussian_noise, salt_and_pepper
from camseg_core.data.sets import open_set
from camseg_core.data.sets.kind import OwnLabels
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.evaluation.robustness import Robustness, Scores, run_suite
from camseg_core.evaluation.robustness_suite import SUITE, Condition, Series
from camseg_core.noise_filter import without_grain, without_impulses
from camseg_core.runtime import Segmenter
from camseg_core.weights import DEFAULT_MODEL, model_labels

MAPPINGS = {
    "camvid": None,
    "cityscapes-small": ROOT / "config" / "data" / "cityscapes-small.yaml",
    "idd-lite": ROOT / "config" / "data" / "idd-lite.yaml",
}
"""The data sets, as folders of `--data`, and the mappings of their labels."""

NOISE = (
    "paper/gaussian_noise",
    "paper/salt_and_pepper",
    "common/gaussian_noise",
    "common/shot_noise",
    "common/impulse_noise",
    "common/speckle_noise",
)
"""The series in which the filter can have an effect, which are measured without it as well."""

ROWS: Mapping[str, Condition] = {
    "Gaussian noise, σ 30": Condition("paper/gaussian_noise", 30),
    "Gaussian noise, σ 50": Condition("paper/gaussian_noise", 50),
    "Gaussian noise, σ 100": Condition("paper/gaussian_noise", 100),
    "salt and pepper, 10 %": Condition("paper/salt_and_pepper", 10),
    "salt and pepper, 50 %": Condition("paper/salt_and_pepper", 50),
    "salt and pepper, 80 %": Condition("paper/salt_and_pepper", 80),
    "impulse noise, severity 5": Condition("common/impulse_noise", 5),
    "shot noise, severity 5": Condition("common/shot_noise", 5),
    "motion blur, 21 px": Condition("paper/motion_blur", 21),
    "Gaussian blur, σ 5": Condition("paper/gaussian_blur", 5),
    "brightness, × 0.5": Condition("paper/brightness", 0.5),
    "brightness, × 1.5": Condition("paper/brightness", 1.5),
    "contrast, × 0.5": Condition("paper/contrast", 0.5),
    "contrast, × 1.5": Condition("paper/contrast", 1.5),
    "saturation, × 0": Condition("paper/saturation", 0),
    "saturation, × 2": Condition("paper/saturation", 2),
    "hue, -0.2 turn": Condition("paper/hue", -0.2),
    "hue, 0.2 turn": Condition("paper/hue", 0.2),
}
FAMILIES = {"paper": "all of the paper's kinds", "common": "all common corruptions"}
SCORES = ("average_precision", "mean_iou")
WITHOUT = "without"


def measured(
    arguments: argparse.Namespace, name: str, models: Mapping[str, Segmenter], suite: list[Series]
) -> Robustness:
    """Run a suite on one data set."""
    mapping = MAPPINGS[name]
    data = open_set("auto", arguments.data / name, "val", OwnLabels(mapping=mapping))
    shared = data.scored_by({arguments.model: model_labels(arguments.model)})
    print(f"{name}: {len(suite)} series, {len(models)} models", flush=True)
    return run_suite(
        models, data.samples, shared.scored[0], suite, frames=arguments.frames, table=data.table
    )


def kept(
    found: Sequence[Robustness], condition: Condition, reference: Condition, model: str
) -> list[float]:
    """Return AP and mean IoU under a condition: the sets' mean, as a share of the reference's."""

    def mean(of: Condition, score: str) -> float:
        each: list[Scores] = [robustness.scores[of][model] for robustness in found]
        return fmean(getattr(scores, score) for scores in each)

    return [mean(condition, score) / mean(reference, score) for score in SCORES]


def measure(arguments: argparse.Namespace) -> Outcome:
    """Run the paper's kinds and the common corruptions on the sets, and weather on the drive."""
    model = Segmenter.from_pretrained(arguments.model)
    plain = Segmenter.from_pretrained(arguments.model)
    plain.config = replace(plain.config, noise_filter=False)
    images = [series for series in SUITE if series.family in FAMILIES]
    noise = [series for series in images if series.key in NOISE]
    others = [series for series in images if series.key not in NOISE]
    noisy, still = (
        [measured(arguments, name, models, suite) for name in MAPPINGS]
        for models, suite in (
            ({arguments.model: model, WITHOUT: plain}, noise),
            ({arguments.model: model}, others),
        )
    )
    clean = noise[0].reference
    shares: dict[Condition, list[list[float]]] = {}
    for found, suite in ((noisy, noise), (still, others)):
        for series in suite:
            for condition in series.conditions():
                both = [arguments.model, WITHOUT if found is noisy else arguments.model]
                shares[condition] = [kept(found, condition, clean, each) for each in both]
    absolute = [
        fmean(getattr(each.scores[clean][arguments.model], score) for each in still)
        for score in SCORES
    ]
    lines = [["undisturbed, absolute", *(f"{value:.3f}" for value in absolute), "", ""]]
    for title, condition in ROWS.items():
        lines.append([title, *_percent(shares[condition], condition.series in NOISE)])
    for family, title in FAMILIES.items():
        of = [value for key, value in shares.items() if key.series.startswith(f"{family}/")]
        means = [
            [fmean(each[of_model][score] for each in of) for score in (0, 1)] for of_model in (0, 1)
        ]
        lines.append([title, *_percent(means, True)])
    weather = [series for series in SUITE if series.family == "weather"]
    drive = measured(arguments, "camvid", {arguments.model: model}, weather)
    for series in weather:
        condition = series.conditions()[-1]
        share = kept([drive], condition, series.reference, arguments.model)
        lines.append([f"{series.title.lower()} of the synthetic drive", *_percent([share], False)])
    header = ["", "AP kept", "mean IoU kept", "AP kept, no filter", "mean IoU kept, no filter"]
    below = provenance(
        arguments, f"{arguments.frames} frames of each `val`; {model.engine}, {model.precision}; "
    )
    below.append(filter_times())
    figures: dict[str, Any] = {
        f"{key.series} {key.level:g}": value for key, value in shares.items()
    }
    return Outcome(markdown_table(header, lines), below, figures)


def filter_times() -> str:
    """Say how long the filter takes, by the median of 30 calls each."""
    parts = []
    for height, width in ((360, 480), (1080, 1920)):
        rng, clean = np.random.default_rng(0), SyntheticDrive(1, height, width)[0].image
        frames = (clean, salt_and_pepper(clean, 50, rng), gaussian_noise(clean, 50, rng))
        taken = []
        for frame, function in zip(
            (clean, *frames),
            (without_grain, without_impulses, without_impulses, without_grain),
            strict=True,
        ):
            laps = []
            for _ in range(30):
                began = time.perf_counter()
                function(frame)
                laps.append((time.perf_counter() - began) * 1000)
            taken.append(median(laps))
        grain, impulses, removed, smoothed = taken
        parts.append(
            f"at {width}×{height}, to look for noise takes {impulses + grain:.1f} ms, to remove "
            f"salt and pepper of 50 % {removed:.0f} ms, Gaussian noise of σ 50 {smoothed:.0f} ms"
        )
    times = "; ".join(parts)
    return (
        f"The filter by itself: {times}. Gaussian noise is removed at the network's size, or at "
        "the frame's if it is smaller."
    )


def _percent(shares: list[list[float]], both: bool) -> list[str]:
    """Return AP and mean IoU with the filter and, if it differs, without it."""
    with_filter, *without = shares
    cells = [f"{100 * value:.0f} %" for value in with_filter]
    return cells + ([f"{100 * value:.0f} %" for value in without[0]] if both else ["", ""])


def main() -> None:
    """Print the table; with `--json` the shares as the last line."""
    parser = argparse.ArgumentParser(description="What camseg-lite keeps under disturbances.")
    option, help_text = parser.add_argument, f"folder with {', '.join(MAPPINGS)}"
    option("--data", type=Path, required=True, metavar="<folder of the sets>", help=help_text)
    option("--model", default=DEFAULT_MODEL, help="a bundled model or a checkpoint folder")
    option("--frames", type=at_least(1), default=34, help="of each set, evenly spread")
    add_document_options(parser)
    conclude(parser, "disturbances", measure)


if __name__ == "__main__":
    main()
