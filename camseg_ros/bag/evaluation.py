"""Scores of single frames of a bag: a function of the bag and the number of the frame, wherever and in whatever parts it runs."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.metrics import mean
from camseg_core.labels import Label
from camseg_core.runtime.frame import Segmentation
from camseg_ros.bag.frames import LabelledFrame, Reading, read_frames
from camseg_ros.bag.tally import LEVELS, Counter, Tally

Ids = npt.NDArray[np.uint8]


class Model(Protocol):
    """What is used of a `Segmenter`."""

    labels: tuple[Label, ...]

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def provider(self) -> str:
        """What computes."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    def segment(self, rgb: Ids) -> Segmentation:
        """Segment one frame."""


@dataclass(frozen=True)
class Evaluating:
    """What is done with every frame; sent to other processes, so the loaders are functions of a module or `functools.partial`s of one.

    `load` gives the model, `compare` one to compare it with; `keep_masks` keeps the masks for a bag of them.
    """

    reading: Reading
    load: Callable[[], Model]
    compare: Callable[[], Model] | None = None
    keep_masks: bool = False

    def models(self) -> "Models":
        """The models, loaded once in a process."""
        return _models(_Loader(self.load), None if self.compare is None else _Loader(self.compare))


@dataclass(frozen=True)
class Models:
    """The loaded models."""

    model: Model
    compare: Model | None


@dataclass(frozen=True)
class FrameResult:
    """One frame of a bag: its number there, its line, what it adds to the counts, times in ms by name, and its mask as PNG if kept.

    The line is None for an image that is no picture, which `problem` then tells.
    """

    index: int
    line: dict[str, Any] | None
    tally: Tally
    times: dict[str, float] = field(default_factory=dict)
    mask: bytes | None = None
    problem: str = ""


READ, WALL = "read", "wall"
"""The names in `FrameResult.times` for reading and decoding, and for everything; the others are stages of the model."""


def evaluate_frames(bag: Path, evaluating: Evaluating, start: int = 0) -> Iterator[FrameResult]:
    """Every image of the bag from number `start` on. The frame before is segmented as well, as changes are counted from frame to frame.

    Raises:
        BagDamaged: the bag is damaged; all whole images before that have been yielded.
        DataError: see `read_frames` and `ImageBag`.
    """
    models = evaluating.models()
    counter = Counter(models.model.labels)
    before: tuple[Ids, Ids | None] | None = None
    with closing(evaluating.reading.open(bag)) as images:
        frames = read_frames(images, evaluating.reading, max(0, start - 1))
        while True:
            began = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            read = time.perf_counter()
            if frame.index < start:
                if frame.image is not None:
                    before = models.model.segment(frame.image).mask, frame.truth
                continue
            if frame.image is None:
                before = None  # no pair is counted over a gap
                yield FrameResult(
                    frame.index, None, Tally.empty(counter.classes), problem=frame.problem
                )
                continue
            result = models.model.segment(frame.image)
            other = models.compare.segment(frame.image).mask if models.compare is not None else None
            tally = counter.count(result.mask, result.confidence, frame.truth, before, other)
            before = result.mask, frame.truth
            line = _line(frame, tally, models.model.labels)
            mask = _png(result.mask) if evaluating.keep_masks else None
            times = {
                READ: 1000 * (read - began),
                WALL: 1000 * (time.perf_counter() - began),
                **result.timings,
            }
            yield FrameResult(frame.index, line, tally, times, mask)


def _line(frame: LabelledFrame, tally: Tally, labels: tuple[Label, ...]) -> dict[str, Any]:
    """What `frames.jsonl` says of the frame, but for its number over all bags and the bag's name."""
    confusion = tally.confusion_matrix()
    iou = confusion.iou()
    scored = bool(confusion.matrix.any())
    pixels = int(tally.predicted.sum())
    levels = int(tally.confidence[0] @ np.arange(LEVELS + 1))
    return {
        "stamp_ns": frame.stamp_ns,
        "frame_id": frame.frame_id,
        "miou": round(mean(iou[confusion.labelled > 0]), 6) if scored else None,
        "iou": {
            label.name: round(float(iou[i]), 6)
            for i, label in enumerate(labels)
            if scored and not np.isnan(iou[i])
        },
        "pixel_accuracy": round(confusion.accuracy(), 6) if scored else None,
        "confidence": round(levels / (LEVELS * pixels), 6),
        "changed": round(int(tally.changes[0]) / int(tally.changes[1]), 6)
        if tally.changes[1]
        else None,
        "share": {
            label.name: round(int(tally.predicted[i]) / pixels, 6)
            for i, label in enumerate(labels)
            if tally.predicted[i]
        },
    }


def _png(mask: Ids) -> bytes:
    return bytes(cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


class _Loader:
    """A loader that is equal to others of the same content, so that a process that got it twice loads its model once."""

    def __init__(self, load: Callable[[], Model]) -> None:
        self.load = load
        self._key = (
            (load.func, load.args, tuple(sorted(load.keywords.items())))
            if isinstance(load, functools.partial)
            else load
        )

    def __hash__(self) -> int:
        return hash(repr(self._key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Loader) and repr(self._key) == repr(other._key)


@functools.lru_cache(maxsize=1)
def _models(load: _Loader, compare: _Loader | None) -> Models:
    models = Models(load.load(), None if compare is None else compare.load())
    for each in (models.model, models.compare):
        if each is not None:
            each.segment(
                np.zeros((64, 64, 3), np.uint8)
            )  # what is set up at the first frame is not timed
    return models
