"""Boundary F1: how well the edges of the classes in a mask follow those in its label."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.metrics import Booleans, mean, ratio, without

BOUNDARY_TOLERANCE = 0.0075
"""Largest distance of matching boundaries, as a share of the diagonal (Csurka et al. 2013)."""

LEAST_COUNTED = 0.5
"""Smallest share of a class's boundary that must be away from void pixels for a boundary F1."""

F1_STEPS = 10**9
"""F1 is rounded to 1e-9 so that sums are whole numbers: enough for 9e9 frames."""


class BoundaryF1:
    """BF score of Csurka et al., "What is a good evaluation measure for semantic segmentation?".

    A boundary pixel of a class has a pixel of another class above, below, left or right of it. Per
    frame and class, precision is the share of the mask's boundary pixels within the tolerance of
    one of the label's, recall the reverse, and F1 their harmonic mean. A class's score is its mean
    F1 over the frames in which label or mask has its boundary (0 if only one of them has); the mean
    is over classes.

    Where the label is void, boundaries are unknown. The edge of a void area is therefore not a
    boundary, and boundary pixels within the tolerance of a void pixel are not counted, but pixels
    of the other boundary may match them. Precision or recall without pixels to count is 1.

    A class has no score if less than `LEAST_COUNTED` of its labels' edge, over all frames, counts:
    labels with void along every object say nothing about boundaries. Nor have classes that are
    `recall_only`, see `Confusion`.
    """

    def __init__(
        self,
        classes: int,
        tolerance: float = BOUNDARY_TOLERANCE,
        recall_only: Booleans | None = None,
    ) -> None:
        self.tolerance, self._recall_only = tolerance, recall_only
        self.counts = np.zeros((4, classes), np.int64)
        """By class: the sum of F1 in steps of 1 / `F1_STEPS` and the number of frames in it; pixels
        at the edge of its labels, also where void begins, and those of them that count."""

    def add(
        self, label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Count a frame, two arrays `(H, W)` of class indices; other label values are void.

        Returns:
            F1 per class `(classes,)`, NaN for a class without a boundary.
        """
        classes = self.counts.shape[1]
        reach = self.tolerance * math.hypot(*label.shape)
        known = label < classes
        counted = ~_near(~known, reach)
        scores = np.full(classes, np.nan)
        for index in np.union1d(label, prediction):
            if index < classes:
                window = _window((label == index) | (prediction == index))
                truth, found = label[window] == index, prediction[window] == index
                true_boundary = _boundary(truth, known[window] & ~truth)
                scores[index] = _f1(true_boundary, _boundary(found, ~found), counted[window], reach)
                self.counts[2, index] += np.count_nonzero(_boundary(truth, ~truth))
                self.counts[3, index] += np.count_nonzero(true_boundary & counted[window])
        scored = ~np.isnan(scores)
        self.counts[0, scored] += np.rint(scores[scored] * F1_STEPS).astype(np.int64)
        self.counts[1] += scored
        return scores

    def per_class(self) -> npt.NDArray[np.float64]:
        """Return the score per class, NaN for a class without a boundary that can be scored."""
        found = without(ratio(self.counts[0], F1_STEPS * self.counts[1]), self._recall_only)
        return without(found, self.unknown())

    def unknown(self) -> Booleans:
        """Return of which classes too little of the boundary counts, `(classes,)`."""
        return self.counts[3] < LEAST_COUNTED * self.counts[2]

    def mean(self) -> float:
        """Return the mean of `per_class` over the classes that have a score; NaN if none has."""
        return mean(self.per_class())


def _f1(truth: Booleans, found: Booleans, counted: Booleans, reach: float) -> float:
    """Return the F1 of two boundaries, NaN if neither has a pixel to count."""
    truth_counted, found_counted = truth & counted, found & counted
    if not truth_counted.any() and not found_counted.any():
        return math.nan
    precision = _share(found_counted, _near(truth, reach))
    recall = _share(truth_counted, _near(found, reach))
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _window(pixels: Booleans) -> tuple[slice, slice]:
    """Return the rows and columns around `pixels`, with a margin of 1: boundaries lie inside."""
    x, y, width, height = cv2.boundingRect(pixels.view(np.uint8))
    return slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)


def _boundary(inside: Booleans, outside: Booleans) -> Booleans:
    """Return the pixels of `inside` that share a side with one of `outside`."""
    touched = cv2.dilate(outside.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return inside & touched.astype(bool)


def _near(pixels: Booleans, reach: float) -> Booleans:
    """Return where one of `pixels` is at most `reach` pixels away."""
    if not pixels.any():  # OpenCV does not define the distance to nothing
        return pixels
    distance = cv2.distanceTransform((~pixels).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= reach)


def _share(pixels: Booleans, within: Booleans) -> float:
    """Return the share of `pixels` that lies in `within`; 1 without pixels."""
    count = np.count_nonzero(pixels)
    return np.count_nonzero(pixels & within) / count if count else 1.0
