"""Compares two models on the same frames: scores, flicker, and interleaved latency."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.data.shared_labels import LeftOut
from camseg_core.errors import DataError, memory_for
from camseg_core.evaluation.evaluate import check_sizes
from camseg_core.evaluation.intervals import (
    Difference,
    Ratio,
    beyond_limit,
    differences,
    ratio_of_medians,
)
from camseg_core.evaluation.metrics import Confusion
from camseg_core.evaluation.scorer import Scorer
from camseg_core.evaluation.timing import Latency, WarmUp, in_turns
from camseg_core.groups import ScoredLabels
from camseg_core.runtime.segmenter import Segmentation, Segmenter

Booleans = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Read: TypeAlias = Iterable[tuple[Sample, bool]]
"""Frames, each with whether it follows directly from the one before in a drive."""


@dataclass(frozen=True)
class ComparedModel:
    """A model and the labels that its masks are scored against."""

    name: str
    segmenter: Segmenter
    scored: ScoredLabels


@dataclass(frozen=True)
class Footage:
    """Frames to compare two models on.

    Attributes:
        title: description for readers.
        count: their number, as far as known.
        read: yields the frames; a label without any class means that no label is known.
        pick: returns the frames with these numbers, counted in the order of `read`.
        problems: what could not be read; complete once `read` has ended.
        notes: further remarks for the report.
    """

    title: str
    count: int
    read: Callable[[], Read]
    pick: Callable[[Sequence[int]], Mapping[int, Sample]]
    problems: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(title: str, samples: Samples, notes: Sequence[str] = ()) -> "Footage":
        """Return labelled frames that are not consecutive."""
        return Footage(
            title,
            len(samples),
            lambda: ((sample, False) for sample in samples),
            lambda numbers: {number: samples[number] for number in numbers},
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class Side:
    """A model and what was counted for it."""

    contender: ComparedModel
    scorer: Scorer
    latency: Latency

    @property
    def flicker(self) -> float:
        """Share of pixels that change class where the true class stays; without labels, of all."""
        found = self.scorer.flicker
        return found.change_rate if math.isnan(found.flicker) else found.flicker


@dataclass(frozen=True)
class ComparedFrame:
    """A frame's mean IoU for both models, the share where they agree, and whether it has labels.

    The mean IoU is NaN without labels, and where no class in the labels is judged by it.
    """

    name: str
    mean_iou: tuple[float, float]
    agreement: float
    labelled: bool

    @property
    def change(self) -> float:
        """Gain in mean IoU; NaN where it is not defined."""
        return self.mean_iou[1] - self.mean_iou[0]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        footage: the frames.
        sides: the old model and the new one.
        frames: the scores of each frame.
        mean_iou: the difference in mean IoU.
        iou: the difference in IoU of each class.
        slowdown: time per frame of the new model, divided by the old model's.
        agreement: share of pixels with the same class in both masks, among pixels with a shared
            class in either; NaN if there are none.
        judged: whether the IoU of a class is defined for both models, `(C,)`, see
            `ScoredLabels.recall_only`. All means are over these classes.
        lost: classes that the old model has, the new one lacks, and the labels of frames hold.
    """

    footage: Footage
    sides: tuple[Side, Side]
    frames: tuple[ComparedFrame, ...]
    mean_iou: Difference
    iou: tuple[Difference, ...]
    slowdown: Ratio
    agreement: float
    judged: Booleans
    lost: tuple[str, ...] = ()

    @property
    def labelled(self) -> int:
        """Number of frames with a label."""
        return sum(frame.labelled for frame in self.frames)


