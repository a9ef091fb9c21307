"""The robustness of contenders as files: `robustness.json` for programs, `robustness.html`, one page that asks no network for anything."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camseg_core.errors import DataError
from camseg_core.evaluation.machine import describe_machine
from camseg_core.evaluation.metrics import GROUPS, mean
from camseg_core.evaluation.report.charts import CHART, MEASURES, axis_top, chart
from camseg_core.evaluation.report.page import data_uri, environment
from camseg_core.evaluation.robustness import Example, Pixels, Robustness, Scores
from camseg_core.evaluation.robustness_suite import (
    AP,
    CLEAN_AP,
    FAMILIES,
    REFERENCES,
    SOURCE,
    Condition,
    Series,
    kept,
)
from camseg_core.labels import color_table
from camseg_core.runtime.overlay import colorize

GROUP_MEASURES = {group: f"AP of {group} classes" for group in GROUPS}
"""What a second set of charts shows."""

PICTURE_WIDTH = 320
"""Example pictures are at most so many pixels wide."""

_DEFINITIONS = {
    "AP": "The paper's score (arXiv 2503.15617): pixel precision TP / (TP + FP), mean over the classes that occur in labels or masks; 0 "
    "for a labelled class that no mask has. Here at the frames' own size.",
    "mean IoU": "Intersection over union of all frames' pixels, mean over the classes that occur in labels or masks.",
    "groups": "Frequent, common and rare are thirds of the labelled classes, ordered by their number of labelled pixels; the same for all "
    "conditions and contenders.",
    "kept": "The score over the same contender's score on the reference: the frames as they are, for weather the synthetic drive in clear "
    "weather. Precision can rise when a class is found less often, so mean IoU tells more.",
    "published": f"Marks of the paper's own model ({SOURCE}): its AP over its clean AP of {CLEAN_AP}. Other data, other training and other "
    "picture sizes than here, and the paper does not say on which scale it disturbs: the shapes compare, not the values.",
}


def robustness_content(robustness: Robustness) -> dict[str, Any]:
    """What `robustness.json` holds: scores 0..1 with six decimals, null where the labels say nothing.

    Everything but `timings` (mean ms per frame, and the machine) is the same in every run with the same contenders and frames.
    """
    content = {
        "contenders": list(robustness.contenders),
        "about": dict(robustness.about),
        "frames": robustness.frames,
        "seed": robustness.seed,
        "classes": [label.name for label in robustness.labels],
        "definitions": _DEFINITIONS,
        "groups": {
            reference.series: _members(robustness, reference) for reference in robustness.groups
        },
        "references": {
            reference.series: {
                "is": REFERENCES[reference],
                "contenders": _contenders(robustness, reference),
            }
            for reference in robustness.groups
        },
        "series": [_series(robustness, series) for series in robustness.suite],
        "kept_by_family": {
            family: {name: _family_mean(robustness, family, name) for name in robustness.contenders}
            for family in FAMILIES
            if any(series.family == family for series in robustness.suite)
        },
        "published": {
            "source": SOURCE,
            "clean_average_precision": CLEAN_AP,
            "average_precision": {
                series: [[level, value] for level, value in of.items()] for series, of in AP.items()
            },
        },
        "timings": {"ms_per_frame": dict(robustness.timings), "machine": describe_machine()},
    }
    return {key: _plain(value) for key, value in content.items()}


def write_robustness(robustness: Robustness, folder: Path) -> Path:
    """Write `robustness.json` and `robustness.html` into `folder`, which is made where it is missing.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written.
    """
    content = robustness_content(robustness)
    page = folder / "robustness.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
        (folder / "robustness.json").write_text(text, encoding="utf-8")
        page.write_text(_page(robustness, content), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the report into {folder}: {error.strerror}; choose a folder that can be written"
        ) from error
    return page


def _members(robustness: Robustness, reference: Condition) -> dict[str, list[str]]:
    groups = robustness.groups[reference]
    return {
        group: [
            label.name for label, its in zip(robustness.labels, groups, strict=True) if its == group
        ]
        for group in GROUPS
    }


def _contenders(robustness: Robustness, condition: Condition) -> dict[str, Any]:
    return {name: _scores(robustness.scores[condition][name]) for name in robustness.contenders}


def _scores(scores: Scores) -> dict[str, Any]:
    return {
        "average_precision": scores.average_precision,
        "average_precision_by_group": dict(scores.by_group),
        "mean_iou": scores.mean_iou,
        "iou": list(scores.iou),
        "kept": {
            "average_precision": scores.kept_precision,
            **scores.kept_by_group,
            "mean_iou": scores.kept_iou,
        },
    }


def _series(robustness: Robustness, series: Series) -> dict[str, Any]:
    return {
        "name": series.key,
        "family": series.family,
        "title": series.title,
        "unit": series.unit,
        "does": series.does,
        "clean_level": series.clean,
        "reference": series.reference.series,
        "levels": [
            {
                "level": condition.level,
                "contenders": _contenders(robustness, condition),
                "published_kept": kept(series.key, condition.level),
            }
            for condition in series.conditions()
        ],
    }


def _family_mean(robustness: Robustness, family: str, name: str) -> dict[str, float]:
    """What is kept, mean over the conditions of a family."""
    conditions = [
        condition
        for series in robustness.suite
        if series.family == family
        for condition in series.conditions()
    ]
    scores = [robustness.scores[condition][name] for condition in conditions]
    return {
        "average_precision": mean(np.array([each.kept_precision for each in scores])),
        "mean_iou": mean(np.array([each.kept_iou for each in scores])),
    }


def _plain(value: Any) -> Any:
    """The value for JSON: six decimals, None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def _page(robustness: Robustness, content: Mapping[str, Any]) -> str:
    template = environment().from_string(
        files(__package__).joinpath("robustness.html.j2").read_text(encoding="utf-8")
    )
    top = axis_top(content["series"])
    by_family = {
        family: [
            (
                series,
                chart(series, content["contenders"], MEASURES, top),
                chart(series, content["contenders"], GROUP_MEASURES, top),
            )
            for series in content["series"]
            if series["family"] == family
        ]
        for family in content["kept_by_family"]
    }
    titles = {
        series.key: (f"{series.title}, {_at(series)}", FAMILIES[series.family])
        for series in robustness.suite
    }
    titles |= {
        reference.series: (title[0].upper() + title[1:], "reference")
        for reference, title in REFERENCES.items()
    }
    return template.render(
        report=content,
        families=[(FAMILIES[family], family, drawn) for family, drawn in by_family.items()],
        groups=GROUPS,
        plot=CHART,
        examples=[
            (*titles[each.condition.series], _pictures(robustness, each))
            for each in robustness.examples
        ],
        classes=[(label.name, f"rgb{label.color}") for label in robustness.labels],
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _at(series: Series) -> str:
    """The level that is shown, for people."""
    level = f"{series.shown:g}"
    return {
        "severity": f"severity {level}",
        "factor": f"×{level}",
        "% of the pixels": f"{level} %",
        "σ in grey values": f"σ {level}",
        "σ in pixels": f"σ {level} px",
        "length in pixels": f"{level} px",
    }.get(series.unit, f"{level} {series.unit}")


def _pictures(robustness: Robustness, example: Example) -> list[tuple[str, str]]:
    """What to show of an example: what each picture is, and the picture as a data URI. References come with their label."""
    colors = color_table(robustness.labels)
    height, width = example.label.shape
    scale = min(1.0, PICTURE_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def small(mask: Pixels) -> str:
        return data_uri(
            colorize(
                np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8),
                colors,
            ),
            "png",
        )

    pictures = [
        ("picture", data_uri(cv2.resize(example.image, size, interpolation=cv2.INTER_AREA), "jpeg"))
    ]
    if example.condition in REFERENCES:
        pictures.append(("label", small(example.label)))
    return pictures + [(name, small(mask)) for name, mask in example.masks.items()]
