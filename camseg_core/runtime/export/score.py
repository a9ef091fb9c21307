"""How good the masks of a variant are: mIoU of the whole chain, beside torch's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from camseg_core.data.sample import Sample
from camseg_core.errors import DataError, ModelError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Engine
from camseg_core.runtime.export.engine_torch import TorchEngine
from camseg_core.runtime.graphs import Fused
from camseg_core.runtime.sampling import Sampling
from camseg_core.runtime.segmenter import Segmenter

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
        segmenter = Segmenter(self.model.config, labels, engine, Sampling(sampling.sampler, sampling.steps))
        index = np.full(256, UNLABELLED, np.uint8)  # train id to index of the labels
        index[[label.id for label in labels]] = range(len(labels))
        confusion = Confusion(len(labels))
        for sample in self.samples:
            confusion.add(index[sample.label], index[segmenter.segment(sample.image).mask])
        if not confusion.matrix.any():
            raise DataError(f"none of the {len(self.samples)} frames to score on has a pixel labelled as one of the model's classes")
        return confusion.mean_iou()
