"""The scorer: counts masks, labels and confidences of frames, and computes their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.boundary_f1 import BOUNDARY_TOLERANCE, BoundaryF1
from camseg_core.evaluation.calibration import Calibration, ErrorDetection
from camseg_core.evaluation.metrics import Confusion, Flicker
from camseg_core.groups import ScoredLabels, as_scored
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label

Ids = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

CONFIDENCE_STEPS = 3000
"""Confidences are counted rounded to 1 / `CONFIDENCE_STEPS`."""


@dataclass(frozen=True)
class CountedAs:
    """How a model's classes were counted on labels that stand for several classes.

    Attributes:
        merged: classes of the model that counted as one, by label.
        predicted_outside: scored pixels by predicted class, for classes that no label stands for.
            They are wrong.
        not_scored: pixels by label of the data, for labels that are not scored.
        recall_only: pixels by label, for labels of which only the recall is defined, see
            `ScoredLabels.recall_only`. They are in no mean.
    """

    merged: Mapping[str, Sequence[str]]
    predicted_outside: Mapping[str, int]
    not_scored: Mapping[str, int]
    recall_only: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content for reports; `recall_only` is left out if it is empty."""
        found = dict(vars(self))
        if not self.recall_only:
            del found["recall_only"]
        return found

    def facts(self) -> list[tuple[str, str]]:
        """Return the facts to report, as name and text."""

        def pixels(found: Mapping[str, int]) -> str:
            return ", ".join(f"{name} ({count} pixels)" for name, count in found.items())

        facts = {
            "classes counted as one": merged_text(self.merged),
            "wrong, as no label stands for them": pixels(self.predicted_outside),
            "labels not scored": pixels(self.not_scored),
            "in no mean, only their recall is defined": ", ".join(self.recall_only),
        }
        return [(name, text) for name, text in facts.items() if text]


def scored_facts(scored: int, frames: int) -> list[tuple[str, str]]:
    """Return as name and text how many frames have no pixel to score; nothing if all have one."""
    if scored == frames:
        return []
    return [("frames scored", f"{scored} of {frames}; no pixel of the others has a scored label")]


def noise_facts(noisy: int, frames: int) -> list[tuple[str, str]]:
    """Return as name and text of how many frames noise was removed; nothing if of none."""
    return [("strong noise was removed from", f"{noisy} of {frames} frames")] if noisy else []


