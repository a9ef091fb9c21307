"""Scores of masks against labels, from a confusion matrix."""

import numpy as np
import numpy.typing as npt


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

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, NaN for a class that neither labels nor predictions contain."""
        hits = np.diagonal(self.matrix).astype(np.float64)
        union = self.matrix.sum(1) + self.matrix.sum(0)[: self.classes] - hits
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(union > 0, hits / union, np.nan))

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return float(np.nanmean(self.iou()))

    def accuracy(self) -> float:
        """Share of labelled pixels whose class is right."""
        return float(np.diagonal(self.matrix).sum() / max(1, self.matrix.sum()))
