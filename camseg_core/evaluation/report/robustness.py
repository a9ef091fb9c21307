"""A robustness suite as files: `robustness.json`, and the self-contained page `robustness.html`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.evaluation.metrics import GROUPS, mean
from camseg_core.evaluation.report.charts import MEASURES, axis_top, diamond, kept_chart
from camseg_core.evaluation.report.page import (
    drawn_labels,
    number,
    plain,
    render,
    shown_classes,
    thumbnail,
    to_json,
    write_files,
)
from camseg_core.evaluation.robustness import Example, Robustness, Scores
from camseg_core.evaluation.robustness_suite import FAMILIES, REFERENCES, SUITE, Condition, Series
from camseg_core.evaluation.scorer import CountedAs, scored_facts
from camseg_core.evaluation.timing import describe_machine
from camseg_core.labels import color_table

GROUP_MEASURES = {group: f"AP of {group} classes" for group in GROUPS}
"""The measures of the second set of charts."""

PICTURE_WIDTH = 320
"""Largest width of example pictures, in pixels."""

SOURCE = "arXiv 2503.15617, on Cityscapes"
CLEAN_AP = 0.702
AP: dict[str, dict[float, float]] = {
    "paper/gaussian_noise": {5: 0.691, 100: 0.691},
    "paper/gaussian_blur": {25: 0.648},
    "paper/motion_blur": {9: 0.684, 21: 0.664, 105: 0.587, 221: 0.307},
    "paper/salt_and_pepper": {10: 0.624, 50: 0.539, 80: 0.051},
    "paper/brightness": {0.5: 0.695},
    "paper/contrast": {0.5: 0.693},
    "paper/saturation": {0: 0.612},
    "paper/hue": {-0.2: 0.589, 0.2: 0.625},
}
"""The published AP by series and level."""

_DEFINITIONS = {
    "AP": (
        "The paper's score (arXiv 2503.15617): pixel precision TP / (TP + FP), averaged over the "
        "labelled classes; 0 for a labelled class that is never predicted. Measured at the "
        "frames' own size."
    ),
    "mean IoU": "Intersection over union over all pixels, averaged over the labelled classes.",
    "groups": (
        "Frequent, common and rare are thirds of the labelled classes, ordered by their number "
        "of labelled pixels; the same for all conditions and models."
    ),
    "kept": (
        "The score divided by the same model's score on the reference: the undisturbed "
        "frames or, for weather, the synthetic drive in clear weather. Precision can rise when a "
        "class is found less often: prefer mean IoU."
    ),
    "published": (
        f"Marks of the paper's own model ({SOURCE}): its AP divided by its clean AP of {CLEAN_AP}. "
        "Data, training and image sizes differ, and the paper does not give the scale of its "
        "disturbances: compare shapes, not values."
    ),
}


def kept(series: str, level: float) -> float | None:
    """Return the share of its clean AP that the paper's model keeps; None if not published."""
    value = AP.get(series, {}).get(level)
    return None if value is None else value / CLEAN_AP


