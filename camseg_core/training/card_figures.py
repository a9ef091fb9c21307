"""What a model card says about a model's scores on `val`, as text and tables."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camseg_core.evaluation.evaluate import Evaluation
from camseg_core.evaluation.metrics import mean

ABSENT = "–"
_NO_SCORE = (
    f"{ABSENT}: the class is not in this `val`, or was never predicted. A label for several "
    "classes has only a recall where these are scored too. A class has no boundary F1 if "
    "unlabelled pixels lie along most of its edge."
)


@dataclass(frozen=True)
class Figures:
    """What was measured on `val`, with the deployed runtime.

    Each set is scored over its own labels: its frames say nothing about classes that it does not
    distinguish.

    Attributes:
        one_step: in one step, by set.
        fp32_iou: `labelled_mean_iou` in one step in fp32.
        several: the same in several steps of DDIM, by their number.
        calibrated_on: number of frames for the calibration of the confidence.
        reconstruction: `reconstruction_scores` of masks that only pass through the autoencoder.
    """

    one_step: Mapping[str, Evaluation]
    fp32_iou: float
    several: Mapping[int, float]
    calibrated_on: int
    reconstruction: Mapping[str, Any]


def mean_iou(by_set: Mapping[str, Evaluation]) -> float:
    """Return the mean over the sets of their mean IoU, as `camseg evaluate` has it."""
    return mean(np.array([each.mean_iou for each in by_set.values()]))


def labelled_mean_iou(by_set: Mapping[str, Evaluation]) -> float:
    """Return the same over labelled classes only, which can be compared with others of its kind."""
    return mean(np.array([each.confusion.labelled_mean_iou() for each in by_set.values()]))


def figures_text(figures: Figures) -> str:
    """Return the figures as the text and tables of a model card."""
    sets = figures.one_step
    first, frames = next(iter(sets.values())), sum(len(each.frames) for each in sets.values())
    mean_of = "mean of the sets' mean IoU" if len(sets) > 1 else "mean IoU"
    several = ", ".join(f"{number(score)} in {steps}" for steps, score in figures.several.items())
    lines = [
        f"Measured with the deployed runtime ({first.provider}, {first.precision}, seed 0) on "
        f"the {frames} frames of `val`; pixels without a class are left out. If they are from the "
        "same drives as the training frames, these scores are optimistic. They are of one "
        "training, so there is no interval. `camseg evaluate` measures them again, one set at a "
        "time; with `--precision fp32`, or with `--sampler ddim --steps N`, the others.",
        "",
        f"In one step: {mean_of} **{number(mean_iou(sets))}**{_never_labelled(sets)}; in fp32: "
        f"{number(figures.fp32_iou)}; with DDIM: {several} steps. The confidence was calibrated "
        f"on {figures.calibrated_on} of these frames. Masks that only pass through the autoencoder "
        f"keep a mean IoU of {number(figures.reconstruction['labelled_mean_iou'])}: the upper "
        "limit.",
        "",
    ]
    lines += _scores(sets)
    for name, evaluation in sets.items():
        lines += ["", f"### Classes of {name}", ""] if len(sets) > 1 else [""]
        lines += _classes(evaluation)
    lines += ["", *_reconstructed(figures.reconstruction["iou"], several=len(sets) > 1)]
    return "\n".join(lines)


def _never_labelled(sets: Mapping[str, Evaluation]) -> str:
    """Say which classes count as 0 in the mean IoU, and what it is without them."""
    names: dict[str, None] = {}
    for each in sets.values():
        found = zip(each.classes, each.confusion.stray(), strict=True)
        names.update((score.label.name, None) for score, is_so in found if is_so)
    if not names:
        return ""
    return (
        f" (and so in the table below), in which classes that are predicted but never labelled "
        f"count as 0: {', '.join(names)}. Over the labelled classes alone, in which figures can be "
        f"compared: {number(labelled_mean_iou(sets))}"
    )


def _scores(sets: Mapping[str, Evaluation]) -> Iterable[str]:
    """Yield a table of the scores of each set."""
    head = ("frames", "classes", "mean IoU", "pixel accuracy", "mean precision (the paper's AP)")
    groups = [*next(iter(sets.values())).average_precision_by_group]
    ends = ("boundary F1", "calibration error (ECE)")
    columns = ("`val` of", *head, *(f"AP, {name}" for name in groups), *ends)
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * len(columns) + "|"
    for name, each in sets.items():
        scores = (
            *(each.mean_iou, each.pixel_accuracy, each.average_precision),
            *(each.average_precision_by_group[group] for group in groups),
            *(each.boundary_f1, each.calibration.error()),
        )
        counts = (name, f"{len(each.frames)}", f"{len(each.classes)}")
        yield f"| {' | '.join((*counts, *map(number, scores)))} |"


def _reconstructed(iou: Mapping[str, float | None], several: bool) -> Iterable[str]:
    """Yield a table of the IoU of masks that only pass through the autoencoder."""
    yield "### Masks that only pass through the autoencoder"
    yield ""
    if several:
        yield "Of the masks of all sets together, in the model's own classes."
        yield ""
    yield "| class | IoU |"
    yield "| --- | --- |"
    for name, value in iou.items():
        yield f"| {name} | {number(value)} |"


def _classes(evaluation: Evaluation) -> Iterable[str]:
    """Yield a table of a set's labels."""
    yield "| class | IoU | precision | recall | boundary F1 |"
    yield "| --- | --- | --- | --- | --- |"
    for each in evaluation.classes:
        scores = (each.iou, each.precision, each.recall, each.boundary_f1)
        yield f"| {' | '.join((each.label.name, *map(number, scores)))} |"
    if any(math.isnan(each.iou) or math.isnan(each.boundary_f1) for each in evaluation.classes):
        yield ""
        yield _NO_SCORE


def number(score: float | None) -> str:
    """Return a score as text."""
    return ABSENT if score is None or math.isnan(score) else f"{score:.3f}"
