"""An evaluation as files: `report.json` for programs, and the self-contained page `report.html`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camseg_core.evaluation.boundary_f1 import LEAST_COUNTED
from camseg_core.evaluation.evaluate import Evaluation, ShownFrame
from camseg_core.evaluation.protocols import PUBLISHED
from camseg_core.evaluation.report.charts import frame_scores_chart, reliability_chart
from camseg_core.evaluation.report.page import (
    Card,
    confusion_rows,
    drawn_labels,
    number,
    plain,
    render,
    rgb,
    shown_classes,
    thumbnail,
    to_json,
    write_files,
)
from camseg_core.evaluation.scorer import never_labelled_facts, noise_facts, scored_facts
from camseg_core.evaluation.timing import describe_machine
from camseg_core.labels import CITYSCAPES, UNLABELLED, UNLABELLED_COLOR, Label, color_table

PICTURE_WIDTH = 640
"""Largest width of the page's pictures, in pixels."""

WORST_LISTED = 10
"""Frames in the page's list; the JSON file has all."""

_WRONG = (214, 39, 40)


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write `report.json` and `report.html` into `folder`, which is made if missing.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written.
    """
    content = report_content(evaluation)
    page = _page(evaluation, content)
    write_files(folder, {"report.json": to_json(content), "report.html": page})
    return folder / "report.html"


def report_content(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `report.json`: scores 0..1, rounded, null where undefined.

    Everything except `timings` (ms, and the machine) is the same in every run of the same model on
    the same frames. `timings.frames_ms` is in the order of `frames`.
    """
    groups = evaluation.average_precision_by_group
    content = {
        "model": evaluation.model,
        "provider": evaluation.provider,
        "engine": evaluation.engine,
        "precision": evaluation.precision,
        "protocol": evaluation.protocol.name,
        "about": dict(evaluation.about),
        "definitions": _definitions(evaluation),
        "scores": {
            "mean_iou": evaluation.mean_iou,
            "pixel_accuracy": evaluation.pixel_accuracy,
            "average_precision": evaluation.average_precision,
            "average_precision_by_group": dict(groups),
            "boundary_f1": evaluation.boundary_f1,
            "expected_calibration_error": evaluation.calibration.error(),
            "error_detection_auroc": evaluation.error_detection.auroc(),
            "area_under_risk_coverage": evaluation.error_detection.area_under_risk_coverage(),
            **(
                {"mean_category_iou": evaluation.mean_category_iou} if evaluation.categories else {}
            ),
        },
        "groups": {
            group: [each.label.name for each in evaluation.classes if each.group == group]
            for group in groups
        },
        "boundary_tolerance": evaluation.boundary_tolerance,
        "classes": [
            {"id": each.label.id, "name": each.label.name}
            | {key: value for key, value in vars(each).items() if key != "label"}
            for each in evaluation.classes
        ],
        "categories": [
            {"name": each.name, "iou": each.iou}
            | {"classes": [CITYSCAPES[i].name for i in each.train_ids]}
            for each in evaluation.categories
        ],
        "confusion": {
            "rows": [each.label.name for each in evaluation.classes],
            "columns": [*(each.label.name for each in evaluation.classes), "no class"],
            "pixels": evaluation.confusion.matrix.tolist(),
        },
        "calibration": [asdict(each) for each in evaluation.calibration.bins()],
        "frames_scored": evaluation.frames_scored,
        "noise_removed": evaluation.noise_removed,
        "frames": [
            {"name": each.name, "mean_iou": each.mean_iou, "pixel_accuracy": each.pixel_accuracy}
            for each in evaluation.frames
        ],
        "shown": {each.rank: each.score.name for each in evaluation.shown},
        **(
            {} if evaluation.counted_as is None else {"counted_as": evaluation.counted_as.to_json()}
        ),
        "timings": {
            "latency_ms": asdict(evaluation.latency.total()),
            "stages_ms": {
                stage: asdict(each) for stage, each in evaluation.latency.stages().items()
            },
            "frames_ms": list(evaluation.latency.frames_ms),
            "machine": describe_machine(),
        },
    }
    return dict(plain(content))


