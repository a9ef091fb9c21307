"""A comparison of two models as files: `comparison.json`, and the page `comparison.html`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.data import Sample
from camseg_core.evaluation.comparison import ComparedFrame, ComparedModel, Comparison, Side
from camseg_core.evaluation.intervals import Difference
from camseg_core.evaluation.metrics import mean
from camseg_core.evaluation.report.page import (
    Card,
    drawn_labels,
    plain,
    render,
    rgb,
    shown_classes,
    thumbnail,
    to_json,
    write_files,
)
from camseg_core.evaluation.timing import describe_machine
from camseg_core.labels import UNLABELLED, color_table, train_id_table

PICTURE_WIDTH = 480
"""Largest width of the page's pictures, in pixels."""

_SHOWN = 3
"""Frames with pictures: as many that got better, and as many that got worse."""

_SCORES = {
    "mean_iou": ("mean IoU", 3),
    "pixel_accuracy": ("pixel accuracy", 3),
    "average_precision": ("mean precision", 3),
    "boundary_f1": ("boundary F1", 3),
    "expected_calibration_error": ("calibration error", 3),
    "error_detection_auroc": ("error detection AUROC", 3),
    "mean_confidence": ("mean confidence", 3),
    "flicker": ("flicker: pixels that change class though the true class stays", 4),
    "change_rate": ("pixels that change class from frame to frame", 4),
}
"""Name and digits of each score on the page, by key in `comparison.json`."""

_PRINTED = {
    "expected_calibration_error": "calibration error",
    "mean_confidence": "mean confidence",
    "flicker": "flicker",
    "change_rate": "pixels changed",
}
"""Short names of scores, by key."""


