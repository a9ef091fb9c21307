"""Two models on the same labelled frames, side by side: `comparison.json` and a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.data import Samples
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.report.page import (
    plain,
    render,
    rgb,
    shown_classes,
    thumbnail,
    to_json,
    write_files,
)
from camseg_core.groups import ScoredLabels
from camseg_core.labels import color_table, train_id_table
from camseg_core.runtime.segmenter import Segmenter

PICTURE_WIDTH = 480
"""Largest width of the page's pictures, in pixels."""

_SHOWN = 3
"""Frames with pictures: as many that got better, and as many that got worse."""


@dataclass(frozen=True)
class Contender:
    """A model and the labels that its masks are scored against."""

    name: str
    segmenter: Segmenter
    scored: ScoredLabels


def compare(
    old: Contender, new: Contender, samples: Samples, folder: Path, about: Mapping[str, Any]
) -> tuple[Evaluation, Evaluation]:
    """Score both models, write `comparison.json` and `comparison.html` into `folder`.

    Both must have the same scored labels, in the ids of the data set.

    Raises:
        DataError: see `evaluate`; or the folder cannot be written.
    """
    first, second = (evaluate(each.segmenter, samples, each.scored) for each in (old, new))
    content = _content(old, new, first, second, about)
    changes = [
        (index, after.mean_iou - before.mean_iou)
        for index, (before, after) in enumerate(zip(first.frames, second.frames, strict=True))
        if not math.isnan(after.mean_iou - before.mean_iou)
    ]
    changes.sort(key=lambda change: -change[1])
    better = [each for each in changes[:_SHOWN] if each[1] > 0]
    worse = [each for each in changes[-_SHOWN:] if each[1] < 0]
    shown, seen = [], []
    labels = new.scored.labels
    colors = color_table(labels)
    for index, change in (*better, *worse):
        sample = samples[index]
        masks = {each.name: _mask(each, sample.image, sample.label) for each in (old, new)}
        truth = train_id_table(labels)[new.scored.truth_of(sample.label)]
        seen += [truth, *masks.values()]
        named = [("image", sample.image), ("label", truth), *masks.items()]
        pictures = [(name, thumbnail(each, PICTURE_WIDTH, colors)) for name, each in named]
        shown.append((sample.name, change, pictures))
    page = render(
        str(__package__),
        "comparison.html.j2",
        report=content,
        names=(old.name, new.name),
        colors={label.name: rgb(label.color) for label in labels},
        shown=shown,
        legend=shown_classes(labels, seen),
    )
    write_files(folder, {"comparison.json": to_json(content), "comparison.html": page})
    return first, second


def comparison_table(first: Evaluation, second: Evaluation, names: Sequence[str]) -> list[str]:
    """Return both models' IoU by class as aligned lines."""
    rows = [(each.label.name, each.iou) for each in first.classes]
    width = max(len(name) for name, _ in [*rows, ("mean", 0.0)])
    head = f"{'IoU':{width}}  {names[0]:>12}  {names[1]:>12}  difference"
    pairs = [(name, iou, b.iou) for (name, iou), b in zip(rows, second.classes, strict=True)]
    pairs.append(("mean", first.mean_iou, second.mean_iou))
    return [
        head,
        *(
            f"{name:{width}}  {_text(a):>12}  {_text(b):>12}  {_text(b - a, '+'):>10}"
            for name, a, b in pairs
        ),
    ]


def _text(score: float, sign: str = "") -> str:
    return "–" if math.isnan(score) else f"{score:{sign}.3f}"


def _mask(model: Contender, image: Any, label: Any) -> Any:
    """Return a model's mask in ids of the scored labels, 255 where none stands for its class."""
    truth = model.scored.truth_of(label)
    places = model.scored.predicted_of(model.segmenter.segment(image).mask, truth)
    return np.asarray(train_id_table(model.scored.labels)[places], np.uint8)


def _content(
    old: Contender, new: Contender, first: Evaluation, second: Evaluation, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `comparison.json`, see `report_content`."""
    names = ("mean_iou", "pixel_accuracy", "average_precision", "boundary_f1")
    return dict(
        plain(
            {
                "models": [old.segmenter.name, new.segmenter.name],
                "about": {
                    **about,
                    "frames": len(first.frames),
                    "engine": f"{second.engine}, {second.precision}",
                },
                "scores": {
                    **{name: [getattr(each, name) for each in (first, second)] for name in names},
                    "calibration_error": [each.calibration.error() for each in (first, second)],
                    "latency_ms": [each.latency.total().p50 for each in (first, second)],
                },
                "classes": [
                    {"name": a.label.name, "share": a.share, "iou": [a.iou, b.iou]}
                    for a, b in zip(first.classes, second.classes, strict=True)
                ],
                "frames": [
                    {"name": a.name, "mean_iou": [a.mean_iou, b.mean_iou]}
                    for a, b in zip(first.frames, second.frames, strict=True)
                ],
            }
        )
    )
