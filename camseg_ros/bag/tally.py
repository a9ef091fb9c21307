"""Everything that an evaluation counts, as whole numbers: parts of a bag, counted anywhere, add up to exactly what one walk counts."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.calibration import CALIBRATION_BINS
from camseg_core.evaluation.metrics import BOUNDARY_TOLERANCE, BoundaryF1, Confusion, Flicker
from camseg_core.labels import Label, index_table

Ids = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

LEVELS = 3000
"""Confidences are counted in steps of 1 / LEVELS; the bins of the calibration error are whole numbers of steps."""

MILLIONTHS = 1_000_000
"""Boundary scores of frames are summed in steps of 1 / MILLIONTHS."""


@dataclass(frozen=True)
class Tally:
    """Counts over frames, all int64, for C classes; index C stands for what is none of them.

    `confusion` `(C, C + 1)` has the labelled pixels by true and by predicted class, `predicted` `(C + 1,)` all pixels by predicted class.
    `confidence` `(3, LEVELS + 1)` has by confidence all pixels, the labelled ones, and the right ones. `boundary` `(2, C)` has the sum of
    boundary F1 in millionths and the number of frames in it. `changes` `(4,)` is of pairs of consecutive frames: pixels that changed
    their predicted class, all pixels, those changed where the true class stayed, all where it stayed. `agreement` `(C + 1, C + 1)` has all
    pixels by the class of this model and of the one compared. `frames` `(2,)` has all frames, and those with a label.
    """

    confusion: Counts
    predicted: Counts
    confidence: Counts
    boundary: Counts
    changes: Counts
    agreement: Counts
    frames: Counts

    @staticmethod
    def empty(classes: int) -> "Tally":
        """Nothing counted yet."""
        shapes = (
            (classes, classes + 1),
            (classes + 1,),
            (3, LEVELS + 1),
            (2, classes),
            (4,),
            (classes + 1, classes + 1),
            (2,),
        )
        return Tally(*(np.zeros(shape, np.int64) for shape in shapes))

    def add(self, other: "Tally") -> None:
        """Count what `other` counted as well."""
        for field in fields(self):
            mine = getattr(self, field.name)
            mine += getattr(other, field.name)

    def to_json(self) -> dict[str, list[int]]:
        """Lists by name, for `from_json`."""
        return {field.name: getattr(self, field.name).ravel().tolist() for field in fields(self)}

    @staticmethod
    def from_json(content: dict[str, list[int]], classes: int) -> "Tally":
        """What `to_json` gave."""
        empty = Tally.empty(classes)
        for field in fields(empty):
            getattr(empty, field.name).ravel()[:] = content[field.name]
        return empty

    def confusion_matrix(self) -> Confusion:
        """As the scores of `camseg evaluate` are computed from it."""
        confusion = Confusion(len(self.confusion))
        confusion.matrix += self.confusion
        return confusion

    def mean_confidence(self) -> float:
        """Over all pixels; NaN before the first."""
        pixels = int(self.confidence[0].sum())
        return (
            int(self.confidence[0] @ np.arange(LEVELS + 1)) / (LEVELS * pixels)
            if pixels
            else float("nan")
        )

    def confidence_quantile(self, share: float) -> float:
        """The confidence that this share of all pixels does not exceed; NaN before the first pixel."""
        below = np.cumsum(self.confidence[0])
        return (
            int(np.searchsorted(below, share * below[-1])) / LEVELS if below[-1] else float("nan")
        )

    def calibration_error(self) -> float:
        """Expected calibration error, see `camseg_core.evaluation.calibration`, of confidences rounded to a step; NaN without labels."""
        pixels = int(self.confidence[1].sum())
        if not pixels:
            return float("nan")
        step = LEVELS // CALIBRATION_BINS
        bins = np.maximum(-(-np.arange(LEVELS + 1) // step) - 1, 0)
        gaps = np.zeros(CALIBRATION_BINS, np.int64)
        np.add.at(
            gaps, bins, LEVELS * self.confidence[2] - np.arange(LEVELS + 1) * self.confidence[1]
        )
        return int(np.abs(gaps).sum()) / (LEVELS * pixels)

    def boundary_f1(self) -> float:
        """Mean over the classes of their mean over frames, see `BoundaryF1`; NaN where no class has a boundary."""
        summed, frames = self.boundary[:, self.boundary[1] > 0]
        return float((summed / (MILLIONTHS * frames)).mean()) if frames.size else float("nan")

    def change_rate(self) -> float:
        """Share of pixels whose predicted class changes from a frame to the next; NaN without a pair of frames."""
        return int(self.changes[0]) / int(self.changes[1]) if self.changes[1] else float("nan")

    def flicker(self) -> float:
        """Share of the pixels whose true class stays from a frame to the next, but whose predicted class changes; NaN without any."""
        return int(self.changes[2]) / int(self.changes[3]) if self.changes[3] else float("nan")

    def agreement_share(self) -> float:
        """Share of pixels to which both models give the same class; NaN without a second model."""
        pixels = int(self.agreement.sum())
        return int(np.trace(self.agreement)) / pixels if pixels else float("nan")

    def agreement_by_class(self) -> list[float]:
        """Per class, pixels that both models give it over those that either does; NaN where neither does."""
        both = np.diagonal(self.agreement)[:-1]
        either = (self.agreement.sum(0) + self.agreement.sum(1))[:-1] - both
        return [int(b) / int(e) if e else float("nan") for b, e in zip(both, either, strict=True)]


class Counter:
    """Counts single frames for a model's classes."""

    def __init__(self, labels: tuple[Label, ...]) -> None:
        self.classes = len(labels)
        self._index = index_table(labels, other=self.classes)

    def count(
        self,
        mask: Ids,
        confidence: npt.NDArray[np.float32],
        truth: Ids | None,
        before: tuple[Ids, Ids | None] | None,
        other: Ids | None,
    ) -> Tally:
        """One frame; all arrays `(H, W)`, ids are train ids.

        Args:
            mask: the prediction.
            confidence: of the predicted class, 0..1.
            truth: the label, if there is one.
            before: mask and label of the frame before, if there is one; not counted where it has another size.
            other: the prediction of the model to compare with, if there is one.
        """
        tally = Tally.empty(self.classes)
        found = self._index_of(mask)
        levels = np.rint(confidence * np.float32(LEVELS)).clip(0, LEVELS).astype(np.uint16)
        tally.predicted[:] = np.bincount(found.ravel(), minlength=self.classes + 1)
        tally.confidence[0] = np.bincount(levels.ravel(), minlength=LEVELS + 1)
        tally.frames[0] = 1
        if truth is not None:
            tally.frames[1] = 1
            self._score(tally, self._index_of(truth), found, levels)
        if before is not None and before[0].shape == mask.shape:
            flicker = Flicker()
            flicker.add_pair(before, (mask, truth))
            tally.changes[:] = flicker.counts
        if other is not None:
            pairs = found.astype(np.int64) * (self.classes + 1) + self._index_of(other)
            tally.agreement.ravel()[:] = np.bincount(pairs.ravel(), minlength=tally.agreement.size)
        return tally

    def _score(self, tally: Tally, truth: Ids, found: Ids, levels: npt.NDArray[np.uint16]) -> None:
        confusion = Confusion(self.classes)
        confusion.add(truth, found)
        tally.confusion[:] = confusion.matrix
        known = truth < self.classes
        tally.confidence[1] = np.bincount(levels[known], minlength=LEVELS + 1)
        tally.confidence[2] = np.bincount(levels[known & (truth == found)], minlength=LEVELS + 1)
        boundary = BoundaryF1(self.classes, BOUNDARY_TOLERANCE).add(truth, found)
        scored = ~np.isnan(boundary)
        tally.boundary[0, scored] = np.rint(boundary[scored] * MILLIONTHS)
        tally.boundary[1] = scored

    def _index_of(self, ids: Ids) -> Ids:
        return np.asarray(cv2.LUT(ids, self._index), np.uint8)