def _definitions(evaluation: Evaluation) -> dict[str, str]:
    """How the scores are defined, for the reader of either file."""
    width, height = evaluation.frame_size
    share, pixels = (
        100 * evaluation.boundary_tolerance,
        evaluation.boundary_tolerance * math.hypot(width, height),
    )
    published = evaluation.protocol.name == PUBLISHED.name
    size = "768×768" if published else "the frames' own size"
    ap = (
        "as the paper computes it"
        if published
        else "The paper computes it at 768×768 on labels resized as colours (--protocol camseg)"
    )
    return {
        "protocol": evaluation.protocol.definition,
        "mean IoU": (
            "Intersection over union (IoU) of all frames' pixels, mean over the classes that "
            f"occur in labels or masks, at {size}. Pixels without a label count nowhere. A "
            "single frame's mean is over the classes in its label."
        ),
        "AP": (
            "The paper's score (arXiv 2503.15617): pixel precision TP / (TP + FP), mean over "
            "the classes that occur; 0 for a labelled class that no mask has. Here it is at "
            f"{size}{', ' if published else '. '}{ap}."
        ),
        "groups": (
            "Frequent, common and rare are thirds of the classes that occur, ordered by their "
            "number of labelled pixels in these frames; what three does not divide goes to the "
            "more frequent. The groups are made from the scored labels, not the paper's."
        ),
        "boundary F1": (
            f"BF score of Csurka et al. (BMVC 2013): boundaries match within {share:g} % of the "
            f"image's diagonal ({pixels:.1f} pixels at {width}×{height}); mean over the frames "
            "in which a class has a boundary, then over classes. Boundaries within that "
            "distance of unlabelled pixels are not counted; a class of which less than "
            f"{100 * LEAST_COUNTED:.0f} % counts has no score."
        ),
        "ECE": (
            "Expected calibration error of Guo et al. (ICML 2017): distance between confidence "
            f"and accuracy over {len(evaluation.calibration.bins())} bins of equal width, mean "
            "over labelled pixels."
        ),
        "error detection AUROC": (
            "Chance that a wrong pixel is less confident than a right one (Hendrycks and Gimpel, "
            "arXiv 1610.02136), over labelled pixels."
        ),
        "area under risk-coverage": (
            "Share of wrong pixels among the most confident ones, mean over all coverages "
            "(Geifman et al., arXiv 1805.08206)."
        ),
        "latency": (
            "From the frame in memory to the mask in memory, one frame at a time, after one "
            "untimed frame of each size."
        ),
    }


def score_table(evaluation: Evaluation) -> list[str]:
    """Return the scores as lines of text."""

    def text(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.3f}"

    longest = max(14, *(len(each.label.name) for each in evaluation.classes))
    row = f"{{:<{longest}}} {{:>7}} {{:>10}} {{:>12}} {{:>9}}".format
    ap, latency = evaluation.average_precision, evaluation.latency.total()
    lines = [
        *([f"data {data}"] if (data := evaluation.about.get("data")) else []),
        f"protocol {evaluation.protocol.name}",
        row("class", "IoU", "precision", "boundary F1", "pixels"),
    ]
    for each in evaluation.classes:
        if each.group is not None:
            scores = (text(score) for score in (each.iou, each.precision, each.boundary_f1))
            lines.append(row(each.label.name, *scores, f"{100 * each.share:.2f} %"))
    means = (text(score) for score in (evaluation.mean_iou, ap, evaluation.boundary_f1))
    lines += [
        row("mean", *means, ""),
        "",
        f"pixel accuracy {text(evaluation.pixel_accuracy)}, expected calibration error "
        f"{text(evaluation.calibration.error())}",
        f"error detection AUROC {text(evaluation.error_detection.auroc())}, area under "
        f"risk-coverage {text(evaluation.error_detection.area_under_risk_coverage())}",
    ]
    if evaluation.categories:
        categories = ", ".join(f"{each.name} {text(each.iou)}" for each in evaluation.categories)
        lines.append(f"mean category IoU {text(evaluation.mean_category_iou)}: {categories}")
    by_group = evaluation.average_precision_by_group.items()
    groups = ", ".join(f"{group} {text(score)}" for group, score in by_group)
    return [
        *lines,
        *(f"{name}: {fact}" for name, fact in _limits(evaluation)),
        f"AP {text(ap)}: {groups}",
        f"latency p50 {latency.p50:.1f} ms, p95 {latency.p95:.1f} ms over "
        f"{len(evaluation.frames)} frames",
    ]


