"""The engine's interface over torch, for training validation, checks and calibration."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError
from camseg_core.export.graph_modules import ImageEncoderGraph
from camseg_core.export.parts import decoder_module
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.bound_graph import DeviceArray

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]
Precision = Literal["fp32", "bf16"]


class TorchEngine:
    """A model's parts in torch, on the model's device; methods as `OnnxEngine` has them.

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
        self._model, self._device = model.eval(), model.pixel_mean.device
        self._image_encoder = ImageEncoderGraph(model)
        self._decoder = decoder_module(model).to(self._device)

    def check(self, fused: Fused | None) -> None:
        """Nothing can be missing."""

    def running(self, fused: Fused | None) -> "TorchEngine":
        """Return this engine: torch runs the parts in place of any fused graph."""
        return self

    @torch.no_grad()
    def encode_image(self, image: Ids) -> dict[str, DeviceArray]:
        """See `OnnxEngine.encode_image`."""
        with self._autocast():
            maps = self._image_encoder(self._tensor(image))
        names = ["features", "features_4", "features_8"][: len(maps)]
        return {name: DeviceArray.of(_array(each)) for name, each in zip(names, maps, strict=True)}

    @torch.no_grad()
    def conditions(
        self,
        features: Mapping[str, DeviceArray],
        mask: Floats | None = None,
        hidden: npt.NDArray[np.bool_] | None = None,
    ) -> DeviceArray:
        """See `OnnxEngine.conditions`."""
        maps = tuple(self._tensor(each.numpy()) for each in features.values())
        known = () if mask is None or hidden is None else (self._tensor(mask), self._tensor(hidden))
        with self._autocast():
            return DeviceArray.of(_array(self._model.conditions(maps, *known)))

    @torch.no_grad()
    def denoise(self, tokens: Floats, step: int, condition: Floats | DeviceArray) -> Floats:
        """See `OnnxEngine.denoise`."""
        rows = condition.numpy() if isinstance(condition, DeviceArray) else condition
        flat = self._tensor(rows.reshape(-1, rows.shape[-1]))
        steps = torch.tensor([step], device=self._device)
        return _array(self._model.denoiser(self._tensor(tokens), steps, flat))

    @torch.no_grad()
    def decode(self, latents: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """See `OnnxEngine.decode`."""
        with self._autocast():
            mask, confidence = self._decoder(self._tensor(latents), torch.tensor(logit_scale))
        return mask.cpu().numpy(), _array(confidence)

    def run_fused(self, image: Ids, start: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """Never called, as `fused` is None."""
        raise NotImplementedError("torch runs the parts")

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.float().cpu().numpy()
    return array
