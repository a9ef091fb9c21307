"""Scores a model on labelled frames, with the deployed runtime."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample
from camseg_core.errors import DataError, memory_for
from camseg_core.evaluation.boundary_f1 import BOUNDARY_TOLERANCE
from camseg_core.evaluation.calibration import Calibration, ErrorDetection
from camseg_core.evaluation.metrics import (
    GROUPS,
    Confusion,
    frequency_groups,
    mean,
)
from camseg_core.evaluation.protocols import OWN_SIZE, Protocol
from camseg_core.evaluation.scorer import CountedAs, Scorer
from camseg_core.evaluation.timing import Latency, WarmUp
from camseg_core.groups import ScoredLabels, as_scored
from camseg_core.labels import Label
from camseg_core.runtime.segmenter import Segmentation, Segmenter

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassScore:
    """Scores of a class, NaN if undefined; its group (see `frequency_groups`); its label share."""

    label: Label
    group: str | None
    share: float
    iou: float
    precision: float
    recall: float
    boundary_f1: float


@dataclass(frozen=True)
class CategoryScore:
    """IoU of several classes taken as one, NaN if undefined."""

    name: str
    train_ids: tuple[int, ...]
    iou: float


@dataclass(frozen=True)
class FrameScore:
    """Scores of a frame: mean IoU over the classes in its label, pixel accuracy, latency in ms.

    The first two are NaN if nothing is labelled.
    """

    name: str
    mean_iou: float
    pixel_accuracy: float
    latency_ms: float


@dataclass(frozen=True)
class ShownFrame:
    """A frame to show: its rank (best, median or worst), RGB `(H, W, 3)`, label and mask `(H, W)`.

    Label and mask are ids of the scored labels; the label is 255 where a pixel is not scored. All
    are uint8.
    """

    rank: str
    score: FrameScore
    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`. Scores are 0..1, or NaN if the frames do not define them.

    `average_precision` is the paper's AP (arXiv 2503.15617), the mean over classes of pixel
    precision TP / (TP + FP); by group it is the mean over the group's classes. `confusion` counts
    indices of `classes`. `frame_size` is the first frame's (width, height) after the protocol's
    preparation. `counted_as` is None where each class of the model counts as itself.
    `model_classes` are the classes that its masks may hold. `noise_removed` counts the frames that
    were too noisy for the network and were filtered before it.
    """

    model: str
    provider: str
    engine: str
    precision: str
    classes: tuple[ClassScore, ...]
    mean_iou: float
    pixel_accuracy: float
    average_precision: float
    average_precision_by_group: Mapping[str, float]
    boundary_f1: float
    boundary_tolerance: float
    calibration: Calibration
    error_detection: ErrorDetection
    confusion: Confusion
    latency: Latency
    frames: tuple[FrameScore, ...]
    frame_size: tuple[int, int]
    shown: tuple[ShownFrame, ...]
    about: Mapping[str, str | int] = field(default_factory=dict)
    protocol: Protocol = OWN_SIZE
    categories: tuple[CategoryScore, ...] = ()
    counted_as: CountedAs | None = None
    model_classes: tuple[Label, ...] = ()
    noise_removed: int = 0

    @property
    def frames_scored(self) -> int:
        """Number of frames with a pixel to score."""
        return sum(not math.isnan(frame.pixel_accuracy) for frame in self.frames)

    @property
    def mean_category_iou(self) -> float:
        """Mean IoU over the categories that occur; NaN if the protocol has none."""
        return mean(np.array([each.iou for each in self.categories]))

    def worst_first(self) -> list[FrameScore]:
        """Return the frames whose mean IoU is defined, by rising mean IoU; ties keep their order.

        It is not where all labels stand for one of several classes that are scored themselves.
        """
        return sorted(
            (frame for frame in self.frames if not math.isnan(frame.mean_iou)),
            key=lambda frame: frame.mean_iou,
        )


