"""Scores of a model on labelled frames, through the runtime as it ships."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.evaluation.calibration import Calibration
from camseg_core.evaluation.metrics import (
    BOUNDARY_TOLERANCE,
    GROUPS,
    BoundaryF1,
    Confusion,
    frequency_groups,
    mean,
)
from camseg_core.evaluation.protocols import OWN_SIZE, Protocol
from camseg_core.evaluation.timing import Latency
from camseg_core.labels import Label, index_table, train_id_table
from camseg_core.runtime.frame import Segmentation
from camseg_core.runtime.segmenter import Segmenter


@dataclass(frozen=True)
class ClassScore:
    """One class: its group (see `frequency_groups`), its share of the labelled pixels, and its scores, NaN where there is none."""

    label: Label
    group: str | None
    share: float
    iou: float
    precision: float
    recall: float
    boundary_f1: float


@dataclass(frozen=True)
class CategoryScore:
    """Several classes taken as one, by the protocol: its train ids, and IoU, NaN where there is none."""

    name: str
    train_ids: tuple[int, ...]
    iou: float


@dataclass(frozen=True)
class FrameScore:
    """One frame: mean IoU over the classes in its label, pixel accuracy (both NaN where nothing is labelled), and latency in ms."""

    name: str
    mean_iou: float
    pixel_accuracy: float
    latency_ms: float


@dataclass(frozen=True)
class ShownFrame:
    """A frame to look at: why (best, median or worst), its score, RGB `(H, W, 3)`, and label and mask `(H, W)` in train ids.

    All arrays are uint8; the label is 255 where a pixel is not scored.
    """

    rank: str
    score: FrameScore
    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Scores are 0..1; a NaN is a score that the frames say nothing about.

    `average_precision` is the paper's AP (arXiv 2503.15617), the mean over classes of pixel precision TP / (TP + FP); by group it is the
    mean over the group's classes. `confusion` counts indices of `classes`. `frame_size` is the first frame's (width, height), as the
    protocol has it.
    """

    model: str
    provider: str
    precision: str
    classes: tuple[ClassScore, ...]
    mean_iou: float
    pixel_accuracy: float
    average_precision: float
    average_precision_by_group: Mapping[str, float]
    boundary_f1: float
    boundary_tolerance: float
    calibration: Calibration
    confusion: Confusion
    latency: Latency
    frames: tuple[FrameScore, ...]
    frame_size: tuple[int, int]
    shown: tuple[ShownFrame, ...]
    about: Mapping[str, str | int] = field(default_factory=dict)
    protocol: Protocol = OWN_SIZE
    categories: tuple[CategoryScore, ...] = ()

    @property
    def mean_category_iou(self) -> float:
        """Mean over the categories that occur; NaN where the protocol has none."""
        return mean(np.array([each.iou for each in self.categories]))

    def worst_first(self) -> list[FrameScore]:
        """The frames that have a score, by rising mean IoU; equal ones in their own order."""
        return sorted(
            (frame for frame in self.frames if not math.isnan(frame.mean_iou)),
            key=lambda frame: frame.mean_iou,
        )


def _as_they_come(samples: Iterable[Sample]) -> Iterable[Sample]:
    return samples


def evaluate(
    segmenter: Segmenter,
    samples: Iterable[Sample],
    labels: Sequence[Label],
    *,
    frames: int | None = None,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = _as_they_come,
    boundary_tolerance: float = BOUNDARY_TOLERANCE,
    about: Mapping[str, str | int] | None = None,
    protocol: Protocol = OWN_SIZE,
    seen: Callable[[Sample, Segmentation], None] | None = None,
) -> Evaluation:
    """Segment every sample as the protocol has it and score masks and confidences against the labels.

    The first frame is segmented once before anything is timed. Memory does not grow with the frames but for a line of scores
    each: the frames to show are chosen in the end and segmented again.

    Args:
        segmenter: the model; the same one and the same samples give the same scores, latencies aside.
        samples: the labelled frames. What can be walked only once, such as a generator, gives no frames to show.
        labels: the classes of the data set; a protocol may have its own instead. Pixels with another label are not scored; another
            prediction is wrong everywhere.
        frames: stop after this many.
        progress: called with the frames, yields the same ones while it shows how far they are.
        boundary_tolerance: share of the image's diagonal, see `BoundaryF1`.
        about: facts on the run to keep with the scores, such as the data set and the sampler, by the name to show.
        protocol: by which the masks are judged, see `PROTOCOLS`.
        seen: called with every frame, as the protocol prepared it, and its result.

    Raises:
        DataError: there are no frames, none has a labelled pixel, or a label's size is not its image's; the message names the frame.
        ImageError: a sample's image is not RGB uint8.
    """
    labels = protocol.classes(labels)
    tally = _Tally(labels, boundary_tolerance, protocol)
    for raw in progress(islice(samples, frames)):
        _check(raw)
        sample = protocol.prepare(raw)
        if not tally.frames:
            segmenter.segment(sample.image)  # ONNX Runtime plans its memory on the first frame
        result = segmenter.segment(sample.image)
        tally.add(sample, result)
        if seen is not None:
            seen(sample, result)
        del raw, sample, result  # not held while the next is read
    if not tally.frames:
        raise DataError("the data set has no frames: there is nothing to evaluate")
    if not tally.confusion.matrix.any():
        names = ", ".join(label.name for label in labels)
        raise DataError(
            f"none of the {len(tally.frames)} frames has a pixel labelled as one of the classes to score ({names})"
        )
    again = () if iter(samples) is samples else _shown(segmenter, samples, tally)
    return tally.evaluation(segmenter, again, about or {})


