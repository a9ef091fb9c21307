"""A model in torch behind the engine's interface, for validation, export checks and calibration."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError
from camseg_core.export.graph_modules import (
    ImageEncoderGraph,
    MaskedTransformerGraph,
    TransformerGraph,
)
from camseg_core.export.parts import decoder_module
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.engine import Array

Precision = Literal["fp32", "bf16"]

OUTPUTS = {
    "image_encoder": ("features", "features_4", "features_8"),
    "transformer": ("condition",),
    "denoiser": ("output",),
    "decoder": ("mask", "confidence"),
}
"""Output names of each graph; models without a refiner have `features` alone."""


class TorchEngine:
    """A model's graphs as torch modules, on the model's device.

    In bf16 all parts run under autocast except the diffusion head: near pure noise a clean estimate
    is the predicted noise times up to 20,000, and bf16 resolves 1 part in 256.

    Raises:
        ConfigError: the precision is neither fp32 nor bf16.
    """

    provider, fallback = "cpu", ""
    fused: Fused | None = None
    takes_mask = True

    def __init__(self, model: CamSeg, precision: Precision = "fp32") -> None:
        if precision not in get_args(Precision):
            raise ConfigError(f"precision must be fp32 or bf16, got {precision!r}")
        self.precision: str = precision
        model.eval()
        self._device = model.pixel_mean.device
        self._graphs = {
            "image_encoder": ImageEncoderGraph(model),
            "transformer": TransformerGraph(model),
            "denoiser": model.denoiser,
            "decoder": decoder_module(model).to(self._device),
        }
        self._masked_transformer = MaskedTransformerGraph(model)

    def check_graphs(self, fused: Fused | None) -> None:
        """Nothing can be missing."""

    def with_fused(self, fused: Fused | None) -> "TorchEngine":
        """Return this engine: torch runs the parts in place of any fused graph."""
        return self

    @torch.no_grad()
    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        module = self._masked_transformer if "mask" in inputs else self._graphs[graph]
        tensors = [torch.from_numpy(np.asarray(a)).to(self._device) for a in inputs.values()]
        lower = self.precision == "bf16" and graph != "denoiser"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=lower):
            found = module(*tensors)
        arrays = [
            (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
            for tensor in (found if isinstance(found, tuple) else (found,))
        ]
        return dict(zip(OUTPUTS[graph], arrays, strict=False))
