"""A model on torch, in fp32 or bf16: for checking, and for models that are not exported. Imports torch, unlike the rest of the runtime.

CPUs with bf16 instructions convolve several times faster in it, and multiply matrices nearly twice as fast.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from camseg_core.diffusion.samplers import Noise, SamplerOptions
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class TorchMask:
    """`train_ids` `(B, H, W)` uint8, and the mask's `latents` `(B, C, h, w)` fp32 that they were decoded from."""

    latents: Tensor
    train_ids: Tensor


class TorchInference:
    """A model made ready to run; it is changed in place and belongs to the engine from then on.

    `precision` bf16: matrices and kernels of everything but the diffusion head are stored and used in bf16, vectors and learned positions
    stay fp32, as does what is added up along residual connections of the transformer. The head stays fp32 throughout: near pure noise a
    clean estimate is the predicted noise times up to 20,000, and bf16 resolves 1 part in 256.

    Raises:
        ConfigError: another precision.
    """

    def __init__(self, model: CamSeg, precision: Precision = "fp32") -> None:
        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"unknown precision {precision!r}; choose fp32 or bf16")
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision = precision
        if precision == "bf16":
            # stored, not cast for every frame: that would hold the weights twice
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith("denoiser."):
                    module.weight.data = module.weight.data.to(torch.bfloat16)

    @torch.no_grad()
    def segment(
        self,
        pixels: Tensor,
        sampler: str,
        options: SamplerOptions,
        start: Tensor,
        noise: Noise,
        exact: bool = False,
    ) -> TorchMask:
        """Pixels RGB `(B, 3, H, W)` in 0..255 to a mask; the rest as for `CamSeg.sample` and `CamSeg.decode_mask`."""
        model = self.model
        with self._autocast(pixels):
            features = model.image_features(pixels)
            condition = model.conditions(features)
        sampled = model.sample(condition.float(), sampler, options, start, noise)
        latents = model.to_latents(sampled, model.denoised_grid(features))
        with self._autocast(pixels):
            return TorchMask(latents, model.decode_mask(latents, exact))

    def _autocast(self, pixels: Tensor) -> torch.autocast:
        return torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.precision == "bf16")
