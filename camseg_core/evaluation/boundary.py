"""How well the outlines of masks follow those of labels."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.metrics import mean

BOUNDARY_TOLERANCE = 0.0075
"""How far apart two boundaries may lie and still match, as a share of the image's diagonal (Csurka et al. 2013)."""

Booleans = npt.NDArray[np.bool_]


class BoundaryF1:
    """The BF score of Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013.

    A boundary pixel of a class is a pixel of that class with one of another class above, below, left or right of it. In every
    frame and for every class, precision is the share of the mask's boundary pixels that lie within the tolerance of one of the
    label's, recall the reverse, and F1 their harmonic mean. A class's score is its mean F1 over the frames in which its boundary
    occurs in label or mask (0 where it occurs in one alone); the mean is over classes.

    Where the label is void nobody knows whether there is a boundary, so the edge of a void area is none, and boundary pixels
    within the tolerance of a void pixel are not counted, though a pixel of the other side may match them. A side that has no
    pixel to count has none wrong (its share is 1).
    """

    def __init__(self, classes: int, tolerance: float = BOUNDARY_TOLERANCE) -> None:
        self.tolerance = tolerance
        self._sum, self._frames = np.zeros(classes), np.zeros(classes, np.int64)

    def add(self, label: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Score one frame, two arrays `(H, W)` of class ids; a label that is no class is void.

        Returns:
            F1 per class `(classes,)`, NaN for a class without boundary.
        """
        classes = len(self._sum)
        reach = self.tolerance * math.hypot(*label.shape)
        known = label < classes
        counted = ~_near(~known, reach)
        scores = np.full(classes, np.nan)
        for index in np.union1d(label, prediction):
            if index < classes:
                window = _window((label == index) | (prediction == index))
                truth, found = label[window] == index, prediction[window] == index
                scores[index] = _f1(_boundary(truth, known[window] & ~truth), _boundary(found, ~found), counted[window], reach)
        scored = ~np.isnan(scores)
        self._sum[scored] += scores[scored]
        self._frames[scored] += 1
        return scores

    def per_class(self) -> npt.NDArray[np.float64]:
        """Score per class, NaN for one that had no boundary in any frame."""
        return np.divide(self._sum, self._frames, out=np.full(self._sum.shape, np.nan), where=self._frames > 0)

    def mean(self) -> float:
        """Mean of `per_class` over the classes that have a score; NaN where none has."""
        return mean(self.per_class())


def _f1(truth: Booleans, found: Booleans, counted: Booleans, reach: float) -> float:
    """F1 of two boundaries, NaN where neither has a pixel to count."""
    truth_counted, found_counted = truth & counted, found & counted
    if not truth_counted.any() and not found_counted.any():
        return math.nan
    precision = _share(found_counted, _near(truth, reach))
    recall = _share(truth_counted, _near(found, reach))
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _window(pixels: Booleans) -> tuple[slice, slice]:
    """Rows and columns of `pixels` and one more on each side: no boundary and no distance between boundaries goes beyond."""
    x, y, width, height = cv2.boundingRect(pixels.view(np.uint8))
    return slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1)


def _boundary(inside: Booleans, outside: Booleans) -> Booleans:
    """The pixels of `inside` that touch one of `outside` along a side."""
    touched = cv2.dilate(outside.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return inside & touched.astype(bool)


def _near(pixels: Booleans, reach: float) -> Booleans:
    """Where one of `pixels` lies at most `reach` pixels away."""
    if not pixels.any():  # OpenCV's distance to nothing is not defined
        return pixels
    distance = cv2.distanceTransform((~pixels).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= reach)


def _share(pixels: Booleans, within: Booleans) -> float:
    """How much of `pixels` lies in `within`; 1 where there are none."""
    count = np.count_nonzero(pixels)
    return np.count_nonzero(pixels & within) / count if count else 1.0
