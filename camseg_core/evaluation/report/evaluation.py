"""An evaluation as files: `report.json` for programs, and `report.html`, one page that asks no network for anything."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.evaluate import Evaluation, FrameScore, ShownFrame
from camseg_core.evaluation.machine import describe_machine
from camseg_core.evaluation.protocols import PUBLISHED
from camseg_core.evaluation.report.page import data_uri, environment
from camseg_core.labels import CITYSCAPES, UNLABELLED, UNLABELLED_COLOR
from camseg_core.runtime.overlay import colorize

PICTURE_WIDTH = 640
"""Pictures in the page are at most so many pixels wide."""

WORST_LISTED = 10
"""Frames in the page's list; the JSON has all."""

_WRONG = (214, 39, 40)


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write `report.json` and `report.html` into `folder`, which is made where it is missing.

    Returns:
        The page's path.

    Raises:
        DataError: the folder cannot be written.
    """
    content = report_content(evaluation)
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(
            json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
        )
        page.write_text(_page(evaluation, content), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the report into {folder}: {error.strerror}; choose a folder that can be written"
        ) from error
    return page


def report_content(evaluation: Evaluation) -> dict[str, Any]:
    """What `report.json` holds: scores 0..1 with six decimals, null where the frames say nothing.

    Everything but `timings` (ms, and the machine) is the same in every run of the same model on the same frames; `frames_ms` there
    is in the order of `frames`.
    """
    groups = evaluation.average_precision_by_group
    content = {
        "model": evaluation.model,
        "provider": evaluation.provider,
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
            {
                "id": each.label.id,
                "name": each.label.name,
                "group": each.group,
                "share": each.share,
                "iou": each.iou,
                "precision": each.precision,
                "recall": each.recall,
                "boundary_f1": each.boundary_f1,
            }
            for each in evaluation.classes
        ],
        "categories": [
            {
                "name": each.name,
                "classes": [CITYSCAPES[i].name for i in each.train_ids],
                "iou": each.iou,
            }
            for each in evaluation.categories
        ],
        "confusion": {
            "rows": [each.label.name for each in evaluation.classes],
            "columns": [*(each.label.name for each in evaluation.classes), "no class"],
            "pixels": evaluation.confusion.matrix.tolist(),
        },
        "calibration": [asdict(each) for each in evaluation.calibration.bins()],
        "frames": [
            {"name": each.name, "mean_iou": each.mean_iou, "pixel_accuracy": each.pixel_accuracy}
            for each in evaluation.frames
        ],
        "shown": {each.rank: each.score.name for each in evaluation.shown},
        "timings": {
            "latency_ms": asdict(evaluation.latency.total()),
            "stages_ms": {
                stage: asdict(each) for stage, each in evaluation.latency.stages().items()
            },
            "frames_ms": list(evaluation.latency.frames_ms),
            "machine": describe_machine(),
        },
    }
    return {key: _plain(value) for key, value in content.items()}


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
        "mean IoU": "Intersection over union (IoU) of all frames' pixels, mean over the classes that occur in labels or masks, at "
        f"{size}. Pixels without a label count nowhere. A single frame's mean is over the classes in its label.",
        "AP": "The paper's score (arXiv 2503.15617): pixel precision TP / (TP + FP), mean over the classes that occur; 0 for a labelled "
        f"class that no mask has. Here it is at {size}{', ' if published else '. '}{ap}.",
        "groups": "Frequent, common and rare are thirds of the classes that occur, ordered by their number of labelled pixels in these "
        "frames; what three does not divide goes to the more frequent. The groups are made from the labels at hand, not the paper's.",
        "boundary F1": f"BF score of Csurka et al. (BMVC 2013): boundaries match within {share:g} % of the image's diagonal "
        f"({pixels:.1f} pixels at {width}×{height}); mean over the frames in which a class has a boundary, then over classes. Boundaries "
        "within that distance of unlabelled pixels are not counted.",
        "ECE": f"Expected calibration error of Guo et al. (ICML 2017): distance between confidence and accuracy over "
        f"{len(evaluation.calibration.bins())} bins of equal width, mean over labelled pixels.",
        "latency": "From the frame in memory to the mask in memory, one frame at a time, after one untimed frame.",
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


def _page(evaluation: Evaluation, content: Mapping[str, Any]) -> str:
    template = environment().from_string(
        files(__package__).joinpath("evaluation.html.j2").read_text(encoding="utf-8")
    )
    colors = {each.label.name: f"rgb{each.label.color}" for each in evaluation.classes}
    return template.render(
        report=content,
        colors=colors | {"no class": "#fff"},
        confusion=_confusion_rows(content["confusion"]),
        worst=evaluation.worst_first()[:WORST_LISTED],
        points=_points(evaluation),
        pictures=[(each, _pictures(each)) for each in evaluation.shown],
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _confusion_rows(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """The confusion matrix as names and shares of rows, the diagonal first to last, without the classes that occur nowhere."""
    pixels = np.array(confusion["pixels"], np.int64)
    classes = len(pixels)
    occurs = (pixels.sum(1) + pixels.sum(0)[:classes]) > 0
    shown = np.flatnonzero(occurs)
    columns = [*shown, *([classes] if pixels[:, classes].any() else [])]
    rows = [
        (
            confusion["rows"][i],
            [float(pixels[i, j] / pixels[i].sum()) if pixels[i].any() else None for j in columns],
        )
        for i in shown
    ]
    return {"columns": [confusion["columns"][j] for j in columns], "rows": rows}


def _points(evaluation: Evaluation) -> list[tuple[float, FrameScore, str]]:
    """Every frame with a score: how far along the data set it is (0..1), the score, and its rank if it is shown."""
    ranks = {each.score: each.rank for each in evaluation.shown}
    last = max(len(evaluation.frames) - 1, 1)
    return [
        (i / last, each, ranks.get(each, ""))
        for i, each in enumerate(evaluation.frames)
        if not math.isnan(each.mean_iou)
    ]


def _pictures(frame: ShownFrame) -> list[tuple[str, str]]:
    """What to show of a frame: what each picture is, and the picture as a data URI."""
    height, width = frame.label.shape
    scale = min(1.0, PICTURE_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    label, mask = (
        cv2.resize(each, size, interpolation=cv2.INTER_NEAREST)
        for each in (frame.label, frame.mask)
    )
    return [
        ("image", data_uri(image, "jpeg")),
        ("label", data_uri(colorize(np.asarray(label, np.uint8)), "png")),
        ("mask", data_uri(colorize(np.asarray(mask, np.uint8)), "png")),
        (
            "differences",
            data_uri(_differences(np.asarray(image), np.asarray(label), np.asarray(mask)), "jpeg"),
        ),
    ]


def _differences(
    image: npt.NDArray[Any], label: npt.NDArray[Any], mask: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    """The image pale and grey, wrong pixels red, pixels without a label black."""
    pale = 150 + cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * 0.4
    picture = np.repeat(pale.astype(np.uint8)[..., None], 3, axis=2)
    picture[label != mask] = _WRONG
    picture[label == UNLABELLED] = UNLABELLED_COLOR
    return picture
