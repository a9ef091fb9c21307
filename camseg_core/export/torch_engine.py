"""The engine's interface over torch, for checking and calibrating; a vehicle never imports it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from camseg_core.diffusion.sampling import Fused
from camseg_core.export.graph_modules import ImageEncoderGraph
from camseg_core.export.parts import decoder_module
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.bound_graph import DeviceArray

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]


class TorchEngine:
    """A model's parts in torch on the CPU, in fp32; methods as `OnnxEngine` has them."""

    provider, fallback, precision = "cpu", "", "fp32"
    fused: Fused | None = None

    def __init__(self, model: CamSeg) -> None:
        self._model = model.eval()
        self._image_encoder, self._decoder = ImageEncoderGraph(model), decoder_module(model)

    @property
    def takes_mask(self) -> bool:
        """Whether the transformer can be told what is known of the mask."""
        return self._model.config.transformer.fusion == "grid"

    def check(self, fused: Fused | None) -> None:
        """Nothing can be missing."""

    def running(self, fused: Fused | None) -> "TorchEngine":
        """This one: torch runs the parts in place of any fused graph."""
        return self

    @torch.no_grad()
    def encode_image(self, image: Ids) -> dict[str, DeviceArray]:
        """As `OnnxEngine.encode_image`."""
        maps = self._image_encoder(torch.from_numpy(image))
        names = ["features", "features_4", "features_8"][: len(maps)]
        return {name: DeviceArray.of(each.numpy()) for name, each in zip(names, maps, strict=True)}

    @torch.no_grad()
    def conditions(
        self,
        features: Mapping[str, DeviceArray],
        mask: Floats | None = None,
        hidden: npt.NDArray[np.bool_] | None = None,
    ) -> DeviceArray:
        """As `OnnxEngine.conditions`."""
        maps = tuple(torch.from_numpy(each.numpy()) for each in features.values())
        known = (
            ()
            if mask is None or hidden is None
            else (torch.from_numpy(mask), torch.from_numpy(hidden))
        )
        return DeviceArray.of(self._model.conditions(maps, *known).numpy())

    @torch.no_grad()
    def denoise(self, tokens: Floats, step: int, condition: Floats | DeviceArray) -> Floats:
        """As `OnnxEngine.denoise`."""
        rows = condition.numpy() if isinstance(condition, DeviceArray) else condition
        flat = torch.from_numpy(rows.reshape(-1, rows.shape[-1]))
        output: Floats = self._model.denoiser(
            torch.from_numpy(tokens), torch.tensor([step]), flat
        ).numpy()
        return output

    @torch.no_grad()
    def decode(self, latents: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """As `OnnxEngine.decode`."""
        mask, confidence = self._decoder(torch.from_numpy(latents), torch.tensor(logit_scale))
        return mask.numpy(), confidence.numpy()

    def run_fused(self, image: Ids, start: Floats, logit_scale: float = 1.0) -> tuple[Ids, Floats]:
        """Never called: `fused` is None."""
        raise NotImplementedError("torch runs the parts")
