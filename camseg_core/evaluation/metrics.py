"""Scores of masks against labels, from int64 counts that add up over frames without rounding."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camseg_core.labels import UNLABELLED, Label

Ids = npt.NDArray[np.uint8]
Booleans = npt.NDArray[np.bool_]

GROUPS = ("frequent", "common", "rare")
"""The groups of `frequency_groups`, by falling share of the labels."""


class Confusion:
    """Counts of (label, prediction) pairs over class indices `0..classes-1`.

    Pixels with another label are not counted. `matrix` is `(classes, classes + 1)`, int64, rows the
    labels; the last column counts other predictions.

    Args:
        classes: their number.
        recall_only: whether a class is only predicted where it is right, `(classes,)`, see
            `ScoredLabels.recall_only`: its precision and IoU would be too good, and are NaN.
    """

    def __init__(self, classes: int, recall_only: Booleans | None = None) -> None:
        self.classes, self._recall_only = classes, recall_only
        self.matrix = np.zeros((classes, classes + 1), np.int64)

    def add(self, label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count a frame: two arrays of one shape with class indices."""
        known = label < self.classes
        columns = np.minimum(prediction[known].astype(np.int64), self.classes)
        index = label[known].astype(np.int64) * (self.classes + 1) + columns
        self.matrix += np.bincount(index, minlength=self.matrix.size).reshape(self.matrix.shape)

    @property
    def hits(self) -> npt.NDArray[np.int64]:
        """Pixels per class that are labelled and predicted as it."""
        return np.diagonal(self.matrix)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Pixels per class that are labelled as it."""
        return np.asarray(self.matrix.sum(1))

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Labelled pixels per class that are predicted as it."""
        return np.asarray(self.matrix.sum(0)[: self.classes])

    def stray(self) -> Booleans:
        """Return which classes are predicted but never labelled, `(classes,)`."""
        return np.asarray((self.predicted > 0) & (self.labelled == 0))

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the IoU per class, NaN for a class in neither labels nor predictions."""
        found = ratio(self.hits, self.labelled + self.predicted - self.hits)
        return without(found, self._recall_only)

    def group_iou(self, members: Sequence[int]) -> float:
        """Return the IoU of several classes taken as one, NaN if none of them occurs."""
        inside = np.asarray(members, np.intp)
        hits = int(self.matrix[np.ix_(inside, inside)].sum())
        union = int(self.labelled[inside].sum() + self.predicted[inside].sum()) - hits
        return hits / union if union else float("nan")

    def precision(self) -> npt.NDArray[np.float64]:
        """Return TP / (TP + FP) per class: 0 if labelled but never predicted, NaN if absent."""
        right = ratio(self.hits, self.predicted)
        found = np.where((self.predicted == 0) & (self.labelled > 0), 0.0, right)
        return without(found, self._recall_only)

    def recall(self) -> npt.NDArray[np.float64]:
        """Return TP / (TP + FN) per class, NaN for a class without labels."""
        return ratio(self.hits, self.labelled)

    def mean_iou(self) -> float:
        """Return the mean of `iou` over the classes that occur; NaN if none does.

        As Cityscapes' official evaluation: a class that is predicted but never labelled counts 0.
        So do not compare two of these, of models or conditions: see `labelled_mean_iou`.
        """
        return mean(self.iou())

    def labelled_mean_iou(self, among: Booleans | None = None) -> float:
        """Return the mean of `iou` over labelled classes; NaN if there are none.

        The classes depend on the labels alone, so such means of the same frames can be compared;
        where `recall_only` differs, over the classes `among` that are judged on both sides.
        """
        return mean(self.iou()[self._labelled_among(among)])

    def labelled_precision(self, among: Booleans | None = None) -> float:
        """Return the mean of `precision` over labelled classes (AP); NaN if there are none."""
        return mean(self.precision()[self._labelled_among(among)])

    def _labelled_among(self, among: Booleans | None) -> Booleans:
        labelled = np.asarray(self.labelled > 0)
        return labelled if among is None else labelled & among

    def accuracy(self) -> float:
        """Return the share of labelled pixels whose class is right."""
        return float(self.hits.sum() / max(1, self.matrix.sum()))


def frequency_groups(confusion: Confusion) -> list[str | None]:
    """Return the group of every class: `frequent`, `common` or `rare`, None if it does not occur.

    The classes that occur in labels or predictions are sorted by their labelled pixels, ties by
    index, and cut into three groups of equal size; a remainder goes to the earlier groups (11
    classes: 4, 4 and 3). The paper (arXiv 2503.15617) has such groups too; these are made from the
    given labels.
    """
    present = np.flatnonzero(~np.isnan(confusion.iou()))
    ordered = present[np.argsort(-confusion.labelled[present], kind="stable")]
    groups: list[str | None] = [None] * confusion.classes
    for group, members in zip(GROUPS, np.array_split(ordered, len(GROUPS)), strict=True):
        for index in members:
            groups[index] = group
    return groups


def mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if all are."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the shares of counts, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def without(values: npt.NDArray[np.float64], left_out: Booleans | None) -> npt.NDArray[np.float64]:
    """Return the values, NaN where one is left out."""
    return values if left_out is None else np.where(left_out, np.nan, values)


def scores(confusion: Confusion, labels: tuple[Label, ...]) -> dict[str, object]:
    """Return mean IoU, pixel accuracy and IoU by class name, with four decimals, for JSON.

    The ids of `labels` are indices into the confusion. None stands for a score that the labels do
    not define.
    """

    def rounded(score: float) -> float | None:
        return None if math.isnan(score) else round(score, 4)

    iou = confusion.iou()
    return {
        "mean_iou": rounded(confusion.mean_iou()),
        "pixel_accuracy": rounded(confusion.accuracy()),
        "iou": {label.name: rounded(float(iou[label.id])) for label in labels},
    }


class Flicker:
    """Counts how often a video's masks change class from frame to frame.

    With labels, use `flicker`: a class that changes where the true class stays is wrong in one of
    the two frames. `change_rate` needs no labels but also counts real motion, so it compares
    settings on one video, not videos.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(4, np.int64)
        """Over pairs of frames: pixels that change class, all pixels, pixels that change class
        although the true class stays, pixels whose true class stays."""
        self._last: tuple[Ids, Ids | None] | None = None

    def add(self, mask: Ids, label: Ids | None = None) -> None:
        """Count the next frame of a video: mask and, if known, label, both `(H, W)` uint8.

        A frame whose size differs from that of the frame before makes no pair with it.
        """
        if self._last is not None:
            self.add_pair(self._last, (mask, label))
        self._last = mask, label

    def cut(self) -> None:
        """Start another video: its first frame makes no pair with the last one added."""
        self._last = None

    def add_pair(self, before: tuple[Ids, Ids | None], now: tuple[Ids, Ids | None]) -> None:
        """Count two consecutive frames, each a mask and its label or None; none if sizes differ."""
        (old, old_label), (new, label) = before, now
        if old.shape != new.shape:
            return
        changed = old != new
        self.counts[:2] += np.count_nonzero(changed), changed.size
        if old_label is not None and label is not None:
            steady = (old_label == label) & (label != UNLABELLED)
            self.counts[2:] += np.count_nonzero(changed & steady), np.count_nonzero(steady)

    @property
    def flicker(self) -> float:
        """Share of the pixels with a constant true class that change class, 0..1; NaN if none."""
        return self._share(2)

    @property
    def change_rate(self) -> float:
        """Share of all pixels that change class, 0..1; NaN without a pair of frames."""
        return self._share(0)

    def _share(self, at: int) -> float:
        part, whole = self.counts[at : at + 2].tolist()
        return part / whole if whole else math.nan
