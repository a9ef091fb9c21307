"""An engine without a model: red pixels are one class, and their blue is the confidence."""

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from camseg_core.config.model import CamSegConfig
from camseg_core.config.named_models import CAMSEG_LITE
from camseg_core.diffusion.sampling import Fused
from camseg_core.labels import CITYSCAPES
from camseg_core.runtime import Segmenter

RED = 1
"""The class of pixels whose red exceeds the threshold; all others are class 0."""


@dataclass
class RedEngine:
    """Runs as a fused graph; `seen` holds the batches it was given, `(B, H, W, 3)` each."""

    threshold: float = 128
    seen: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    provider, fallback, precision = "cpu", "", "fp32"
    fused = Fused("one_step", 1)
    takes_mask = False

    def run_fused(
        self, image: npt.NDArray[np.uint8], start: npt.NDArray[np.float32], logit_scale: float = 1.0
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        self.seen.append(image)
        return np.where(image[..., 0] > self.threshold, RED, 0).astype(np.uint8), (
            image[..., 2] / 255
        ).astype(np.float32)

    def check(self, fused: Fused | None) -> None:
        """Accept every graph: the result is the same."""

    def running(self, fused: Fused | None) -> "RedEngine":
        return self

    def encode_image(self, *_: object) -> NoReturn:
        raise NotImplementedError("a fused graph runs alone")

    conditions = denoise = decode = encode_image


def red_segmenter(engine: RedEngine, config: CamSegConfig = CAMSEG_LITE) -> Segmenter:
    """Return a segmenter that runs on the engine."""
    return Segmenter(config, CITYSCAPES, engine)
