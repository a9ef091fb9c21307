"""Scores of masks against labels, from a confusion matrix."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camseg_core.labels import Label

GROUPS = ("frequent", "common", "rare")
"""The groups of classes that `frequency_groups` makes, by falling share of the labels."""


class Confusion:
    """Counts of (label, prediction) pairs over class ids `0..classes-1`; pixels whose label is outside are not counted.

    `matrix` is `(classes, classes + 1)`, int64, rows the labels; the last column counts predictions that are no class.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes, classes + 1), np.int64)

    def add(self, label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count one frame: two arrays of the same shape holding class ids."""
        known = label < self.classes
        columns = np.minimum(prediction[known].astype(np.int64), self.classes)
        index = label[known].astype(np.int64) * (self.classes + 1) + columns
        self.matrix += np.bincount(index, minlength=self.matrix.size).reshape(self.matrix.shape)

    @property
    def hits(self) -> npt.NDArray[np.int64]:
        """Pixels per class whose label and prediction it is."""
        return np.diagonal(self.matrix)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Pixels per class whose label it is."""
        return np.asarray(self.matrix.sum(1))

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Pixels per class whose prediction it is, where there is a label."""
        return np.asarray(self.matrix.sum(0)[: self.classes])

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, NaN for a class that neither labels nor predictions contain."""
        return _ratio(self.hits, self.labelled + self.predicted - self.hits)

    def group_iou(self, members: Sequence[int]) -> float:
        """IoU of several classes taken as one, NaN where neither labels nor predictions contain any of them."""
        inside = np.asarray(members, np.intp)
        hits = int(self.matrix[np.ix_(inside, inside)].sum())
        union = int(self.labelled[inside].sum() + self.predicted[inside].sum()) - hits
        return hits / union if union else float("nan")

    def without_no_class(self) -> "Confusion":
        """The counts without those of predictions that are no class."""
        result = Confusion(self.classes)
        result.matrix[:, : self.classes] = self.matrix[:, : self.classes]
        return result

    def precision(self) -> npt.NDArray[np.float64]:
        """TP / (TP + FP) per class: 0 for a labelled class that is never predicted, NaN for one that does not occur at all."""
        ratio = _ratio(self.hits, self.predicted)
        return np.where((self.predicted == 0) & (self.labelled > 0), 0.0, ratio)

    def recall(self) -> npt.NDArray[np.float64]:
        """TP / (TP + FN) per class, NaN for a class that the labels do not contain."""
        return _ratio(self.hits, self.labelled)

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN where none does."""
        return mean(self.iou())

    def accuracy(self) -> float:
        """Share of labelled pixels whose class is right."""
        return float(self.hits.sum() / max(1, self.matrix.sum()))


def frequency_groups(confusion: Confusion) -> list[str | None]:
    """The group of every class: `frequent`, `common` or `rare`, None for a class that neither labels nor predictions contain.

    The classes that occur are ordered by the number of pixels that the labels give them, the most first and equal ones in the
    order of their ids, and cut into three groups of equal size; what three does not divide goes to the earlier groups (11
    classes: 4, 4 and 3). The paper (arXiv 2503.15617) speaks of such groups; these are ours, made from the labels at hand.
    """
    present = np.flatnonzero(~np.isnan(confusion.iou()))
    ordered = present[np.argsort(-confusion.labelled[present], kind="stable")]
    groups: list[str | None] = [None] * confusion.classes
    for group, members in zip(GROUPS, np.array_split(ordered, len(GROUPS)), strict=True):
        for index in members:
            groups[index] = group
    return groups


def mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN where all are."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def scores(confusion: Confusion, labels: tuple[Label, ...]) -> dict[str, object]:
    """Mean IoU over the classes that occur, pixel accuracy, and IoU by name of `labels`, whose ids index the confusion; four decimals."""
    iou = confusion.iou()
    return {
        "mean_iou": round(confusion.mean_iou(), 4),
        "pixel_accuracy": round(confusion.accuracy(), 4),
        "iou": {label.name: round(float(iou[label.id]), 4) for label in labels},
    }
