"""Evaluates bags in this process, part by part, so that it can be stopped and go on later."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camseg_core.errors import CamSegError, DataError
from camseg_ros.bag.evaluation import Evaluating, evaluate_frames
from camseg_ros.bag.parts import ModelFacts, Part, PartFolder
from camseg_ros.bag.read import BagDamaged
from camseg_ros.bag.tally import Tally

PART_FRAMES = 200
"""So many frames a part has: the most that are lost when the process is killed."""


class Stopped(CamSegError):
    """Someone asked the evaluation to stop; what was done is kept."""


@dataclass(frozen=True)
class BagFacts:
    """What is known of a bag before it is evaluated: its topic, and how many images it claims to have."""

    path: Path
    topic: str
    count: int


def look_at(bag: Path, evaluating: Evaluating) -> BagFacts:
    """Open the bag and its labels, so that what is missing is told before the work.

    Raises:
        DataError: there is nothing to evaluate.
    """
    reading = evaluating.reading
    images = reading.open(bag)
    images.close()
    if reading.labels is not None:
        reading.labels.open(bag, salvage=True).close()
    if not images.count:
        raise DataError(
            f"no images on {images.topic} of the bag {bag}; was the camera running when it was recorded?"
        )
    return BagFacts(bag, images.topic, images.count)


def evaluate_here(
    bags: Sequence[tuple[int, BagFacts]],
    evaluating: Evaluating,
    parts: PartFolder,
    failures: dict[int, str],
    stopping: Callable[[], str | None],
) -> Iterator[int]:
    """Evaluate what is not yet in `parts`, yielding the number of the bag with every frame.

    Args:
        bags: with the number of each.
        evaluating: what to do.
        parts: where the results go.
        failures: gets, by number, why a bag cannot be evaluated; the other bags are.
        stopping: asked after every frame; a reason to stop, or None.

    Raises:
        Stopped: there was a reason to stop.
    """
    for number, bag in bags:
        try:
            for _ in _evaluate_bag(number, bag, evaluating, parts, stopping):
                yield number
        except DataError as error:
            failures[number] = str(error)


def _evaluate_bag(
    number: int,
    bag: BagFacts,
    evaluating: Evaluating,
    parts: PartFolder,
    stopping: Callable[[], str | None],
) -> Iterator[None]:
    start = 0
    for done in parts.in_order(number):
        if done.ended:
            return
        start = done.stop
    facts = ModelFacts.of(evaluating.models())
    part = _empty(start, facts)
    try:
        for result in evaluate_frames(bag.path, evaluating, start):
            part.add(result)
            yield
            reason = stopping()
            if reason is not None or part.stop - part.start >= PART_FRAMES:
                parts.save(number, part)
                part = _empty(part.stop, facts)
            if reason is not None:
                where = f"image {part.stop} of {bag.count} of {bag.path}"
                raise Stopped(
                    f"stopped after {where} ({reason}); the same command goes on from there"
                )
    except BagDamaged as error:
        part.damage = str(error)
    part.ended = True
    parts.save(number, part)


def evaluate_part(bag: Path, evaluating: Evaluating, start: int, stop: int | None) -> Part:
    """The images of the bag from number `start` to before `stop`, or to the end.

    Raises:
        DataError: they cannot be evaluated.
    """
    part = _empty(start, ModelFacts.of(evaluating.models()))
    try:
        for result in evaluate_frames(bag, evaluating, start):
            if stop is not None and result.index >= stop:
                part.stop = stop
                return part
            part.add(result)
            if result.index + 1 == stop:
                return part
    except BagDamaged as error:
        part.damage = str(error)
    part.ended = True
    return part


def _empty(start: int, facts: ModelFacts) -> Part:
    return Part(start, start, facts, Tally.empty(len(facts.labels)))
