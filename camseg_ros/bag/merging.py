"""The parts of all bags as one result: sums of whole numbers, and a line for each frame on disk."""

import heapq
import json
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from camseg_core.atomic_write import atomic_write
from camseg_core.errors import DataError
from camseg_ros.bag.evaluate import BagFacts
from camseg_ros.bag.evaluation import READ, WALL, Evaluating
from camseg_ros.bag.labels import seconds
from camseg_ros.bag.parts import ModelFacts, PartFolder
from camseg_ros.bag.tally import Tally

WORST = 8
"""So many of the worst frames are shown."""

FRAMES, TIMINGS = "frames.jsonl", "timings.jsonl"


@dataclass(frozen=True, order=True)
class Worst:
    """A frame to look at: its score, its number over all bags, that of its bag, and its number there."""

    score: float
    index: int
    bag: int
    index_in_bag: int


@dataclass
class Merged:
    """Everything that was found.

    `latency_ms` and `stages_ms` hold a number for each frame, which is all of it that grows with the bags.
    """

    facts: ModelFacts
    tally: Tally
    start_ns: int | None = None
    end_ns: int | None = None
    skipped: int = 0
    damage: list[str] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)
    latency_ms: "array[float]" = field(default_factory=lambda: array("f"))
    stages_ms: "dict[str, array[float]]" = field(default_factory=dict)
    read_ms: float = 0.0
    wall_ms: float = 0.0


def merge(
    bags: Sequence[tuple[int, BagFacts]],
    parts: PartFolder,
    evaluating: Evaluating,
    failures: dict[int, str],
    out: Path,
) -> Merged:
    """Add up the parts of the bags in their order and write `frames.jsonl` and `timings.jsonl` into `out`.

    Args:
        bags: as they were evaluated; those in `failures` are left out.
        parts: what was found of them.
        evaluating: what was done.
        failures: gets the bags that turn out to have nothing to score.
        out: the folder.

    Raises:
        DataError: nothing is left of any bag; its text is the first failure.
    """
    for number, bag in bags:
        if number not in failures:
            problem = _nothing_in(number, bag, parts, evaluating)
            if problem:
                failures[number] = problem
    good = [(number, bag) for number, bag in bags if number not in failures]
    if not good:
        raise DataError(failures[min(failures)])
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_write(out / name)) for name in (FRAMES, TIMINGS)]
        lines, times = (stack.enter_context(path.open("w", encoding="utf-8")) for path in paths)
        return _merge(good, parts, lines, times)


def _merge(
    bags: Sequence[tuple[int, BagFacts]], parts: PartFolder, lines: IO[str], times: IO[str]
) -> Merged:
    first = parts.load(bags[0][0], 0)
    assert first is not None
    merged = Merged(first.facts, Tally.empty(len(first.facts.labels)))
    index = 0
    for number, bag in bags:
        skipped, problem = 0, ""
        for part in parts.in_order(number):
            merged.tally.add(part.tally)
            skipped, problem = skipped + part.skipped, problem or part.problem
            if part.damage:
                merged.damage.append(part.damage)
            for line, time in zip(part.lines, part.times, strict=True):
                in_bag = line.pop("index")
                lines.write(
                    json.dumps({"index": index, "bag": bag.path.name, **line}, ensure_ascii=False)
                    + "\n"
                )
                _add_times(merged, time)
                times.write(
                    json.dumps(
                        {
                            "index": index,
                            "latency_ms": round(merged.latency_ms[-1], 3),
                            "read_ms": round(time[READ], 3),
                        }
                    )
                    + "\n"
                )
                merged.start_ns = line["stamp_ns"] if merged.start_ns is None else merged.start_ns
                merged.end_ns = line["stamp_ns"]
                _add_worst(merged, line, index, number, in_bag)
                index += 1
        merged.skipped += skipped
        if skipped:
            merged.damage.append(
                f"{skipped} image{'s' if skipped > 1 else ''} of {bag.path} left out, the first: {problem}"
            )
    labelled = [each for each in merged.worst if each.score < 2]
    merged.worst = labelled or merged.worst
    return merged


def _add_times(merged: Merged, time: dict[str, Any]) -> None:
    stages = {name: ms for name, ms in time.items() if name not in ("index", READ, WALL)}
    merged.latency_ms.append(sum(stages.values()))
    for name, ms in stages.items():
        merged.stages_ms.setdefault(name, array("f")).append(ms)
    merged.read_ms += time[READ]
    merged.wall_ms += time[WALL]


def _add_worst(merged: Merged, line: dict[str, Any], index: int, bag: int, in_bag: int) -> None:
    """Frames with a label come first, by their mean IoU; the others, by confidence, where none has one."""
    score = line["miou"] if line["miou"] is not None else 2 + line["confidence"]
    merged.worst = heapq.nsmallest(WORST, [*merged.worst, Worst(score, index, bag, in_bag)])


def _nothing_in(number: int, bag: BagFacts, parts: PartFolder, evaluating: Evaluating) -> str:
    """Why the bag's parts have nothing to count; empty if they have."""
    frames = labelled = skipped = 0
    first_ns, last_ns, reason = None, None, ""
    for part in parts.in_order(number):
        frames += int(part.tally.frames[0])
        labelled += int(part.tally.frames[1])
        skipped += part.skipped
        reason = reason or part.problem or part.damage
        if part.lines:
            first_ns = part.lines[0]["stamp_ns"] if first_ns is None else first_ns
            last_ns = part.lines[-1]["stamp_ns"]
    reading = evaluating.reading
    if not frames:
        stretch = f"from {reading.start_s or 0:g} s to {'its end' if reading.end_s is None else f'{reading.end_s:g} s'}"
        return (
            reason
            or f"no images on {bag.topic} of the bag {bag.path} {stretch} after its start; name another stretch of time"
        )
    if reading.labels is None or labelled:
        return ""
    assert first_ns is not None
    assert last_ns is not None
    labels = reading.labels.open(bag.path, salvage=True)
    labels.at(first_ns)
    first = labels.first_ns()
    labels.close()
    where = f"no label of {reading.labels} is within {reading.labels.tolerance_ns / 1e6:g} ms of an image of the bag {bag.path}"
    has = "there are no labels" if first is None else f"the first label at {seconds(first)}"
    return f"{where}: images are stamped {seconds(first_ns)} to {seconds(last_ns)}, {has}; were they stamped by two clocks? (--tolerance)"