def compare(
    old: ComparedModel,
    new: ComparedModel,
    footage: Footage,
    progress: Callable[[Read], Read] = lambda frames: frames,
    left_out: Sequence[LeftOut] = (),
) -> Comparison:
    """Segment every frame with both models, interleaved, and score both.

    Memory holds two frames, and for each frame a line of counts.

    Args:
        old: the model to compare with. Its scored labels must be those of `new`, with its own ids.
        new: the other model.
        footage: the frames.
        progress: called with the frames; yields them and shows progress.
        left_out: labels of the data that are not scored, as a model lacks their class.

    Raises:
        DataError: there are no frames, or a label differs in size from its image.
        ImageError: an image is not RGB uint8.
    """
    sides = tuple(Side(each, Scorer(each.scored), Latency()) for each in (old, new))
    models = [each.segmenter for each in (old, new)]
    judged = ~(old.scored.recall_only | new.scored.recall_only)
    frames: list[ComparedFrame] = []
    counts: list[Counts] = []
    agreeing, warm_up = np.zeros(2, np.int64), WarmUp()
    before: tuple[Sample, list[Segmentation]] | None = None
    for sample, follows in progress(footage.read()):
        check_sizes(sample)
        height, width = sample.image.shape[:2]
        with memory_for(f"{sample.name} of {width}x{height} pixels"):
            warm_up([each.segment for each in models], sample.image)
            results = in_turns(models, sample.image, len(frames))
        confusions = []
        for number, (side, result) in enumerate(zip(sides, results, strict=True)):
            side.latency.add(result.timings)
            frame = side.scorer.empty()
            pair = None
            if before is not None and follows:
                pair = before[1][number].mask, before[0].label
            frame.add(sample.label, result.mask, result.confidence, before=pair)
            side.scorer.merge(frame)
            confusions.append(frame.confusion)
        same = _agreement(sides, results)
        agreeing += same
        ious = [each.labelled_mean_iou(judged) for each in confusions]
        share = same[0] / same[1] if same[1] else math.nan
        labelled = any(each.matrix.any() for each in confusions)
        frames.append(ComparedFrame(sample.name, (ious[0], ious[1]), float(share), labelled))
        counts.append(np.stack([_hits_union_labelled(each) for each in confusions]) * judged)
        before = sample, results
    if not frames:
        why = footage.problems[0] if footage.problems else "there is nothing to compare on"
        raise DataError(f"{footage.title} has no frames: {why}")
    each, total = differences(np.stack(counts))
    times = [side.latency.frames_ms for side in sides]
    return Comparison(
        footage,
        (sides[0], sides[1]),
        tuple(frames),
        total,
        tuple(each),
        ratio_of_medians(times[1], times[0]),
        int(agreeing[0]) / int(agreeing[1]) if agreeing[1] else math.nan,
        judged,
        tuple(
            each.name
            for each in left_out
            if each.lacking == (new.name,) and sides[1].scorer.ids[0, list(each.ids)].any()
        ),
    )


def _agreement(sides: Sequence[Side], results: Sequence[Segmentation]) -> Counts:
    """Return the number of pixels with the same class in both masks, and with a shared class."""
    old, new = (
        side.contender.scored.predicted_of(result.mask)
        for side, result in zip(sides, results, strict=True)
    )
    classes = len(sides[0].contender.scored.labels)
    known = (old < classes) | (new < classes)
    return np.array([np.count_nonzero((old == new) & known), np.count_nonzero(known)], np.int64)


def _hits_union_labelled(confusion: Confusion) -> Counts:
    hits, labelled = confusion.hits, confusion.labelled
    return np.stack([hits, labelled + confusion.predicted - hits, labelled])


@dataclass(frozen=True)
class Limits:
    """How much worse the new model may be; None where there is no limit.

    Attributes:
        max_drop: largest drop of the mean IoU.
        max_class_drop: largest drop of the IoU of a class.
        max_slowdown: largest time per frame, divided by the old model's.
        max_flicker_rise: largest rise of `Side.flicker`.
        max_calibration_rise: largest rise of the expected calibration error.
    """

    max_drop: float | None = None
    max_class_drop: float | None = None
    max_slowdown: float | None = None
    max_flicker_rise: float | None = None
    max_calibration_rise: float | None = None

    def broken(self, comparisons: Sequence[Comparison]) -> list[str]:
        """Return a line for each limit that failed.

        Scores without labels and flicker without a drive are not measured. A limit must be measured
        in at least one of the comparisons. Limits of the IoU fail if a class is lost.
        """
        lines = []
        for name, limit in vars(self).items():
            if limit is None:
                continue
            measured = [each for found in comparisons for each in _measured(name, found)]
            known = [(where, value) for where, value in measured if not math.isnan(value)]
            if name in ("max_drop", "max_class_drop"):
                lines += [f"{name} {line}" for line in map(_lost, comparisons) if line]
            for where, value in known:
                lines += beyond_limit(f"{name} of {where}", limit, value)
            if not known:
                lines += beyond_limit(name, limit, math.nan)
        return lines


def _lost(found: Comparison) -> str:
    """Return a line on the classes that the new model has lost; empty if there are none."""
    old, new = (side.contender.name for side in found.sides)
    if not found.lost:
        return ""
    return (
        f"on {found.footage.title} cannot be met: {new} lacks {', '.join(found.lost)}, which "
        f"{old} has and the labels hold; train on these classes, or leave them out with --groups"
    )


def _measured(limit: str, found: Comparison) -> Iterator[tuple[str, float]]:
    """Yield what a limit applies to, and the measured value; NaN if it was not measured."""
    old, new = found.sides
    title = found.footage.title
    if limit == "max_class_drop":
        for label, each in zip(new.scorer.labels, found.iou, strict=True):
            yield f"{label.name} on {title}", -each.value
    elif limit == "max_drop":
        yield f"mean IoU on {title}", -found.mean_iou.value
    elif limit == "max_slowdown":
        yield f"latency on {title}", found.slowdown.value
    elif limit == "max_flicker_rise":
        yield f"flicker on {title}", new.flicker - old.flicker
    else:
        errors = [side.scorer.calibration.error() for side in found.sides]
        yield f"calibration error on {title}", errors[1] - errors[0]
