"""`report.html` of an evaluated bag: a self-contained page without scripts.

Names on the page come from a recording and are not trusted: the template escapes them, and the
page's content security policy allows no request and no script even if one got through. Every figure
has `data-metric`, so that programs can read it back as shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.report.charts import Chart, elapsed
from camseg_core.evaluation.report.page import (
    Card,
    confusion_rows,
    number,
    percent,
    render,
    rgb,
    shown_classes,
    thumbnail,
)
from camseg_core.evaluation.report.timeline import (
    ROW,
    SPARK,
    FrameAxis,
    Timeline,
    frames_chart,
    presence,
    spark,
)
from camseg_core.evaluation.scorer import CountedAs, never_labelled_facts, noise_facts
from camseg_core.labels import Label, color_table

PICTURE_WIDTH = 560
"""Largest width of the page's pictures, in pixels."""

SCORES = {
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "boundary F1",
    "ece": "calibration error (ECE)",
}
"""Names of scores; others are called by their key."""


@dataclass(frozen=True)
class WorstFrame:
    """A frame to show.

    `image` is RGB `(H, W, 3)`, `truth` and `mask` are class ids `(H, W)`, `confidence` is `(H, W)`,
    0..1.
    """

    index: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8] | None
    mask: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]


def write_page(
    path: Path,
    report: Mapping[str, Any],
    frames: Iterable[Mapping[str, Any]],
    worst: Sequence[WorstFrame],
) -> None:
    """Write the page of an evaluation.

    Args:
        path: the file to write.
        report: the content of `report.json`.
        frames: the entries of `frames.jsonl`, in order; read once and not kept.
        worst: the frames to show, the worst first; their figures are taken from `frames`.

    Raises:
        DataError: the file cannot be written.
    """
    labels = [Label(each["id"], each["name"], tuple(each["color"])) for each in report["classes"]]
    names = [label.name for label in labels]
    timeline, figures = Timeline(names), {}
    shown = {each.index for each in worst}
    for frame in frames:
        timeline.add(frame)
        if frame["index"] in shown:
            figures[frame["index"]] = frame
    confusion = report["confusion"]
    html = render(
        str(__package__),
        "report.html.j2",
        report=report,
        cards=_cards(report),
        stages=_stages(report["timings"].get("stages_ms") or {}),
        timeline=timeline,
        colors={label.name: rgb(label.color) for label in labels},
        legend=shown_classes(labels, _ids(worst)),
        table=_time_table(timeline),
        charts=_charts(timeline, report, figures),
        changed=frames_chart(
            timeline,
            "changed",
            "Pixels whose class changes from one frame to the next",
            percent,
            unit="%",
        ),
        sparks={
            name: spark(timeline, "iou", name) for name in names if timeline.total("iou", name)
        },
        presence=_presence(timeline, names),
        axis=FrameAxis(timeline.bins, ROW).ticks(),
        row=ROW,
        spark=SPARK,
        confusion=confusion and confusion_rows(confusion["names"], confusion["matrix"]),
        worst=_worst(worst, figures, timeline, color_table(labels)),
        span=_span(report["bag"]),
        run=_run(report),
        facts=counting_facts(report) if report["scores"] else [],
    )
    try:
        # names of files and topics may hold what is not text; that must not cost the report
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error


def _ids(worst: Sequence[WorstFrame]) -> list[npt.NDArray[np.uint8]]:
    return [ids for each in worst for ids in (each.truth, each.mask) if ids is not None]


def _cards(report: Mapping[str, Any]) -> list[Card]:
    def card(metric: str, text: str, label: str, unit: str = "") -> Card:
        return Card(label, text, unit, metric=metric, css="first" if metric == "miou" else "")

    scores, bag, compare = report["scores"] or {}, report["bag"], report["compare"]
    cards = [
        card(name, number(value), SCORES.get(name, name.replace("_", " ")))
        for name, value in scores.items()
        if value is None or isinstance(value, int | float)
    ]
    if compare:
        agreement = percent(compare["agreement"])
        cards.append(card("agreement", agreement, f"agreement with {compare['model']}"))
    cards.append(card("confidence.mean", number(report["confidence"]["mean"]), "mean confidence"))
    if report["flicker"]["with_truth"] is not None:
        cards.append(
            card("flicker", percent(report["flicker"]["with_truth"]), "flicker, see below")
        )
    latency = report["timings"].get("latency_ms") or {}
    cards += [
        card(f"latency_ms.{each}", number(latency.get(each), 1), f"latency {each}", "ms")
        for each in ("p50", "p95")
        if latency
    ]
    of = f"frames, {bag['scored']} with labels" if scores else "frames"
    return [*cards, card("frames", str(bag["frames"]), of)]


