"""Merges the parts of all bags and builds `report.json`, `frames.jsonl` and `timings.jsonl`."""

import heapq
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from camseg_core.errors import DataError
from camseg_core.evaluation.report.page import plain
from camseg_core.evaluation.scorer import Scorer
from camseg_core.labels import UNLABELLED
from camseg_core.long_runs import atomic_write
from camseg_ros.bag.evaluation import READ, WALL, EvaluationRun, paired
from camseg_ros.bag.frames import read_frames
from camseg_ros.bag.parts import BagPart, ModelInfo
from camseg_ros.bag.report_page import WorstFrame
from camseg_ros.bag.scenario import DROPS, MIOU, P95_MS, Scenario

WORST_FRAMES = 8
FRAMES, TIMINGS = "frames.jsonl", "timings.jsonl"


@dataclass(frozen=True, order=True)
class RankedFrame:
    """A frame by its score: its number over all bags, the number of its bag, its number there."""

    score: float
    index: int
    bag: int
    index_in_bag: int


@dataclass
class Merged:
    """The result of all bags.

    Memory grows only with `latency_ms` and `stages_ms`, which hold a number for each frame.
    """

    info: ModelInfo
    scorer: Scorer
    start_ns: int | None = None
    end_ns: int | None = None
    skipped: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    by_order: int = 0
    noise_removed: int = 0
    worst: list[RankedFrame] = field(default_factory=list)
    latency_ms: "array[float]" = field(default_factory=lambda: array("f"))
    stages_ms: "dict[str, array[float]]" = field(default_factory=dict)
    read_ms: float = 0.0
    wall_ms: float = 0.0


def merge(run: EvaluationRun, out: Path) -> Merged:
    """Merge the parts of the bags in order; write `frames.jsonl` and `timings.jsonl` into `out`.

    Leaves out the bags that failed, and bags that turn out to have nothing to score, which are
    added to `run.failures`.

    Raises:
        DataError: every bag failed; its text is the first failure.
    """
    for number in run.good:
        problem = _nothing_to_score(run, number)
        if problem:
            run.failures[number] = problem
    if not run.good:
        raise DataError(run.failures[min(run.failures)])
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_write(out / name)) for name in (FRAMES, TIMINGS)]
        lines, times = (
            stack.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace"))
            for path in paths
        )
        return _merge(run, lines, times)


def _merge(run: EvaluationRun, lines: IO[str], times: IO[str]) -> Merged:
    first = run.parts.load(min(run.good), 0)
    assert first is not None
    merged = Merged(first.info, Scorer(first.info.scored))
    for number, bag in run.good.items():
        skipped, problem, back = 0, "", 0
        stamps: dict[str, int] = {}  # the last one by frame_id
        for part in run.parts.in_order(number):
            for line in part.lines:
                camera, stamp_ns = line["frame_id"], line["stamp_ns"]
                back += stamp_ns < stamps.get(camera, stamp_ns)
                stamps[camera] = stamp_ns
            merged.scorer.merge(part.scorer)
            skipped, problem = skipped + part.skipped, problem or part.problem
            if part.damage:
                merged.damage.append(part.damage)
            _merge_frames(merged, part, number, bag.path.name, lines, times)
        merged.skipped += skipped
        if skipped:
            images = f"{skipped} image{'s' if skipped > 1 else ''}"
            merged.damage.append(f"{images} of {bag.path} left out, the first: {problem}")
        merged.notes += _uncounted_changes(bag.path, stamps, back)
        if bag.pairs is not None:
            merged.by_order += bag.pairs.by_order
            if bag.pairs.unclear:
                merged.damage.append(
                    f"{bag.pairs.unclear} images of {bag.path} left without a label, as "
                    f"{bag.pairs.example}"
                )
    labelled = [each for each in merged.worst if each.score < 2]
    merged.worst = labelled or merged.worst
    return merged