def write_comparison(
    comparisons: Sequence[Comparison],
    folder: Path,
    about: Mapping[str, Any],
    broken: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write `comparison.json` and `comparison.html` into `folder`, and return the JSON content.

    Args:
        comparisons: of the same two models, each on other frames.
        folder: made if missing.
        about: facts about the run to keep, by name.
        broken: the limits that failed; None if there were no limits.

    Raises:
        DataError: the folder cannot be written, or frames cannot be read again for their pictures.
    """
    content = comparison_content(comparisons, about, broken)
    old, new = (side.contender.name for side in comparisons[0].sides)
    page = render(
        str(__package__),
        "comparison.html.j2",
        report=content,
        names=(old, new),
        scores=_SCORES,
        run=[*about.items(), *content["machine"].items()],
        parts=[
            {
                "content": part,
                "cards": _cards(part),
                "colors": {label.name: rgb(label.color) for label in each.sides[1].scorer.labels},
                **_pictures(each),
            }
            for each, part in zip(comparisons, content["parts"], strict=True)
        ],
    )
    write_files(folder, {"comparison.json": to_json(content), "comparison.html": page})
    return content


def comparison_content(
    comparisons: Sequence[Comparison], about: Mapping[str, Any], broken: Sequence[str] | None
) -> dict[str, Any]:
    """Return the content of `comparison.json`: pairs are of the old model and the new one.

    Scores are 0..1, rounded, null where undefined. Everything but `machine` and the
    `timings` of each part is the same in every run of the same models on the same frames.
    """
    content = {
        "models": [_model(side.contender) for side in comparisons[0].sides],
        "about": dict(about),
        "machine": describe_machine(),
        "parts": [_part(each) for each in comparisons],
        "limits": None if broken is None else {"passed": not broken, "failures": list(broken)},
    }
    return dict(plain(content))


def comparison_lines(content: Mapping[str, Any]) -> list[str]:
    """Return the lines to print of `comparison.json`: a table of each part, and its notes."""
    names = [each["title"] for each in content["models"]]
    return [line.rstrip() for part in content["parts"] for line in _lines(part, names)]


def _lines(part: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield f"{part['title']}: {part['frames']} frames, {part['labelled']} with labels"
    rows = [*part["classes"], {"name": "mean", **part["mean_iou"]}] if part["labelled"] else []
    rows = [row for row in rows if row["iou"] != [None, None] and row.get("share") != 0]
    first = max([len("calibration error"), *(len(row["name"]) for row in rows)])
    width = max(12, *map(len, names))

    def line(name: str, pair: Sequence[Any], gain: str, interval: str = "") -> str:
        scores = "  ".join(f"{each:>{width}}" for each in pair)
        return f"{name:{first}}  {scores}  {gain:>10}  {interval}"

    yield line("IoU" if rows else "", names, "difference", "95 % interval")
    for row in rows:
        yield line(
            row["name"],
            [*map(_text, row["iou"])],
            _text(row["difference"], "+"),
            _bounds(row, "+.3f"),
        )
    for key, name in _PRINTED.items():
        old, new = part["scores"][key]
        if None not in (old, new):
            yield line(name, [_text(old), _text(new)], _text(new - old, "+"))
    slow = part["timings"]["slowdown"]
    times = [f"{ms:.1f}" for ms in part["timings"]["p50_ms"]]
    yield line("latency p50, ms", times, f"{slow['value']:.2f} times", _bounds(slow, ".2f"))
    if part["agreement"] is not None:
        yield f"their masks agree on {100 * part['agreement']:.1f} % of the pixels"
    yield from part["notes"]


def _bounds(interval: Mapping[str, float | None], form: str) -> str:
    low, high = interval["low"], interval["high"]
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def _text(score: float | None, sign: str = "") -> str:
    return "–" if score is None else f"{score:{sign}.3f}"


def _model(contender: ComparedModel) -> dict[str, Any]:
    segmenter = contender.segmenter
    return {
        "title": contender.name,
        "name": segmenter.name,
        "engine": segmenter.engine,
        "precision": segmenter.precision,
        "classes": [label.name for label in segmenter.labels],
    }


def _part(found: Comparison) -> dict[str, Any]:
    sides, new = found.sides, found.sides[1].scorer
    ious = [side.scorer.confusion.iou() for side in sides]
    share = new.confusion.labelled / max(1, int(new.confusion.matrix.sum()))
    scores = [_scores(side, found) for side in sides]
    latencies = [side.latency.total() for side in sides]
    return {
        "title": found.footage.title,
        "frames": len(found.frames),
        "labelled": found.labelled,
        "notes": _notes(found),
        "lost_classes": list(found.lost),
        "scores": {key: [each[key] for each in scores] for key in _SCORES},
        "mean_iou": {"iou": [each["mean_iou"] for each in scores], **_interval(found.mean_iou)},
        "classes": [
            {
                "name": label.name,
                "share": float(share[i]),
                "iou": [float(each[i]) for each in ious],
                **_interval(found.iou[i]),
            }
            for i, label in enumerate(new.labels)
        ],
        "timings": {
            **{
                f"{name}_ms": [getattr(each, name) for each in latencies] for name in ("p50", "p95")
            },
            "slowdown": asdict(found.slowdown),
        },
        "agreement": found.agreement,
        "frame_scores": [asdict(each) for each in found.frames],
    }


def _interval(found: Difference) -> dict[str, Any]:
    return {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "significant": found.significant,
    }


def _scores(side: Side, found: Comparison) -> dict[str, float]:
    scorer, confusion = side.scorer, side.scorer.confusion
    boundaries = [each.scorer.boundary.per_class() for each in found.sides]
    bounded = found.judged & (confusion.labelled > 0) & ~np.isnan(boundaries).any(0)
    return {
        "mean_iou": confusion.labelled_mean_iou(found.judged),
        "pixel_accuracy": confusion.accuracy() if found.labelled else math.nan,
        "average_precision": confusion.labelled_precision(found.judged),
        "boundary_f1": mean(scorer.boundary.per_class()[bounded]),
        "expected_calibration_error": scorer.calibration.error(),
        "error_detection_auroc": scorer.error_detection.auroc(),
        "mean_confidence": scorer.mean_confidence(),
        "flicker": scorer.flicker.flicker,
        "change_rate": scorer.flicker.change_rate,
    }


def _notes(found: Comparison) -> list[str]:
    """Say what was counted in another way than each class as itself, or not at all."""
    facts: dict[str, list[str]] = {}  # names of the models by fact
    labels = found.sides[1].scorer.labels
    for side in found.sides:
        own = side.scorer.counted_as(side.contender.segmenter.labels)
        for name, text in own.facts():
            facts.setdefault(f"{name}: {text}", []).append(side.contender.name)
    counted = [f"{of[0]}: {fact}" if len(of) == 1 else fact for fact, of in facts.items()]
    either = np.any([side.scorer.confusion.stray() for side in found.sides], axis=0)
    if stray := [label.name for label, is_so in zip(labels, either, strict=True) if is_so]:
        counted.append(f"in no mean, predicted but never labelled: {', '.join(stray)}")
    return [*found.footage.notes, *found.footage.problems, *counted]


def _cards(part: Mapping[str, Any]) -> list[Card]:
    """The figures at the top of a part: what changed, each with its interval where it has one."""
    cards = []
    total, slow = part["mean_iou"], part["timings"]["slowdown"]
    if total["difference"] is not None:
        text = _bounds(total, "+.3f") or "no interval: too few frames"
        value = f"{total['difference']:+.3f}"
        worse = total["significant"] and total["difference"] < 0
        css = "bad" if worse else "first"
        cards.append(Card(f"mean IoU, new − old ({text})", value, id="mean_iou", css=css))
    for key, label in _PRINTED.items():
        old, new = part["scores"][key]
        if None not in (old, new):
            cards.append(Card(f"{label}, new − old", f"{new - old:+.4f}", id=key))
    interval = _bounds(slow, ".2f") or "no interval: too few frames"
    cards.append(
        Card(f"latency, new / old ({interval})", f"{slow['value']:.2f}", "times", "slowdown")
    )
    if part["agreement"] is not None:
        cards.append(Card("masks agree", f"{100 * part['agreement']:.1f}", "%", "agreement"))
    return cards


def _pictures(found: Comparison) -> dict[str, Any]:
    """Return the frames to show with their pictures, and the classes in these.

    With labels, they are those that got better and worse; without, those with the least agreement.
    """
    chosen = _chosen(found.frames)
    samples = found.footage.pick([number for numbers in chosen.values() for number in numbers])
    labels = found.sides[1].scorer.labels
    colors, seen = color_table(drawn_labels(labels)), []
    shown = []
    for title, numbers in chosen.items():
        frames = []
        for number in numbers:
            frame, sample = found.frames[number], samples[number]
            named = {"image": sample.image}
            if not math.isnan(frame.change):
                truth = found.sides[1].contender.scored.truth_of(sample.label)
                named["label"] = train_id_table(labels)[truth]
            named |= {side.contender.name: _mask(side, sample) for side in found.sides}
            seen += [picture for name, picture in named.items() if name != "image"]
            pictures = [
                (key, thumbnail(each, PICTURE_WIDTH, colors)) for key, each in named.items()
            ]
            frames.append((frame, pictures))
        if frames:
            shown.append((title, frames))
    return {"shown": shown, "legend": shown_classes(labels, seen)}


def _chosen(frames: Sequence[ComparedFrame]) -> dict[str, list[int]]:
    """Return the numbers of the frames to show, by what they have in common."""
    known = [i for i, frame in enumerate(frames) if not math.isnan(frame.change)]
    if known:
        known.sort(key=lambda i: -frames[i].change)
        return {
            "better": [i for i in known[:_SHOWN] if frames[i].change > 0],
            "worse": [i for i in known[::-1][:_SHOWN] if frames[i].change < 0],
        }
    unlike = [i for i, frame in enumerate(frames) if frame.agreement < 1]
    unlike.sort(key=lambda i: frames[i].agreement)
    return {"most different": unlike[:_SHOWN]}


def _mask(side: Side, sample: Sample) -> Any:
    """Return a model's mask in ids of the scored labels, 255 where none stands for its class."""
    scored = side.contender.scored
    known = (sample.label != UNLABELLED).any()
    truth = scored.truth_of(sample.label) if known else None
    places = scored.predicted_of(side.contender.segmenter.segment(sample.image).mask, truth)
    return np.asarray(train_id_table(scored.labels)[places], np.uint8)