def _limits(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What was not scored, and what counted as one, as name and text of each fact."""
    facts = [] if evaluation.counted_as is None else evaluation.counted_as.facts()
    found = zip(evaluation.classes, evaluation.confusion.stray(), strict=True)
    facts += never_labelled_facts([each.label.name for each, is_so in found if is_so])
    facts += noise_facts(evaluation.noise_removed, len(evaluation.frames))
    return scored_facts(evaluation.frames_scored, len(evaluation.frames)) + facts


def _page(evaluation: Evaluation, content: Mapping[str, Any]) -> str:
    ranks = {each.score: each.rank for each in evaluation.shown}
    scores, timings = content["scores"], content["timings"]
    labels = [*evaluation.model_classes, *(each.label for each in evaluation.classes)]
    return render(
        __package__,
        "evaluation.html.j2",
        report=content,
        cards=_cards(scores, timings["latency_ms"]),
        colors={each.label.name: rgb(each.label.color) for each in evaluation.classes},
        confusion=confusion_rows(content["confusion"]["rows"], content["confusion"]["pixels"]),
        worst=evaluation.worst_first()[:WORST_LISTED],
        frame_scores=frame_scores_chart(
            [(each.name, each.mean_iou, ranks.get(each, "")) for each in evaluation.frames]
        ),
        reliability=reliability_chart(evaluation.calibration.bins()),
        limits=_limits(evaluation),
        shown=[(each, _pictures(each, labels)) for each in evaluation.shown],
        legend=shown_classes(
            labels,
            [ids for each in evaluation.shown for ids in (each.label, each.mask)],
        ),
        run=[
            *((key, content[key]) for key in ("model", "engine", "precision")),
            *content["about"].items(),
            *timings["machine"].items(),
        ],
    )


def _cards(scores: Mapping[str, Any], latency_ms: Mapping[str, float]) -> list[Card]:
    names = {
        "mean_iou": "mean IoU",
        "mean_category_iou": "mean category IoU",
        "pixel_accuracy": "pixel accuracy",
        "average_precision": "mean precision (AP)",
        "boundary_f1": "boundary F1",
        "expected_calibration_error": "calibration error",
        "error_detection_auroc": "error detection AUROC",
    }
    cards = [
        Card(label, number(scores[key]), id=key, css="first" if key == "mean_iou" else "")
        for key, label in names.items()
        if key in scores
    ]
    return cards + [
        Card(f"latency {key}", number(latency_ms[key], 0), "ms", key) for key in ("p50", "p95")
    ]


def _pictures(frame: ShownFrame, labels: Sequence[Label]) -> list[tuple[str, str]]:
    """Name and data URI of the pictures of a frame, whose ids are those of `labels`.

    In the last, the image is pale and grey, wrong pixels red, pixels without a label black.
    """
    pale = 150 + cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) * 0.4
    differences = np.repeat(pale.astype(np.uint8)[..., None], 3, axis=2)
    differences[frame.label != frame.mask] = _WRONG
    differences[frame.label == UNLABELLED] = UNLABELLED_COLOR
    pictures = {"image": frame.image, "label": frame.label, "mask": frame.mask}
    pictures["differences"] = differences
    colors = color_table(drawn_labels(labels))
    return [(name, thumbnail(picture, PICTURE_WIDTH, colors)) for name, picture in pictures.items()]
