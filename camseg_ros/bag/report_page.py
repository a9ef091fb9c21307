"""`report.html` of an evaluated bag: one file that shows everything, runs no script and can ask no network for anything.

What the page says comes out of a recording, so no text of it is trusted: the template escapes all, and the page's own policy allows no
request and no script even if something got through. Every figure has `data-metric`, so that programs can read it back as it is shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.report.charts import elapsed
from camseg_core.evaluation.report.page import data_uri, environment, number, percent
from camseg_core.labels import Label, color_table
from camseg_core.runtime.overlay import colorize
from camseg_ros.bag.charts import CHART, ROW, SPARK, Chart, Frames, chart, presence, spark
from camseg_ros.bag.timeline import Timeline

PICTURE_WIDTH = 560
"""Pictures in the page are at most so many pixels wide."""

SCORES = {
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f1": "boundary F1",
    "ece": "calibration error (ECE)",
}
"""What the scores are called; one that is not here is called by its key."""


@dataclass(frozen=True)
class WorstFrame:
    """A frame that is shown: its `image` `(H, W, 3)` RGB, `truth` and `mask` `(H, W)` class ids, `confidence` `(H, W)` from 0 to 1."""

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
        report: what `report.json` holds.
        frames: one mapping a frame, in order, as `frames.jsonl` holds them; any number, for they are read once and not kept.
        worst: the frames to show, the worst first; their figures are taken from `frames`.

    Raises:
        DataError: the file cannot be written.
    """
    names = [each["name"] for each in report["classes"]]
    timeline, figures = _read(frames, names, {each.index for each in worst})
    template = environment().from_string(
        files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    colors = {
        each["name"]: "rgb({},{},{})".format(*map(int, each["color"])) for each in report["classes"]
    }
    html = template.render(
        report=report,
        cards=_cards(report),
        stages=_stages(report["timings"].get("stages_ms") or {}),
        timeline=timeline,
        colors=colors,
        table=_time_table(timeline),
        charts=[each for each in _charts(timeline, report, figures) if each],
        changed=chart(
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
        axis=Frames(timeline.bins).ticks(ROW),
        row=ROW,
        spark=SPARK,
        plot=CHART,
        confusion=_confusion_rows(report["confusion"]),
        worst=_worst(worst, figures, report, timeline),
        span=_span(report["bag"]),
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    try:
        # names of files and topics may hold what is not text; that must not cost the report
        path.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error


def _read(
    frames: Iterable[Mapping[str, Any]], names: Iterable[str], kept: set[int]
) -> tuple[Timeline, dict[int, Mapping[str, Any]]]:
    """The frames as a timeline, and the figures of those that are shown."""
    timeline = Timeline(names)
    figures: dict[int, Mapping[str, Any]] = {}
    for frame in frames:
        timeline.add(frame)
        if frame["index"] in kept:
            figures[frame["index"]] = frame
    return timeline, figures


@dataclass(frozen=True)
class _Card:
    """A figure at the top of the page: its hook, its text and unit, and what it is."""

    metric: str
    text: str
    label: str
    unit: str = ""


def _cards(report: Mapping[str, Any]) -> list[_Card]:
    scores, bag, compare = report["scores"], report["bag"], report["compare"]
    labelled = {
        name: value
        for name, value in (scores or {}).items()
        if value is None or isinstance(value, int | float)
    }
    cards = [
        _Card(name, number(value), SCORES.get(name, name.replace("_", " ")))
        for name, value in labelled.items()
    ]
    if compare:
        cards.append(
            _Card("agreement", percent(compare["agreement"]), f"agreement with {compare['model']}")
        )
    cards.append(_Card("confidence.mean", number(report["confidence"]["mean"]), "mean confidence"))
    if report["flicker"]["with_truth"] is not None:
        cards.append(
            _Card("flicker", percent(report["flicker"]["with_truth"]), "flicker, see below")
        )
    latency = report["timings"].get("latency_ms") or {}
    cards += [
        _Card(f"latency_ms.{each}", number(latency.get(each), 1), f"latency {each}", "ms")
        for each in ("p50", "p95")
        if latency
    ]
    of = f"frames, {bag['scored']} with labels" if scores else "frames"
    return [*cards, _Card("frames", str(bag["frames"]), of)]


def _stages(stages: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of every stage its percentiles; a lone number is the median."""
    return {
        stage: dict(ms) if isinstance(ms, Mapping) else {"p50": ms} for stage, ms in stages.items()
    }


def _charts(
    timeline: Timeline, report: Mapping[str, Any], figures: Mapping[int, Mapping[str, Any]]
) -> list[Chart | None]:
    def marks(name: str) -> list[tuple[int, float, str]]:
        return [
            (i, each[name], f"frame {i}, shown below: {number(each[name])}")
            for i, each in figures.items()
            if each.get(name) is not None
        ]

    p99 = (report["timings"].get("latency_ms") or {}).get("p99")
    return [
        chart(timeline, "miou", "Mean IoU", number, top=1, marks=marks("miou")),
        chart(
            timeline,
            "confidence",
            "Mean confidence",
            number,
            top=1,
            marks=[] if timeline.total("miou") else marks("confidence"),
        ),
        chart(timeline, "latency_ms", "Latency in ms", lambda ms: f"{ms:.1f} ms", usual=p99),
    ]


def _presence(timeline: Timeline, names: Iterable[str]) -> list[dict[str, Any]]:
    """Of every class that the masks have, most pixels first: when it is there, in how many frames and with what share."""
    rows = []
    for name in names:
        share, present = timeline.total("share", name), timeline.total("present", name)
        if share and present and present.total:
            area, line = presence(timeline, name)
            rows.append(
                {
                    "name": name,
                    "area": area,
                    "line": line,
                    "frames": int(present.total),
                    "mean": share.mean,
                    "most": share.high,
                }
            )
    return sorted(rows, key=lambda each: -each["mean"])


def _time_table(timeline: Timeline) -> dict[str, Any]:
    """The charts' figures as a table: the names of those that there are, and the bins."""
    columns = {
        "miou": ("mean IoU", number),
        "pixel_accuracy": ("pixel accuracy", number),
        "confidence": ("confidence", number),
        "changed": ("changed pixels", percent),
        "latency_ms": ("latency in ms", lambda ms: number(ms, 1)),
    }
    there = {name: column for name, column in columns.items() if timeline.total(name)}
    start_ns = timeline.bins[0].stamp_ns if timeline.bins else 0
    rows = [
        (
            each,
            elapsed((each.stamp_ns - start_ns) / 1e9),
            {name: each.spreads.get((name, "")) for name in there},
        )
        for each in timeline.bins
    ]
    return {"columns": there, "rows": rows}


def _confusion_rows(confusion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The confusion matrix as shares of its rows, without the classes that occur nowhere; None without labels."""
    if confusion is None:
        return None
    pixels = np.array(confusion["matrix"], np.int64)
    names = [
        *confusion["names"],
        "no class",
    ]  # pixels that the mask leaves without one may have a column of their own
    occurs = pixels.sum(1) + pixels.sum(0)[: len(pixels)] > 0
    shown = np.flatnonzero(occurs)
    columns = [*shown, *(i for i in range(len(pixels), pixels.shape[1]) if pixels[:, i].any())]
    rows = []
    for i in shown:
        whole = int(pixels[i].sum())
        rows.append(
            (
                names[i],
                whole,
                [
                    (
                        names[j],
                        j == i,
                        int(pixels[i, j]),
                        float(pixels[i, j] / whole) if whole else None,
                    )
                    for j in columns
                ],
            )
        )
    return {"columns": [names[j] for j in columns], "rows": rows}


def _worst(
    worst: Sequence[WorstFrame],
    figures: Mapping[int, Mapping[str, Any]],
    report: Mapping[str, Any],
    timeline: Timeline,
) -> list[dict[str, Any]]:
    labels = [(each["id"], each["name"], each["color"]) for each in report["classes"]]
    colors = color_table(
        [Label(i, name, (red, green, blue)) for i, name, (red, green, blue) in labels]
    )
    start_ns = timeline.bins[0].stamp_ns if timeline.bins else 0
    shown = []
    for each in worst:
        about = figures.get(each.index, {})
        after = elapsed((about["stamp_ns"] - start_ns) / 1e9) if "stamp_ns" in about else ""
        shown.append(
            {
                "index": each.index,
                "about": about,
                "after": after,
                "pictures": _pictures(each, colors),
            }
        )
    return shown


def _pictures(frame: WorstFrame, colors: npt.NDArray[np.uint8]) -> list[tuple[str, str]]:
    """What to show of a frame: what each picture is, and the picture; all have one size."""
    height, width = frame.mask.shape
    scale = min(1.0, PICTURE_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def ids(mask: npt.NDArray[np.uint8]) -> str:
        return data_uri(
            colorize(
                np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8),
                colors,
            ),
            "png",
        )

    confidence = cv2.resize(frame.confidence.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    levels = (255 * np.clip(np.nan_to_num(confidence), 0, 1)).round().astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    pictures = [
        ("image", data_uri(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), "jpeg"))
    ]
    if frame.truth is not None:
        pictures.append(("truth", ids(frame.truth)))
    return [*pictures, ("mask", ids(frame.mask)), ("confidence", data_uri(heat, "jpeg"))]


def _span(bag: Mapping[str, Any]) -> str:
    """When it was recorded and for how long; nothing where the clock was never set."""
    start_ns, end_ns = bag.get("start_ns"), bag.get("end_ns")
    if start_ns is None or end_ns is None:
        return ""
    length = elapsed((end_ns - start_ns) / 1e9)
    try:
        start = datetime.fromtimestamp(start_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):
        return length
    return f"{length} from {start}" if start_ns > 10**18 else length
