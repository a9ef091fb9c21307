"""Evaluates bags part by part, so that an evaluation can be stopped and resumed."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camseg_core.cli.console import say
from camseg_core.errors import CamSegError, DataError, camseg_command, memory_for
from camseg_core.evaluation.scorer import CONFIDENCE_STEPS, Scorer
from camseg_core.evaluation.timing import WarmUp
from camseg_core.groups import ScoredLabels, as_scored
from camseg_core.runtime.segmenter import Segmenter
from camseg_ros.bag.frames import DecodedFrame, ReadOptions, read_frames
from camseg_ros.bag.labels import Ids
from camseg_ros.bag.pairs import Pairs
from camseg_ros.bag.parts import BagPart, ModelInfo, PartFolder, ScoredFrame, versions
from camseg_ros.bag.read import BagDamaged

PART_FRAMES = 200
"""Images in a part: at most this many are lost when the process is killed."""

READ, WALL = "read", "wall"
"""Names in `ScoredFrame.times` of reading with decoding, and of everything together.

The other names are stages of the model.
"""


class EvaluationStopped(CamSegError):
    """The evaluation was asked to stop; what it has found so far is saved."""


@dataclass(frozen=True)
class Models:
    """The loaded models; `compare` is the one to compare with, if any."""

    model: Segmenter
    compare: Segmenter | None
    warm_up: WarmUp = field(default_factory=WarmUp)


_loaded: dict[str, tuple["EvaluationOptions", Models]] = {}


@dataclass(frozen=True)
class EvaluationOptions:
    """What to do with every frame.

    Sent to other processes, so `load` and `compare` must be functions of a module, or a
    `functools.partial` of one. `keep_masks` stores the masks, to write them into a bag. `over` is
    what to score the masks over, the model's classes if None.
    """

    read: ReadOptions
    load: Callable[[], Segmenter]
    compare: Callable[[], Segmenter] | None = None
    keep_masks: bool = False
    over: ScoredLabels | None = None

    @property
    def info(self) -> ModelInfo:
        """What the report says about the models."""
        models = self.models()
        model, compare = models.model, models.compare
        scored = as_scored(model.labels) if self.over is None else self.over
        compared = None if compare is None else compare.name
        engine = model.name, model.engine, model.precision
        return ModelInfo(*engine, tuple(model.labels), scored, compared, versions())

    def models(self) -> Models:
        """Return the models, loaded once in a process."""
        key = repr((self.load, self.compare))  # a copy sent to this process again has the same
        if key not in _loaded:
            models = Models(self.load(), self.compare() if self.compare is not None else None)
            _loaded.clear()
            _loaded[key] = self, models
        return _loaded[key][1]


@dataclass(frozen=True)
class BagInfo:
    """A bag before its evaluation.

    Attributes:
        path: the bag.
        topic: its image topic.
        count: how many images it claims to have.
        pairs: the labels of the images; None without labels, or if they are not known yet.
        note: why its topic was chosen of several, empty if it was named or is the only one.
        files: the files that hold its messages, without links.
    """

    path: Path
    topic: str
    count: int
    pairs: Pairs | None = None
    note: str = ""
    files: tuple[Path, ...] = ()


@dataclass
class EvaluationRun:
    """Bags to evaluate, by number, and where the results go.

    Attributes:
        options: what to do.
        bags: the bags by number.
        parts: holds the results.
        failures: by number, why a bag cannot be evaluated; the other bags still are.
    """

    options: EvaluationOptions
    bags: dict[int, BagInfo]
    parts: PartFolder
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def good(self) -> dict[int, BagInfo]:
        """The bags that have not failed."""
        return {number: bag for number, bag in self.bags.items() if number not in self.failures}


def inspect_bag(bag: Path, read: ReadOptions) -> BagInfo:
    """Open the bag and its labels, so that what is missing is reported before the work starts.

    Raises:
        DataError: there is nothing to evaluate.
    """
    with read.open(bag) as images:
        if not images.count:
            raise DataError(
                f"no images on {images.topic} of the bag {bag}; "
                "was the camera running when it was recorded?"
            )
        pairs = None
        if read.labels is not None:
            pairs = read.labels.pair(images, read.within)
            read.labels.check(pairs, images, read.within)
        return BagInfo(bag, images.topic, images.count, pairs, images.note, images.files)


def paired(bags: Iterable[BagInfo]) -> list[tuple[Path, Pairs]]:
    """Return the bags that have labels, for `LabelSource.unpaired`."""
    return [(bag.path, bag.pairs) for bag in bags if bag.pairs is not None]


def inspect_bags(bags: Iterable[Path], read: ReadOptions) -> list[BagInfo]:
    """Inspect the bags of a command before its work, see `inspect_bag` and `check_inspected`."""
    found = [inspect_bag(bag, read) for bag in bags]
    check_inspected(found, read)
    return found


def check_inspected(bags: Collection[BagInfo], read: ReadOptions) -> None:
    """Check that no bag is named twice and no label belongs to two; say which topics were chosen.

    Raises:
        DataError: a bag is, by its name or that of its file; or see `LabelSource.check_shared`.
    """
    owner = dict[Path, Path]()
    for bag in bags:
        for file in bag.files:
            if file in owner:
                raise DataError(f"each bag must be named once, got {owner[file]} and {bag.path}")
        owner.update(dict.fromkeys(bag.files, bag.path))
    if read.labels is not None:
        read.labels.check_shared(paired(bags))
    for note in (bag.note for bag in bags if bag.note):
        say(f"{camseg_command()}: {note}")


def evaluate_here(run: EvaluationRun, stopping: Callable[[], str | None]) -> Iterator[int]:
    """Evaluate the missing parts in this process; yield the number of the bag with every frame.

    `stopping` is called after every frame and returns a reason to stop, or None.

    Raises:
        EvaluationStopped: there was a reason to stop.
        ConfigError: see `PartFolder.require`.
    """
    for number in run.bags:
        try:
            for _ in _evaluate_bag(run, number, stopping):
                yield number
        except DataError as error:
            run.failures[number] = str(error)


def _evaluate_bag(
    run: EvaluationRun, number: int, stopping: Callable[[], str | None]
) -> Iterator[None]:
    bag, start = run.bags[number], 0
    for done in run.parts.in_order(number):
        if done.ended:
            return
        start = done.stop
    info = run.options.info
    run.parts.require(info)
    part = BagPart.empty(start, info)
    try:
        for frame in score_frames(bag, run.options, start):
            part.add(frame)
            yield
            reason = stopping()
            if reason is not None or part.stop - part.start >= PART_FRAMES:
                run.parts.save(number, part)
                part = BagPart.empty(part.stop, info)
            if reason is not None:
                raise EvaluationStopped(
                    f"stopped after image {part.stop} of {bag.count} of {bag.path} ({reason}); "
                    "run the same command to continue"
                )
    except BagDamaged as error:
        part.damage = str(error)
    except DataError:
        if part.stop > part.start:
            run.parts.save(number, part)
        raise
    part.ended = True
    run.parts.save(number, part)


def evaluate_part(
    bag: BagInfo, options: EvaluationOptions, start: int, stop: int | None
) -> BagPart:
    """Evaluate the images of the bag from number `start` to before `stop`, or to the end.

    Raises:
        DataError: they cannot be evaluated.
    """
    part = BagPart.empty(start, options.info)
    try:
        for frame in score_frames(bag, options, start):
            if stop is not None and frame.index >= stop:
                part.stop = stop
                return part
            part.add(frame)
            if frame.index + 1 == stop:
                return part
    except BagDamaged as error:
        part.damage = str(error)
    part.ended = True
    return part


def score_frames(bag: BagInfo, options: EvaluationOptions, start: int = 0) -> Iterator[ScoredFrame]:
    """Yield every image of the bag from number `start` on, segmented and scored.

    The image before `start` is segmented as well, to count what changes from frame to frame. The
    result for an image therefore does not depend on how the bag is divided.

    Raises:
        BagDamaged: the bag is damaged; every image before the damage has been yielded.
        DataError: see `read_frames` and `ImageBag`.
    """
    models, scored = options.models(), options.info.scored
    before: tuple[Ids, Ids | None] | None = None
    with closing(options.read.open(bag.path)) as images:
        frames = read_frames(images, options.read, max(0, start - 1), pairs=bag.pairs)
        while True:
            began = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            read = time.perf_counter()
            if not frame.follows:
                before = None
            if frame.image is None:
                if frame.index >= start:
                    yield ScoredFrame(frame.index, problem=frame.problem)
                continue
            height, width = frame.image.shape[:2]
            with memory_for(f"image {frame.index} of {bag.path}, {width}x{height} pixels"):
                both = [each.segment for each in (models.model, models.compare) if each]
                models.warm_up(both, frame.image)
                ready = time.perf_counter()
                result = models.model.segment(frame.image)
            if frame.index >= start:
                other = models.compare.segment(frame.image).mask if models.compare else None
                scorer = Scorer(scored)
                scorer.add(frame.truth, result.mask, result.confidence, before=before, other=other)
                line = _line(frame, scorer, result.noise_removed)
                mask = _png(result.mask) if options.keep_masks else None
                wall = read - began + time.perf_counter() - ready
                times = {READ: 1000 * (read - began), WALL: 1000 * wall, **result.timings}
                yield ScoredFrame(frame.index, line, scorer, times, mask)
            before = result.mask, frame.truth


def _line(frame: DecodedFrame, scorer: Scorer, noise_removed: bool) -> dict[str, Any]:
    """Return the frame's entry of `frames.jsonl`, without its overall number and its bag."""
    confusion, predicted, change_rate = (
        scorer.confusion,
        scorer.predicted,
        scorer.flicker.change_rate,
    )
    iou, scored, pixels = confusion.iou(), bool(confusion.matrix.any()), int(predicted.sum())
    steps = int(scorer.confidence @ np.arange(CONFIDENCE_STEPS + 1))
    names = [label.name for label in scorer.labels]
    return {
        "stamp_ns": frame.stamp_ns,
        "frame_id": frame.frame_id,
        "miou": round(confusion.labelled_mean_iou(), 6) if scored else None,
        "iou": {
            name: round(float(value), 6)
            for name, value in zip(names, iou, strict=True)
            if scored and not np.isnan(value)
        },
        "pixel_accuracy": round(confusion.accuracy(), 6) if scored else None,
        "confidence": round(steps / (CONFIDENCE_STEPS * pixels), 6),
        "changed": None if np.isnan(change_rate) else round(change_rate, 6),
        "share": {
            name: round(int(count) / pixels, 6)
            for name, count in zip(names, predicted, strict=False)  # the last is of no class
            if count
        },
        "noise_removed": noise_removed,
    }


def _png(mask: Ids) -> bytes:
    return bytes(cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
