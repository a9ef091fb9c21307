"""Compare exported graphs with torch, by their numbers and by the masks' mIoU."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from camseg_core.data import Sample, Samples
from camseg_core.diffusion.sampling import Fused, Sampling
from camseg_core.errors import DataError, ModelError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.export.parts import Arrays, Part
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.groups import ScoredLabels
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Engine
from camseg_core.runtime.segmenter import Segmenter

SIZES = ((1, 2, 3), (2, 5, 4))
"""(batch, rows, columns) at which graphs are checked; they were traced at another size."""


@dataclass(frozen=True)
class Tolerance:
    """How far a graph may be from torch.

    Attributes:
        largest: largest difference, relative to the output's largest value.
        mean: root mean squared difference, relative to that of the output.
        ids: share of pixels with another class, which happens where two classes are nearly equal.
    """

    largest: float
    mean: float
    ids: float

    def of_whole_network(self) -> "Tolerance":
        """Return the tolerance of a fused graph, in which the parts' differences add up."""
        return Tolerance(10 * self.largest, self.mean, min(0.5, 10 * self.ids))


TOLERANCES = {
    "fp32": Tolerance(5e-3, 5e-3, 2e-3),
    "fp16": Tolerance(5e-2, 1e-2, 2e-2),
    # eight bits may put single numbers far off, and camseg-lite's image features by a quarter, with
    # good masks still: this only finds broken graphs, `Scores` does the rest
    "int8": Tolerance(np.inf, 0.5, 0.3),
}
"""By precision."""


@dataclass(frozen=True)
class Difference:
    """The largest differences over all outputs and inputs, see `Tolerance`; `ids` is None
    for a graph without classes."""

    largest: float
    mean: float
    ids: float | None

    def __str__(self) -> str:
        classes = "" if self.ids is None else f", {self.ids:.2%} of the classes"
        return f"largest {self.largest:.1e}, mean {self.mean:.1e}{classes}"


def difference(part: Part, path: Path, inputs: Iterable[Arrays]) -> Difference:
    """Run a graph and its torch module on the same inputs.

    Raises:
        ModelError: an output has another shape.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no warnings of fp16 operators that the CPU must cast for
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    largest, mean, ids = 0.0, 0.0, []
    for arrays in inputs:
        with torch.no_grad():
            expected = part.module(*(torch.from_numpy(array) for array in arrays))
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(None, dict(zip(part.inputs, arrays, strict=True)))
        for theirs, ours in zip(expected, found, strict=True):
            theirs = theirs.numpy()
            if theirs.shape != ours.shape:
                raise ModelError(
                    f"the exported {part.name} must return shape {theirs.shape} as in torch, "
                    f"got {ours.shape}; the graph is not kept"
                )
            if theirs.dtype == np.uint8:
                ids.append(float((theirs != ours).mean()))
                continue
            error = np.abs(theirs - ours)
            largest = max(largest, float(error.max() / max(1.0, np.abs(theirs).max())))
            mean = max(mean, float(np.sqrt((error**2).mean() / max(1e-6, (theirs**2).mean()))))
    return Difference(largest, mean, max(ids) if ids else None)


def check(
    part: Part, path: Path, precision: str, inputs: Iterable[Arrays] | None = None
) -> Difference:
    """Compare a graph with torch on `inputs`, or on random ones of two sizes.

    Raises:
        ModelError: they differ by more than the precision's tolerance.
    """
    inputs = [part.make(*size) for size in SIZES] if inputs is None else inputs
    found, limit = difference(part, path, inputs), TOLERANCES[precision]
    if part.fused is not None:
        limit = limit.of_whole_network()
    for what, value, most in (
        ("", found.largest, limit.largest),
        (" in the mean", found.mean, limit.mean),
        (" of the classes", found.ids or 0.0, limit.ids),
    ):
        if not value <= most:  # also refuses NaN
            raise ModelError(
                f"the exported {part.name} differs from torch by {value:.2g}{what} "
                f"(limit {most:g}); the graph is not kept"
            )
    return found


LARGEST_LOSS = 0.01
"""The mIoU that a precision may lose against torch."""

PARTS_SAMPLERS = (Fused("one_step", 1), Fused("ddim", 10))
"""Samplers to score the four parts with: small denoiser errors add up over its steps."""


@dataclass
class Scores:
    """Score engines on the same frames as the model in torch, which is scored once.

    `scored` are the labels to score over; by default, the samples' ids are those of the model.
    """

    model: CamSeg
    samples: Samples | Sequence[Sample]
    scored: ScoredLabels | None = None
    _torch: dict[Fused, float] = field(default_factory=dict)

    def check(self, engine: Engine, sampling: Fused, what: str) -> tuple[float, float]:
        """Return the mIoU of an engine and of torch.

        Raises:
            ModelError: the engine's is lower by more than `LARGEST_LOSS`.
        """
        if sampling not in self._torch:
            self._torch[sampling] = self._mean_iou(TorchEngine(self.model), sampling)
        found, expected = self._mean_iou(engine, sampling), self._torch[sampling]
        if not found >= expected - LARGEST_LOSS:
            raise ModelError(
                f"{what} must score within {LARGEST_LOSS} of torch's mIoU {expected:.4f} on "
                f"{len(self.samples)} frames, got {found:.4f}; the graphs are not kept"
            )
        return found, expected

    def _mean_iou(self, engine: Engine, sampling: Fused) -> float:
        labels = self.model.labels
        segmenter = Segmenter(
            self.model.config, labels, engine, Sampling(sampling.sampler, sampling.steps)
        )
        own = ScoredLabels.of(labels, self.samples[0].groups if self.samples else ())
        scorer = Scorer(self.scored or own, boundary_tolerance=None)
        for sample in self.samples:
            scorer.add(sample.label, segmenter.segment(sample.image).mask)
        if not scorer.confusion.matrix.any():
            raise DataError(
                f"the {len(self.samples)} frames to score must show the model's classes, found none"
            )
        return scorer.confusion.labelled_mean_iou()