def robustness_content(robustness: Robustness) -> dict[str, Any]:
    """Return the content of `robustness.json`: scores 0..1, rounded, null where undefined.

    Everything except `timings` (mean ms per frame, and the machine) is the same in every run with
    the same contenders and frames.
    """
    content = {
        "contenders": list(robustness.contenders),
        "about": dict(robustness.about),
        "frames": robustness.frames,
        "frames_scored": robustness.frames_scored,
        "seed": robustness.seed,
        "classes": [label.name for label in robustness.labels],
        "merged": {name: list(classes) for name, classes in robustness.merged.items()},
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
    return dict(plain(content))


def write_robustness(robustness: Robustness, folder: Path) -> Path:
    """Write `robustness.json` and `robustness.html` into `folder`, which is made if missing.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written.
    """
    content = robustness_content(robustness)
    page = _page(robustness, content)
    write_files(folder, {"robustness.json": to_json(content), "robustness.html": page})
    return folder / "robustness.html"


def kept_table(robustness: Robustness) -> list[str]:
    """Return the AP and mean IoU that each contender keeps, by level, as lines of text."""

    def percent(share: float) -> str:
        return "-" if math.isnan(share) else f"{100 * share:.0f}"

    lines = []
    for name in robustness.contenders:
        references = {each.series: robustness.scores[each][name] for each in robustness.groups}
        clean = (
            f"{series} AP {scores.average_precision:.3f}, mean IoU {scores.mean_iou:.3f}"
            for series, scores in references.items()
        )
        lines.append(f"{name}: {', '.join(clean)}")
    lines += [f"{name}: {text}" for name, text in _limits(robustness)]
    lines += ["", "kept of the clean performance in %: AP/mean IoU by level"]
    width = max(len(series.key) for series in robustness.suite)
    name_width = max(map(len, robustness.contenders))
    for series in robustness.suite:
        for index, name in enumerate(robustness.contenders):
            of = f"  {name:<{name_width}}" if len(robustness.contenders) > 1 else ""
            kept = ""
            for condition in series.conditions():
                scores = robustness.scores[condition][name]
                shares = f"{percent(scores.kept_precision)}/{percent(scores.kept_iou)}"
                kept += f"  {condition.level:g}: {shares}"
            lines.append(f"{series.key if index == 0 else '':<{width}}{of}{kept}")
    return lines


def _limits(robustness: Robustness) -> list[tuple[str, str]]:
    """What was not scored, and which classes count as one, as name and text of each fact."""
    facts = CountedAs(robustness.merged, {}, {}, robustness.recall_only).facts()
    return scored_facts(robustness.frames_scored, robustness.frames) + facts


def _members(robustness: Robustness, reference: Condition) -> dict[str, list[str]]:
    pairs = list(zip(robustness.labels, robustness.groups[reference], strict=True))
    return {group: [label.name for label, its in pairs if its == group] for group in GROUPS}


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


def _share_of_family(robustness: Robustness, family: str) -> str:
    """Say how many kinds of a family were run; nothing if all were."""
    of_suite, of_run = (
        {series.key for series in suite if series.family == family}
        for suite in (SUITE, robustness.suite)
    )
    return f", {len(of_run)} of {len(of_suite)} kinds" if of_run < of_suite else ""


def _family_mean(robustness: Robustness, family: str, name: str) -> dict[str, float]:
    """The share kept, mean over the conditions of a family."""
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


def _page(robustness: Robustness, content: Mapping[str, Any]) -> str:
    top, names, timings = axis_top(content["series"]), content["contenders"], content["timings"]
    by_family = {
        family: [
            (
                series,
                kept_chart(series, names, MEASURES, top),
                kept_chart(series, names, GROUP_MEASURES, top),
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
    return render(
        __package__,
        "robustness.html.j2",
        report=content,
        families=[
            (FAMILIES[family] + _share_of_family(robustness, family), family, drawn)
            for family, drawn in by_family.items()
        ],
        partial=any(_share_of_family(robustness, family) for family in by_family),
        groups=GROUPS,
        diamond=diamond,
        examples=[
            (*titles[each.condition.series], _pictures(robustness, each))
            for each in robustness.examples
        ],
        legend=shown_classes(
            [*robustness.model_classes, *robustness.labels],
            [ids for each in robustness.examples for ids in (each.label, *each.masks.values())],
        ),
        run=[
            *content["about"].items(),
            *_limits(robustness),
            ("frames", content["frames"]),
            ("seed of the disturbances", content["seed"]),
            *((key, f"{number(ms, 1)} ms a frame") for key, ms in timings["ms_per_frame"].items()),
            *timings["machine"].items(),
        ],
    )


def _at(series: Series) -> str:
    """The level shown in the examples, with its unit."""
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
    """Name and data URI of an example's pictures; references come with their label."""
    colors = color_table(drawn_labels([*robustness.model_classes, *robustness.labels]))
    pictures = {"picture": example.image}
    if example.condition in REFERENCES:
        pictures["label"] = example.label
    named = [*pictures.items(), *example.masks.items()]  # a contender may be called "label"
    return [(name, thumbnail(picture, PICTURE_WIDTH, colors)) for name, picture in named]