def _check(sample: Sample) -> None:
    if sample.label.shape != sample.image.shape[:2]:
        raise DataError(
            f"the label of {sample.name} is {sample.label.shape}, but its image {sample.image.shape[:2]}: sizes must agree"
        )


class _Tally:
    """Everything that grows frame by frame."""

    def __init__(
        self, labels: Sequence[Label], boundary_tolerance: float, protocol: Protocol
    ) -> None:
        self.labels, self.protocol = tuple(labels), protocol
        self.index = index_table(labels)
        self.confusion = Confusion(len(labels))
        self.boundary = BoundaryF1(len(labels), boundary_tolerance)
        self.calibration, self.latency = Calibration(), Latency()
        self.frames: list[FrameScore] = []
        self.frame_size = (0, 0)

    def add(self, sample: Sample, result: Segmentation) -> None:
        truth, found = self.index[sample.label], self.index[result.mask]
        confusion = Confusion(len(self.labels))
        confusion.add(truth, found)
        if self.protocol.drops_no_class:
            confusion = confusion.without_no_class()
        known = truth < len(self.labels)
        self.confusion.matrix += confusion.matrix
        self.boundary.add(truth, found)
        self.calibration.add(result.confidence[known], truth[known] == found[known])
        self.latency.add(result.timings)
        if not self.frames:
            self.frame_size = (sample.image.shape[1], sample.image.shape[0])
        self.frames.append(
            FrameScore(
                sample.name,
                mean(confusion.iou()[confusion.labelled > 0]),
                confusion.accuracy() if confusion.matrix.any() else math.nan,
                self.latency.frames_ms[-1],
            )
        )

    def evaluation(
        self, segmenter: Segmenter, shown: tuple[ShownFrame, ...], about: Mapping[str, str | int]
    ) -> Evaluation:
        confusion, groups = self.confusion, frequency_groups(self.confusion)
        precision = confusion.precision()
        columns = (
            confusion.labelled / confusion.matrix.sum(),
            confusion.iou(),
            precision,
            confusion.recall(),
            self.boundary.per_class(),
        )
        return Evaluation(
            model=segmenter.name,
            provider=segmenter.provider,
            precision=segmenter.precision,
            classes=tuple(
                ClassScore(label, group, *map(float, row))
                for label, group, row in zip(
                    self.labels, groups, np.column_stack(columns), strict=True
                )
            ),
            mean_iou=confusion.mean_iou(),
            pixel_accuracy=confusion.accuracy(),
            average_precision=mean(precision),
            average_precision_by_group={
                group: mean(precision[[each == group for each in groups]]) for group in GROUPS
            },
            boundary_f1=self.boundary.mean(),
            boundary_tolerance=self.boundary.tolerance,
            calibration=self.calibration,
            confusion=confusion,
            latency=self.latency,
            frames=tuple(self.frames),
            frame_size=self.frame_size,
            shown=shown,
            about=dict(about),
            protocol=self.protocol,
            categories=tuple(
                CategoryScore(
                    name, members, confusion.group_iou([int(self.index[i]) for i in members])
                )
                for name, members in self.protocol.categories
            ),
        )


def _shown(
    segmenter: Segmenter, samples: Iterable[Sample], tally: _Tally
) -> tuple[ShownFrame, ...]:
    """The best, the median and the worst frame by mean IoU, in this order, segmented again; fewer where there are fewer."""
    scores = [frame.mean_iou for frame in tally.frames]
    ordered = sorted(
        (i for i, score in enumerate(scores) if not math.isnan(score)), key=lambda i: -scores[i]
    )
    ranks: dict[int, str] = {}
    for rank, index in (
        ("best", ordered[0]),
        ("worst", ordered[-1]),
        ("median", ordered[len(ordered) // 2]),
    ):
        ranks.setdefault(index, rank)
    scored = train_id_table(tally.labels)[tally.index]  # everything else becomes 255
    found = {}
    for index, raw in enumerate(islice(samples, max(ranks) + 1)):
        if index in ranks:
            sample = tally.protocol.prepare(raw)
            label, mask = scored[sample.label], segmenter.segment(sample.image).mask
            found[index] = ShownFrame(ranks[index], tally.frames[index], sample.image, label, mask)
    return tuple(found[index] for index in ordered if index in found)
