"""Measures of confidence: calibration and error detection; the fit of the logit scale."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, repeat

import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.errors import DataError
from camseg_core.groups import ScoredLabels
from camseg_core.labels import Label
from camseg_core.runtime.segmenter import Segmenter

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""

CONFIDENCE_UNIT = 2**24
"""Confidences are summed in steps of 1 / `CONFIDENCE_UNIT`, which is exact for float32 >= 0.5."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The labelled pixels with a confidence in `(low, high]`: count, mean confidence and accuracy.

    The last two are NaN for an empty bin.
    """

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


class Calibration:
    """Expected calibration error: Guo et al., "On calibration of modern neural networks", 2017.

    Confidences fall into bins of equal width over 0..1; the error is the mean over pixels of the
    distance between their bin's mean confidence and accuracy.
    """

    def __init__(self, bins: int = CALIBRATION_BINS) -> None:
        self.counts = np.zeros((3, bins), np.int64)
        """By bin: pixels, correct pixels, and summed confidences in steps of 2^-24."""

    def add(self, confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> None:
        """Count labelled pixels: confidence of the predicted class, and if it is right, `(N,)`."""
        bins, values = self.counts.shape[1], confidence.astype(np.float64)
        index = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
        self.counts[0] += np.bincount(index, minlength=bins)
        self.counts[1] += np.bincount(index[correct], minlength=bins)
        steps = np.rint(values * CONFIDENCE_UNIT)  # doubles below hold their sums exactly
        self.counts[2] += np.bincount(index, weights=steps, minlength=bins).astype(np.int64)

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """Return the reliability diagram, from low confidence to high."""
        pixels, correct, summed = self.counts
        count, filled = len(pixels), np.maximum(pixels, 1)
        confidence, accuracy = (
            np.where(pixels > 0, sums / filled, np.nan)
            for sums in (summed / CONFIDENCE_UNIT, correct)
        )
        return tuple(
            ReliabilityBin(i / count, (i + 1) / count, int(n), float(c), float(a))
            for i, (n, c, a) in enumerate(zip(pixels, confidence, accuracy, strict=True))
        )

    def error(self) -> float:
        """Return the expected calibration error, 0..1; NaN before the first pixel."""
        pixels, correct, summed = self.counts
        if not pixels.any():
            return float("nan")
        gaps = np.abs(CONFIDENCE_UNIT * correct - summed)
        return int(gaps.sum()) / (CONFIDENCE_UNIT * int(pixels.sum()))


STEPS_AN_OCTAVE = 128
OCTAVES = 24  # float32 has no confidence between 1 - 2^-24 and 1


class ErrorDetection:
    """Measures how well confidences rank wrong pixels below right ones, on any scale.

    Uncertainties, 1 - confidence, are counted on a logarithmic scale in steps of half a per cent,
    down to 2^-24; pixels within a step count as equally confident.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((2, STEPS_AN_OCTAVE * OCTAVES + 1), np.int64)
        """By falling uncertainty: right pixels, wrong pixels."""

    def add(self, confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> None:
        """Count labelled pixels: confidence of the predicted class, and if it is right, `(N,)`."""
        uncertainty = (1 - confidence.astype(np.float64)).clip(2.0**-OCTAVES, 1)
        index = np.rint(-STEPS_AN_OCTAVE * np.log2(uncertainty)).astype(np.intp)
        for counts, pixels in zip(self.counts, (index[correct], index[~correct]), strict=True):
            counts += np.bincount(pixels, minlength=counts.size)

    def auroc(self) -> float:
        """Return the probability that a wrong pixel is less confident than a right one, ties half.

        This is the area under the ROC curve of detecting errors (Hendrycks and Gimpel, arXiv
        1610.02136): 0.5 for uninformative confidences, NaN unless some pixels are right and some
        wrong.
        """
        right, wrong = self.counts.astype(np.float64)
        pairs = right.sum() * wrong.sum()
        below = np.cumsum(wrong) - wrong / 2
        return float(right @ below / pairs) if pairs else float("nan")

    def area_under_risk_coverage(self) -> float:
        """Return the share of wrong pixels among the most confident ones, mean over all coverages.

        Lower is better (Geifman et al., arXiv 1805.08206). Pixels that are equally confident are
        taken in random order. NaN before the first pixel.
        """
        taken = errors = area = 0.0
        for right, wrong in self.counts[:, ::-1].T[self.counts[:, ::-1].any(0)].tolist():
            pixels = right + wrong
            rate = wrong / pixels
            # the integral of (errors + rate * t) / (taken + t) over t from 0 to `pixels`
            area += rate * pixels
            if taken:
                area += (errors - rate * taken) * np.log1p(pixels / taken)
            taken, errors = taken + pixels, errors + wrong
        return area / taken if taken else float("nan")


_STEP = 4
"""Between the logit scales to try first, in twelfths of powers of 2."""

_FIRST = range(-16, 17, _STEP)
"""Exponents of the logit scales to try first, 0.4 to 2.5; further ones if the best is an end."""

_FINE = (2, 1)
"""Steps to try next, on either side of the best so far."""

_LIMIT = 60
"""Largest exponent: logit scales are at most 32, and at least 1/32."""

PASSES = len(_FIRST) + 2 * len(_FINE)
"""Number of times the frames are segmented, if the best is within the first logit scales."""


@dataclass(frozen=True)
class LogitScaleFit:
    """The best `logit_scale`, and the expected calibration error at 1 and at the best.

    `frames` is the number of frames with a labelled pixel. `at_limit`: the search ended at its
    smallest or largest logit scale, and one beyond may be better.
    """

    logit_scale: float
    error_at_one: float
    error: float
    frames: int
    at_limit: bool = False

    @property
    def caution(self) -> str:
        """A line to report if the search ended at its limit, else empty."""
        if not self.at_limit:
            return ""
        return (
            f"the best logit_scale should be within {_scale(-_LIMIT):g} and {_scale(_LIMIT):g}, "
            f"got {self.logit_scale:g}: check that the labels fit the model, or calibrate on more "
            "frames"
        )


def fit_logit_scale(
    segmenter: Segmenter,
    samples: Samples | Sequence[Sample],
    labels: Sequence[Label] | ScoredLabels,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda samples: samples,
) -> LogitScaleFit:
    """Find the logit scale whose confidences best predict whether a pixel is right.

    This is temperature scaling (Guo et al. 2017), fitted to the logarithmic score of "this pixel is
    right" over all labelled pixels. That is a proper score, unlike the calibration error, which a
    constant confidence equal to the mean accuracy brings to 0. The segmenter's own logit scale does
    not matter.

    Args:
        segmenter: the model.
        samples: the labelled frames, read in every pass.
        labels: the classes to count, with the groups of each sample, or other labels. A prediction
            is right where the pixel's label stands for it.
        progress: called with the frames of all passes, see `PASSES`; yields them and shows
            progress.

    Raises:
        DataError: no frame has a labelled pixel.
    """
    frames = iter(progress(chain.from_iterable(repeat(samples))))
    of = lru_cache(ScoredLabels.of)
    # by exponent: mean logarithmic score, calibration error, frames with a labelled pixel
    found: dict[int, tuple[float, float, int]] = {}

    def judge(exponent: int) -> None:
        scaled, calibration = segmenter.with_logit_scale(_scale(exponent)), Calibration()
        score, known = 0.0, 0
        for sample in islice(frames, len(samples)):
            result = scaled.segment(sample.image)
            scored = (
                labels if isinstance(labels, ScoredLabels) else of(tuple(labels), sample.groups)
            )
            truth = scored.truth_of(sample.label)
            labelled = truth < len(scored.labels)
            known += bool(labelled.any())
            confidence = result.confidence[labelled]
            right = (scored.predicted_of(result.mask, truth) == truth)[labelled]
            calibration.add(confidence, right)
            likelihood = np.clip(np.where(right, confidence, 1 - confidence), 1e-6, 1)
            score -= float(np.log(likelihood, dtype=np.float64).sum())
        pixels = int(calibration.counts[0].sum())
        if not pixels:
            raise DataError(
                f"none of the {len(samples)} frames has a labelled pixel: there is nothing to "
                "calibrate on"
            )
        found[exponent] = score / pixels, calibration.error(), known

    def best() -> int:
        return min(found, key=lambda exponent: found[exponent][0])

    for exponent in _FIRST:
        judge(exponent)
    while best() in (min(found), max(found)) and abs(best()) < _LIMIT:
        judge(best() + (_STEP if best() > 0 else -_STEP))
    for step in _FINE if abs(best()) < _LIMIT else ():
        middle = best()
        judge(middle - step)
        judge(middle + step)
    _, error, known = found[best()]
    at_limit = abs(best()) == _LIMIT
    return LogitScaleFit(round(_scale(best()), 4), found[0][1], error, known, at_limit)


def _scale(exponent: int) -> float:
    """Return the logit scale of an exponent in twelfths of powers of 2."""
    return 2.0 ** (exponent / 12)
