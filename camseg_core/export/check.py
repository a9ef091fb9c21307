"""A graph's numbers beside torch's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from camseg_core.data.sample import Sample
from camseg_core.diffusion.sampling import Fused, Sampling
from camseg_core.errors import DataError, ModelError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.export.parts import Arrays, Part
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Engine
from camseg_core.runtime.segmenter import Segmenter

SIZES = ((1, 2, 3), (2, 5, 4))
"""(batch, rows, columns) that a graph is checked at; it was traced at another."""


@dataclass(frozen=True)
class Tolerance:
    """How far a graph may be from torch.

    `largest` is the largest difference of a number, as a share of the output's largest value; `mean` the root of the mean squared
    difference, as a share of that of the output; `ids` the share of pixels with another class: where two are as good as equal, they flip.
    """

    largest: float
    mean: float
    ids: float

    def of_whole_network(self) -> "Tolerance":
        """For a fused graph: what its parts may be off adds up, and shows at single pixels where two classes are as good as equal."""
        return Tolerance(10 * self.largest, self.mean, min(0.5, 10 * self.ids))


TOLERANCES = {
    "fp32": Tolerance(5e-3, 5e-3, 2e-3),
    "fp16": Tolerance(5e-2, 1e-2, 2e-2),
    # single numbers may be far off in eight bits, and camseg-lite's image features are by a quarter although its masks stay good:
    # this only finds graphs that are broken, and frames tell the rest
    "int8": Tolerance(np.inf, 0.5, 0.3),
}
"""By precision."""


@dataclass(frozen=True)
class Difference:
    """The largest of what `Tolerance` names over all outputs and inputs; `ids` is None for a graph that gives no classes."""

    largest: float
    mean: float
    ids: float | None

    def __str__(self) -> str:
        classes = "" if self.ids is None else f", {self.ids:.2%} of the classes"
        return f"largest {self.largest:.1e}, mean {self.mean:.1e}{classes}"


def difference(part: Part, path: Path, inputs: Iterable[Arrays]) -> Difference:
    """Run a graph and its module on the same inputs.

    Raises:
        ModelError: an output has another shape.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = (
        3  # it warns of fp16 operators that the CPU lacks, and casts for them
    )
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
                    f"the exported {part.name} gives {ours.shape} where torch gives {theirs.shape}; the graph is not kept"
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
    """Compare a graph with torch: on `inputs`, or on random ones of two sizes.

    Raises:
        ModelError: they differ by more than the precision's tolerance.
    """
    found = difference(
        part, path, [part.make(*size) for size in SIZES] if inputs is None else inputs
    )
    limit = (
        TOLERANCES[precision] if part.fused is None else TOLERANCES[precision].of_whole_network()
    )
    for what, value, most in (
        ("", found.largest, limit.largest),
        (" in the mean", found.mean, limit.mean),
        (" of the classes", found.ids or 0.0, limit.ids),
    ):
        if not value <= most:  # NaN is not
            raise ModelError(
                f"the exported {part.name} differs from torch by {value:.2g}{what} (limit {most:g}); the graph is not kept"
            )
    return found


LARGEST_LOSS = 0.01
"""How much of the mIoU of the model in torch a variant may lose."""

PARTS_SAMPLERS = (Fused("one_step", 1), Fused("ddim", 10))
"""What the four parts are scored with: small errors of the denoiser add up over its steps."""


@dataclass
class Scores:
    """Scores engines on the same frames as the model in torch, whose figures are kept."""

    model: CamSeg
    samples: Sequence[Sample]
    _torch: dict[Fused, float] = field(default_factory=dict)

    def check(self, engine: Engine, sampling: Fused, what: str) -> tuple[float, float]:
        """mIoU of an engine and of torch.

        Raises:
            ModelError: the engine's is lower by more than `LARGEST_LOSS`; names both.
        """
        if sampling not in self._torch:
            self._torch[sampling] = self._mean_iou(TorchEngine(self.model), sampling)
        found, expected = self._mean_iou(engine, sampling), self._torch[sampling]
        if not found >= expected - LARGEST_LOSS:
            raise ModelError(
                f"{what} scores mIoU {found:.4f} on {len(self.samples)} frames, the model in torch {expected:.4f}: "
                f"more than {LARGEST_LOSS} is lost, so the graphs are not kept"
            )
        return found, expected

    def _mean_iou(self, engine: Engine, sampling: Fused) -> float:
        labels = self.model.labels
        segmenter = Segmenter(
            self.model.config, labels, engine, Sampling(sampling.sampler, sampling.steps)
        )
        scorer = Scorer(labels, boundary_tolerance=None)
        for sample in self.samples:
            scorer.add(sample.label, segmenter.segment(sample.image).mask)
        if not scorer.confusion.matrix.any():
            raise DataError(
                f"none of the {len(self.samples)} frames to score on has a pixel labelled as one of the model's classes"
            )
        return scorer.confusion.mean_iou()