def evaluate(
    segmenter: Segmenter,
    samples: Iterable[Sample],
    labels: Sequence[Label] | ScoredLabels,
    *,
    frames: int | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda samples: samples,
    boundary_tolerance: float = BOUNDARY_TOLERANCE,
    about: Mapping[str, str | int] | None = None,
    protocol: Protocol = OWN_SIZE,
    seen: Callable[[Sample, Segmentation], None] | None = None,
) -> Evaluation:
    """Segment every sample and score masks and confidences against the labels.

    The first frame of each size is segmented once before it is timed. Memory holds one frame and a
    line of scores per frame: the frames to show are chosen at the end and segmented again.

    Args:
        segmenter: the model. The same model and samples give the same scores; latencies differ.
        samples: the labelled frames. With an iterator, which can only be read once, the result has
            no frames to show.
        labels: the classes of the data set, in any order, or its labels with groups, unless the
            protocol has its own. Pixels with another label are not scored; other predictions are
            wrong.
        frames: stop after this many.
        progress: called with the frames; yields them and shows progress.
        boundary_tolerance: share of the image's diagonal, see `BoundaryF1`.
        about: facts to keep with the scores, such as the data set and the sampler.
        protocol: how masks are scored, see `PROTOCOLS`.
        seen: called with every frame, as prepared by the protocol, and its result.

    Raises:
        DataError: there are no frames, no labelled pixel, or a label differs in size from its
            image.
        ImageError: a sample's image is not RGB uint8.
    """
    scored = as_scored(labels if protocol.labels is None else protocol.labels)
    scorer = Scorer(scored, boundary_tolerance, protocol.drops_no_class)
    scores: list[FrameScore] = []
    latency, warm_up, frame_size, noisy = Latency(), WarmUp(), (0, 0), 0
    for raw in progress(islice(samples, frames)):
        check_sizes(raw)
        sample = protocol.prepare(raw)
        height, width = sample.image.shape[:2]
        with memory_for(f"{sample.name} of {width}x{height} pixels"):
            warm_up([segmenter.segment], sample.image)
            if not scores:
                frame_size = width, height
            result = segmenter.segment(sample.image)
        latency.add(result.timings)
        noisy += result.noise_removed
        frame = scorer.empty()
        frame.add(sample.label, result.mask, result.confidence)
        scorer.merge(frame)
        scores.append(_frame_score(sample.name, frame.confusion, latency.frames_ms[-1]))
        if seen is not None:
            seen(sample, result)
        del raw, sample, result  # free the frame before the next is read
    if not scores:
        raise DataError("the data set has no frames: there is nothing to evaluate")
    if not scorer.confusion.matrix.any():
        names = ", ".join(label.name for label in scored.labels)
        raise DataError(
            f"none of the {len(scores)} frames has a pixel labelled as one of the classes to score "
            f"({names})"
        )
    again = iter(samples) is not samples
    confusion, groups = scorer.confusion, frequency_groups(scorer.confusion)
    precision = confusion.precision()
    columns = (
        confusion.labelled / confusion.matrix.sum(),
        confusion.iou(),
        precision,
        confusion.recall(),
        scorer.boundary.per_class(),
    )
    rows = zip(scorer.labels, groups, np.column_stack(columns), strict=True)
    return Evaluation(
        model=segmenter.name,
        provider=segmenter.provider,
        engine=segmenter.engine,
        precision=segmenter.precision,
        classes=tuple(ClassScore(label, group, *map(float, row)) for label, group, row in rows),
        mean_iou=confusion.mean_iou(),
        pixel_accuracy=confusion.accuracy(),
        average_precision=mean(precision),
        average_precision_by_group={
            group: mean(precision[[each == group for each in groups]]) for group in GROUPS
        },
        boundary_f1=scorer.boundary.mean(),
        boundary_tolerance=boundary_tolerance,
        calibration=scorer.calibration,
        error_detection=scorer.error_detection,
        confusion=confusion,
        latency=latency,
        frames=tuple(scores),
        frame_size=frame_size,
        shown=_shown(segmenter, samples, scored, protocol, scores) if again else (),
        about=dict(about or {}),
        protocol=protocol,
        counted_as=_counted_as(scorer, segmenter),
        model_classes=tuple(segmenter.labels),
        noise_removed=noisy,
        categories=tuple(
            CategoryScore(name, ids, confusion.group_iou(scored.predicted[list(ids)].tolist()))
            for name, ids in protocol.categories
        ),
    )


def check_sizes(sample: Sample) -> None:
    """Raise `DataError` if a sample's label has another size than its image."""
    if sample.label.shape != sample.image.shape[:2]:
        raise DataError(
            f"the label of {sample.name} must have its image's size {sample.image.shape[:2]}, "
            f"got {sample.label.shape}"
        )


def _frame_score(name: str, confusion: Confusion, latency_ms: float) -> FrameScore:
    accuracy = confusion.accuracy() if confusion.matrix.any() else math.nan
    return FrameScore(name, confusion.labelled_mean_iou(), accuracy, latency_ms)


def _counted_as(scorer: Scorer, segmenter: Segmenter) -> CountedAs | None:
    found = scorer.counted_as(segmenter.labels)
    return found if any(vars(found).values()) else None


def _shown(
    segmenter: Segmenter,
    samples: Iterable[Sample],
    scored: ScoredLabels,
    protocol: Protocol,
    scores: Sequence[FrameScore],
) -> tuple[ShownFrame, ...]:
    """Segment the best, median and worst frame by mean IoU again, in this order.

    None is shown if no frame's mean IoU is defined.
    """
    ordered = sorted(
        (i for i, score in enumerate(scores) if not math.isnan(score.mean_iou)),
        key=lambda i: -scores[i].mean_iou,
    )
    if not ordered:
        return ()
    ranks: dict[int, str] = {}
    for rank, place in (("best", 0), ("worst", -1), ("median", len(ordered) // 2)):
        ranks.setdefault(ordered[place], rank)
    found = {}
    for index, raw in enumerate(islice(samples, max(ranks) + 1)):
        if index in ranks:
            sample = protocol.prepare(raw)
            label, mask = scored.shown(sample.label, segmenter.segment(sample.image).mask)
            found[index] = ShownFrame(ranks[index], scores[index], sample.image, label, mask)
    return tuple(found[index] for index in ordered if index in found)