def counting_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return as name and text what counted in another way than each class as itself."""
    # only labelled classes have a recall
    names = [
        each["name"]
        for each in report["classes"]
        if each["iou"] is not None and each["recall"] is None
    ]
    left_out, notes = (report["bag"].get(key) or "" for key in ("unpaired_labels", "notes"))
    return [
        *([("changes", notes)] if notes else []),
        *([("labels left out", left_out)] if left_out else []),
        *CountedAs(**report["counted_as"]).facts(),
        *never_labelled_facts(names),
        *noise_facts(report["bag"].get("noise_removed", 0), report["bag"]["frames"]),
    ]


def _run(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    bag = report["bag"]
    model = {key.replace("_", " "): value for key, value in report["model"].items()}
    by_order = bag.get("paired_by_order")
    order = f" (of {by_order} images whose stamps repeat by their order)" if by_order else ""
    topics = bag.get("topics", ())
    several = len({*topics}) > 1
    of_bags = [f"{topic} of {path}" for topic, path in zip(topics, bag["paths"], strict=several)]
    return [
        ("recording", ", ".join(bag["paths"])),
        ("images", ", ".join(of_bags) if several else bag["topic"]),
        ("labels", (bag["labels"] or "none given") + order),
        ("model", model.pop("name")),
        *model.items(),
        *counting_facts(report),
        *report["versions"].items(),
    ]


def _stages(stages: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Percentiles by stage; a lone number is the median."""
    return {
        stage: dict(ms) if isinstance(ms, Mapping) else {"p50": ms} for stage, ms in stages.items()
    }


def _charts(
    timeline: Timeline, report: Mapping[str, Any], figures: Mapping[int, Mapping[str, Any]]
) -> dict[str, Chart]:
    def marks(name: str) -> list[tuple[int, float, str]]:
        return [
            (i, each[name], f"frame {i}, shown below: {number(each[name])}")
            for i, each in figures.items()
            if each.get(name) is not None
        ]

    marked = "miou" if timeline.total("miou") else "confidence"
    p99 = (report["timings"].get("latency_ms") or {}).get("p99")
    charts = {"latency_ms": ("Latency in ms", lambda ms: f"{ms:.1f} ms", None, p99)}
    scores = {
        "miou": ("Mean IoU", number, 1, None),
        "confidence": ("Mean confidence", number, 1, None),
    }
    drawn = {
        name: frames_chart(
            timeline, name, label, text, top, usual, marks(name) if name == marked else ()
        )
        for name, (label, text, top, usual) in (scores | charts).items()
    }
    return {name: chart for name, chart in drawn.items() if chart and len(timeline.bins) > 1}


def _presence(timeline: Timeline, names: Iterable[str]) -> list[dict[str, Any]]:
    """Where and how much the masks have each class, the largest mean share first."""
    rows = []
    for name in names:
        share, present = timeline.total("share", name), timeline.total("present", name)
        if share and present and present.total:
            area, line = presence(timeline, name)
            row = {"name": name, "area": area, "line": line, "frames": int(present.total)}
            rows.append(row | {"mean": share.mean, "most": share.high})
    return sorted(rows, key=lambda each: -each["mean"])


def _time_table(timeline: Timeline) -> dict[str, Any]:
    """The charts' figures as a table: the columns that have values, and a row per bin."""
    columns = {
        "miou": ("mean IoU", number),
        "pixel_accuracy": ("pixel accuracy", number),
        "confidence": ("confidence", number),
        "changed": ("changed pixels", percent),
        "latency_ms": ("latency in ms", lambda ms: number(ms, 1)),
    }
    shown = {name: column for name, column in columns.items() if timeline.total(name)}
    rows = []
    for each in timeline.bins:
        after = elapsed((each.stamp_ns - timeline.bins[0].stamp_ns) / 1e9)
        rows.append((each, after, {name: each.spreads.get((name, "")) for name in shown}))
    return {"columns": shown, "rows": rows}


def _worst(
    worst: Sequence[WorstFrame],
    figures: Mapping[int, Mapping[str, Any]],
    timeline: Timeline,
    colors: npt.NDArray[np.uint8],
) -> list[dict[str, Any]]:
    start_ns = timeline.bins[0].stamp_ns if timeline.bins else 0
    shown = []
    for each in worst:
        about = figures.get(each.index, {})
        after = elapsed((about["stamp_ns"] - start_ns) / 1e9) if "stamp_ns" in about else ""
        pictures = {
            "image": each.image,
            "truth": each.truth,
            "mask": each.mask,
            "confidence": each.confidence.astype(np.float32),
        }
        thumbnails = [
            (name, thumbnail(picture, PICTURE_WIDTH, colors))
            for name, picture in pictures.items()
            if picture is not None
        ]
        row = {"index": each.index, "about": about, "after": after, "pictures": thumbnails}
        shown.append(row)
    return shown


def _span(bag: Mapping[str, Any]) -> str:
    """When it was recorded and for how long; only how long if the clock was never set."""
    start_ns, end_ns = bag.get("start_ns"), bag.get("end_ns")
    if start_ns is None or end_ns is None:
        return ""
    length = elapsed((end_ns - start_ns) / 1e9)
    try:
        start = datetime.fromtimestamp(start_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):
        return length
    return f"{length} from {start}" if start_ns > 10**18 else length
