"""What the segmenter asks of an engine, whatever it is made of."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.diffusion.sampling import Fused
from camseg_core.runtime.bound_graph import DeviceArray

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Engine(Protocol):
    """What computes: `OnnxEngine` on the vehicle, `TorchEngine` to check against. Its methods' arrays are described there."""

    @property
    def provider(self) -> str: ...
    @property
    def fallback(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def fused(self) -> Fused | None: ...
    @property
    def takes_mask(self) -> bool: ...
    def check(self, fused: Fused | None) -> None: ...
    def running(self, fused: Fused | None) -> "Engine": ...
    def encode_image(self, image: Ids) -> dict[str, DeviceArray]: ...
    def conditions(
        self,
        features: Mapping[str, DeviceArray],
        mask: Floats | None = None,
        hidden: npt.NDArray[np.bool_] | None = None,
    ) -> DeviceArray: ...
    def denoise(self, tokens: Floats, step: int, condition: Floats | DeviceArray) -> Floats: ...
    def decode(self, latents: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]: ...
    def run_fused(
        self, image: Ids, start: Floats, logit_scale: float = 1.0
    ) -> tuple[Ids, Floats]: ...
