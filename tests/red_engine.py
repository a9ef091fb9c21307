"""An engine without a model: red pixels are one class, and their blue is the confidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.config.model import CamSegConfig
from camseg_core.diffusion.sampling import Fused
from camseg_core.labels import CITYSCAPES
from camseg_core.runtime import Segmenter
from camseg_core.runtime.engine import EngineOptions
from camseg_core.weights import CAMSEG_LITE

RED = 1
"""The class of pixels whose red exceeds the threshold; all others are class 0."""


@dataclass
class RedEngine:
    """Runs as a fused graph; `seen` holds the batches it was given, `(B, H, W, 3)` each."""

    threshold: float = 128
    seen: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    options, name, precision = EngineOptions(Path()), "red", "fp32"
    fused = Fused("one_step", 1)
    takes_mask, batches = False, True

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert graph == self.fused.name
        image = inputs["image"]
        self.seen.append(image)
        mask = np.where(image[..., 0] > self.threshold, RED, 0).astype(np.uint8)
        return {"mask": mask, "confidence": (image[..., 2] / 255).astype(np.float32)}

    def check_graphs(self, fused: Fused | None) -> None:
        """Accept every graph: the result is the same."""

    def with_fused(self, fused: Fused | None) -> "RedEngine":
        return self


SCALED_DOWN = replace(CAMSEG_LITE, noise_filter=False, max_upscale=1.0)
"""As camseg-lite, but frames are scaled down and nothing else."""


def red_segmenter(engine: RedEngine, config: CamSegConfig = SCALED_DOWN) -> Segmenter:
    """Return a segmenter that runs on the engine."""
    return Segmenter(config, CITYSCAPES, engine)