def never_labelled_facts(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return as name and text which classes were predicted but never labelled; see `mean_iou`."""
    return [("counted as 0 in means, predicted but never labelled", ", ".join(names))] * bool(names)


def merged_text(merged: Mapping[str, Sequence[str]]) -> str:
    """Return classes that count as one, by label, as text."""
    return ", ".join(f"{name} ({' + '.join(each)})" for name, each in merged.items())


class Scorer:
    """Counts frames of C classes, or of other labels, see `ScoredLabels`.

    Everything is counted in int64: scorers of parts of a data set, counted anywhere and merged in
    any order, equal the scorer of a single pass over all of it, to the bit.

    Args:
        labels: the classes to score, their ids being train ids, or other labels.
        boundary_tolerance: share of the image diagonal, see `BoundaryF1`; None skips boundaries,
            which take most of the time.
        drop_no_class: leave out pixels whose mask has none of the classes, instead of counting
            them as wrong.
    """

    def __init__(
        self,
        labels: Sequence[Label] | ScoredLabels,
        boundary_tolerance: float | None = BOUNDARY_TOLERANCE,
        drop_no_class: bool = False,
    ) -> None:
        self.scored, self.drop_no_class = as_scored(labels), drop_no_class
        self.labels = self.scored.labels
        self.boundary_tolerance = boundary_tolerance
        self.classes = classes = len(self.labels)
        recall_only = self.scored.recall_only
        self.confusion = Confusion(classes, recall_only)
        self.boundary = BoundaryF1(classes, boundary_tolerance or 0.0, recall_only)
        self.calibration, self.error_detection = Calibration(), ErrorDetection()
        self.flicker = Flicker()
        self.predicted = np.zeros(classes + 1, np.int64)
        """All pixels by predicted class; the last entry counts those with none of the classes."""
        self.confidence = np.zeros(CONFIDENCE_STEPS + 1, np.int64)
        """All pixels by rounded confidence."""
        self.agreement = np.zeros((classes + 1, classes + 1), np.int64)
        """All pixels by the class of this model and that of the other model."""
        self.frames = np.zeros(2, np.int64)
        """All frames, and those with a pixel to score."""
        self.ids = np.zeros((2, 256), np.int64)
        """All pixels of labels by id; scored pixels by predicted train id."""

    def empty(self) -> "Scorer":
        """Return a scorer of the same kind with nothing counted."""
        return Scorer(self.scored, self.boundary_tolerance, self.drop_no_class)

    def add(
        self,
        label: Ids | None,
        mask: Ids,
        confidence: npt.NDArray[np.floating] | None = None,
        *,
        before: tuple[Ids, Ids | None] | None = None,
        other: Ids | None = None,
    ) -> None:
        """Count a frame; all arrays are `(H, W)`, ids are train ids.

        Args:
            label: the truth, if known.
            mask: the prediction.
            confidence: confidence of the predicted class, 0..1; None leaves calibration out.
            before: mask and label of the previous frame, to count changes, unless its size differs.
            other: the mask of the model to compare with.
        """
        truth = None if label is None else self.scored.truth_of(label)
        found = self.scored.predicted_of(mask, truth)
        self.frames += 1, truth is not None and bool((truth < self.classes).any())
        self.predicted += np.bincount(found.ravel(), minlength=self.classes + 1)
        if confidence is not None:
            steps = np.rint(confidence * np.float32(CONFIDENCE_STEPS)).clip(0, CONFIDENCE_STEPS)
            self.confidence += np.bincount(
                steps.astype(np.uint16).ravel(), minlength=CONFIDENCE_STEPS + 1
            )
        if label is not None and truth is not None:
            counted = truth < self.classes
            if self.drop_no_class:
                counted &= found < self.classes
            self.ids[0] += np.bincount(label.ravel(), minlength=256)
            self.ids[1] += np.bincount(mask[counted], minlength=256)
            self._add_labelled(truth, found, counted, confidence)
        if before is not None:
            old = self.scored.predicted_of(before[0])
            self.flicker.add_pair((old, before[1]), (self.scored.predicted_of(mask), label))
        if other is not None:
            first, second = (self.scored.predicted_of(each) for each in (mask, other))
            pairs = first.astype(np.int64) * (self.classes + 1) + second
            counts = np.bincount(pairs.ravel(), minlength=self.agreement.size)
            self.agreement += counts.reshape(self.agreement.shape)

    def _add_labelled(
        self,
        truth: Ids,
        found: Ids,
        counted: npt.NDArray[np.bool_],
        confidence: npt.NDArray[np.floating] | None,
    ) -> None:
        confusion = Confusion(self.classes)
        confusion.add(truth, found)
        if self.drop_no_class:
            confusion.matrix[:, self.classes] = 0
        self.confusion.matrix += confusion.matrix
        if self.boundary_tolerance is not None:
            self.boundary.add(truth, found)
        if confidence is not None:
            right = truth[counted] == found[counted]
            self.calibration.add(confidence[counted], right)
            self.error_detection.add(confidence[counted], right)

    def merge(self, other: "Scorer") -> None:
        """Add the counts of another scorer of the same classes."""
        for mine, theirs in zip(self._counts().values(), other._counts().values(), strict=True):
            mine += theirs

    def to_json(self) -> dict[str, list[int]]:
        """Return the counts for `from_json`."""
        return {name: counts.ravel().tolist() for name, counts in self._counts().items()}

    @staticmethod
    def from_json(content: Mapping[str, Any], labels: Sequence[Label] | ScoredLabels) -> "Scorer":
        """Return the scorer with the counts that `to_json` returned."""
        scorer = Scorer(labels)
        for name, counts in scorer._counts().items():
            counts.ravel()[:] = content[name]
        return scorer

    def _counts(self) -> dict[str, Counts]:
        return {
            "confusion": self.confusion.matrix,
            "boundary": self.boundary.counts,
            "calibration": self.calibration.counts,
            "error_detection": self.error_detection.counts,
            "changes": self.flicker.counts,
            "predicted": self.predicted,
            "confidence": self.confidence,
            "agreement": self.agreement,
            "frames": self.frames,
            "ids": self.ids,
        }

    def counted_as(self, known: Sequence[Label]) -> CountedAs:
        """Return how the classes of a model, `known`, and the labels of the data were counted."""
        return CountedAs(
            self.scored.merged(known),
            self.predicted_outside(known),
            self.not_scored(),
            self.scored.recall_only_pixels(self.confusion.labelled),
        )

    def not_scored(self) -> dict[str, int]:
        """Pixels of the data's labels that count as none of the scored ones, by name."""
        names = {label.id: label.name for label in (*CITYSCAPES, *self.scored.own.values())}
        left_out = np.flatnonzero((self.scored.truth == self.classes) & (self.ids[0] > 0))
        return {
            names.get(i, f"id {i}"): int(self.ids[0, i])
            for i in left_out.tolist()
            if i != UNLABELLED
        }

    def predicted_outside(self, known: Sequence[Label] = CITYSCAPES) -> dict[str, int]:
        """Scored pixels whose predicted class, one of `known`, counts as none of the labels."""
        names = {UNLABELLED: "no class", **{label.id: label.name for label in known}}
        outside = np.flatnonzero((self.scored.predicted == self.classes) & (self.ids[1] > 0))
        return {names.get(i, f"id {i}"): int(self.ids[1, i]) for i in outside.tolist()}

    def mean_confidence(self) -> float:
        """Return the mean of all rounded confidences; NaN without pixels."""
        pixels, steps = int(self.confidence.sum()), np.arange(CONFIDENCE_STEPS + 1)
        return (
            int(self.confidence @ steps) / (CONFIDENCE_STEPS * pixels) if pixels else float("nan")
        )

    def confidence_quantile(self, share: float) -> float:
        """Return the confidence that this share of all pixels does not exceed; NaN if no pixels."""
        below = np.cumsum(self.confidence)
        if not below[-1]:
            return float("nan")
        return int(np.searchsorted(below, share * below[-1])) / CONFIDENCE_STEPS

    def agreement_share(self) -> float:
        """Return the share of pixels where both models agree; NaN without another model."""
        pixels = int(self.agreement.sum())
        return int(np.trace(self.agreement)) / pixels if pixels else float("nan")

    def agreement_by_class(self) -> list[float]:
        """Return, per class, the IoU of the two models' masks; NaN where neither has the class."""
        both = np.diagonal(self.agreement)[:-1]
        either = (self.agreement.sum(0) + self.agreement.sum(1))[:-1] - both
        return [int(b) / int(e) if e else float("nan") for b, e in zip(both, either, strict=True)]