def _uncounted_changes(path: Path, cameras: Iterable[str], back: int) -> Iterator[str]:
    """Say between which images no change is counted: of several frame_ids, or with stamps back."""
    names = sorted(map(repr, cameras))
    if len(names) > 1:
        yield (
            f"the images of {path} are of several cameras, by their frame_ids {', '.join(names)}: "
            "no change is counted from one to another"
        )
    if back:
        yield (
            f"{back} image{'s' if back > 1 else ''} of {path} with a stamp before that of the "
            "image before: the clock of the camera or the recorder was set back; no change is "
            "counted there"
        )


def _merge_frames(
    merged: Merged, part: BagPart, number: int, bag: str, lines: IO[str], times: IO[str]
) -> None:
    for line, time in zip(part.lines, part.times, strict=True):
        index, in_bag = len(merged.latency_ms), line.pop("index")
        lines.write(json.dumps({"index": index, "bag": bag, **line}, ensure_ascii=False) + "\n")
        _add_times(merged, time)
        merged.noise_removed += line["noise_removed"]
        latency, read = round(merged.latency_ms[-1], 3), round(time[READ], 3)
        times.write(json.dumps({"index": index, "latency_ms": latency, "read_ms": read}) + "\n")
        merged.start_ns = line["stamp_ns"] if merged.start_ns is None else merged.start_ns
        merged.end_ns = line["stamp_ns"]
        # frames with a label rank first, by mean IoU; the others by confidence
        score = line["miou"] if line["miou"] is not None else 2 + line["confidence"]
        ranked = RankedFrame(score, index, number, in_bag)
        merged.worst = heapq.nsmallest(WORST_FRAMES, [*merged.worst, ranked])


def _add_times(merged: Merged, time: dict[str, Any]) -> None:
    stages = {name: ms for name, ms in time.items() if name not in ("index", READ, WALL)}
    merged.latency_ms.append(sum(stages.values()))
    for name, ms in stages.items():
        merged.stages_ms.setdefault(name, array("f")).append(ms)
    merged.read_ms += time[READ]
    merged.wall_ms += time[WALL]


def _nothing_to_score(run: EvaluationRun, number: int) -> str:
    """Return why the bag's parts hold nothing to score, or an empty text."""
    within, bag, reason = run.options.read.within, run.bags[number], ""
    for part in run.parts.in_order(number):
        if part.lines:
            return ""
        reason = reason or part.problem or part.damage
    start, end = within.start_s or 0, within.end_s
    return reason or (
        f"no images on {bag.topic} of the bag {bag.path} from {start:g} s to "
        f"{'its end' if end is None else f'{end:g} s'} after its start; "
        "choose another time range"
    )


def build_report(
    merged: Merged, run: EvaluationRun, drawn: Mapping[str, Any], problems: Sequence[str]
) -> dict[str, Any]:
    """Return everything that was found except the scenario, ready for JSON.

    Numbers are rounded as by `plain`, and None replaces NaN. The same bags and options give the
    same report, apart from `timings`.

    Args:
        merged: the result.
        run: the bags it comes from.
        drawn: the checkpoint and the sampling options, for the section `model`.
        problems: a line for each failure and each damage.
    """
    scorer, info, labels = merged.scorer, merged.info, run.options.read.labels
    matrix, names = scorer.confusion.matrix, [label.name for label in info.scored.labels]
    scored = bool(matrix.any())
    good = list(run.good.values())
    report = {
        "bag": {
            "paths": [bag.path.name for bag in good],
            "topic": ", ".join(dict.fromkeys(bag.topic for bag in good)),
            "topics": [bag.topic for bag in good],
            "labels": str(labels) if labels else None,
            "frames": int(scorer.frames[0]),
            "scored": int(scorer.frames[1]),
            "paired_by_order": merged.by_order,
            "noise_removed": merged.noise_removed,
            "unpaired_labels": labels.unpaired(paired(good)) if labels else "",
            "start_ns": merged.start_ns,
            "end_ns": merged.end_ns,
            "damage": "; ".join(problems),
            **({"notes": "; ".join(merged.notes)} if merged.notes else {}),
        },
        "model": {
            "name": info.name,
            "precision": info.precision,
            "engine": info.engine,
            **drawn,
        },
        "versions": dict(info.versions),
        "scores": _scores(merged) if scored else None,
        "classes": _classes(merged, scored),
        "confusion": {"names": names, "matrix": matrix[:, : len(names)].tolist()}
        if scored
        else None,
        "counted_as": scorer.counted_as(info.labels).to_json(),
        "confidence": {"mean": scorer.mean_confidence(), "p05": scorer.confidence_quantile(0.05)},
        "flicker": {
            "with_truth": scorer.flicker.flicker,
            "change_rate": scorer.flicker.change_rate,
        },
        "compare": _compare(merged) if info.compared is not None else None,
        "scenario": None,
        "worst": [each.index for each in merged.worst],
        "timings": _timings(merged),
    }
    return {name: plain(value) for name, value in report.items()}


