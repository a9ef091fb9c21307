"""How much a model computes: multiply-accumulates of each stage of a frame, counted by torch as the network runs."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.model.camseg import CamSeg

STAGES = ("image_encoder", "transformer", "denoiser", "decoder")
"""The parts of a model in the order in which a frame passes them; `denoiser` is one step, `transformer` includes the refiner."""


@torch.no_grad()
def multiply_accumulates(model: CamSeg, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates by stage for one frame of `height`×`width` pixels, multiples of the model's `size_multiple`.

    Counted are convolutions, matrix products and attention; norms, activations and resizing, which cost little, are not.
    """
    counts: dict[str, int] = {}

    def counted(stage: str, call: Callable[[], object]) -> object:
        # attention in its plain form: torch's counter does not know the CPU's fused one
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            result = call()
        counts[stage] = counter.get_total_flops() // 2
        return result

    features = counted("image_encoder", lambda: model.image_features(torch.zeros(1, 3, height, width)))
    assert isinstance(features, tuple)
    condition = counted("transformer", lambda: model.conditions(features))
    assert isinstance(condition, Tensor)
    cells = torch.zeros(condition.shape[1], model.config.denoised_channels)
    counted("denoiser", lambda: model.denoiser(cells, torch.full((1,), len(model.schedule.timesteps) - 1), condition[0]))
    codec = model.mask_autoencoder or model.autoencoder
    assert codec is not None
    latents = model.to_latents(cells.unsqueeze(0), model.denoised_grid(features))
    counted("decoder", lambda: codec.decode(latents))
    return counts


def vehicle_parameters(model: CamSeg) -> int:
    """How many parameters run on the vehicle: all but those of the mask encoder, which only training needs."""
    return sum(parameter.numel() for parameter in model.parameters()) - mask_encoder_parameters(model)


def mask_encoder_parameters(model: CamSeg) -> int:
    """How many parameters the encoder of a mask autoencoder has; 0 without one."""
    codec = model.mask_autoencoder
    return sum(parameter.numel() for parameter in codec.encoder.parameters()) if codec is not None else 0