def broken_limits(merged: Merged, scenario: Scenario) -> list[str]:
    """Return a line for each limit of the scenario that failed."""
    confusion = merged.scorer.confusion
    p95_ms = float(np.percentile(merged.latency_ms, 95))
    measured = {MIOU: confusion.mean_iou(), P95_MS: p95_ms, DROPS: merged.skipped}
    names = [label.name for label in merged.info.scored.labels]
    return scenario.check(measured, dict(zip(names, confusion.iou().tolist(), strict=True)))


def worst_frames(merged: Merged, run: EvaluationRun) -> list[WorstFrame]:
    """Read and segment the worst frames again; return them, the worst first."""
    model, scored = run.options.models().model, merged.info.scored
    found: dict[int, WorstFrame] = {}
    for number in {each.bag for each in merged.worst}:
        wanted = {each.index_in_bag: each.index for each in merged.worst if each.bag == number}
        bag = run.bags[number]
        with closing(run.options.read.open(bag.path)) as images:
            frames = read_frames(images, run.options.read, only=wanted, pairs=bag.pairs)
            # `wanted` first: then nothing is read after the last of them
            for _, frame in zip(wanted, frames, strict=False):
                assert frame.image is not None
                result, index = model.segment(frame.image), wanted[frame.index]
                label = np.full_like(result.mask, UNLABELLED)
                shown = scored.shown(label if frame.truth is None else frame.truth, result.mask)
                truth = None if frame.truth is None else shown[0]
                found[index] = WorstFrame(index, frame.image, truth, shown[1], result.confidence)
    return [found[each.index] for each in merged.worst]


def _scores(merged: Merged) -> dict[str, float]:
    scorer = merged.scorer
    return {
        "miou": scorer.confusion.mean_iou(),
        "pixel_accuracy": scorer.confusion.accuracy(),
        "boundary_f1": scorer.boundary.mean(),
        "ece": scorer.calibration.error(),
    }


def _classes(merged: Merged, scored: bool) -> list[dict[str, Any]]:
    confusion, counts = merged.scorer.confusion, merged.scorer.predicted
    iou, precision, recall = confusion.iou(), confusion.precision(), confusion.recall()
    labelled, predicted = max(1, int(confusion.matrix.sum())), int(counts.sum())
    return [
        {
            "id": label.id,
            "name": label.name,
            "color": list(label.color),
            "iou": float(iou[i]) if scored else None,
            "precision": float(precision[i]) if scored else None,
            "recall": float(recall[i]) if scored else None,
            "truth_share": int(confusion.labelled[i]) / labelled if scored else None,
            "predicted_share": int(counts[i]) / predicted,
        }
        for i, label in enumerate(merged.info.scored.labels)
    ]


def _compare(merged: Merged) -> dict[str, Any]:
    shares = merged.scorer.agreement_by_class()
    return {
        "model": merged.info.compared,
        "agreement": merged.scorer.agreement_share(),
        "classes": [
            {"name": label.name, "agreement": share}
            for label, share in zip(merged.info.scored.labels, shares, strict=True)
        ],
    }


def _timings(merged: Merged) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(merged.latency_ms, (50, 95, 99)).tolist()
    return {
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(values)) for name, values in merged.stages_ms.items()},
        "read_share": merged.read_ms / merged.wall_ms,
        "seconds": merged.wall_ms / 1000,
    }
