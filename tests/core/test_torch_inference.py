"""The torch engine: the model's own masks in fp32, near ones in bf16, with no weight held twice."""

import copy

import pytest
import reference
import torch
from torch import nn

from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.torch_inference import TorchInference, TorchMask

PIXELS = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0)).float()
START = torch.randn(2 * 24, 16, generator=torch.Generator().manual_seed(1))


def model() -> CamSeg:
    return copy.deepcopy(reference.model())  # an engine changes the model that it is given


def segmented(engine: TorchInference) -> TorchMask:
    return engine.segment(
        PIXELS, "ddim", SamplerOptions(3), START, lambda k: torch.zeros_like(START)
    )


def test_fp32_gives_the_models_own_masks() -> None:
    found = segmented(TorchInference(model()))
    own = model().segment(PIXELS, "ddim", SamplerOptions(3), torch.Generator().manual_seed(1))
    assert found.train_ids.shape == (2, 64, 96)
    assert (found.train_ids == own).float().mean() > 0.999


def test_bf16_stays_near_and_the_diffusion_head_exact() -> None:
    exact, engine = segmented(TorchInference(model())), TorchInference(model(), "bf16")
    near = segmented(engine)
    assert near.latents.dtype == torch.float32
    assert 0 < (near.latents - exact.latents).norm() < 0.05 * exact.latents.norm()
    for name, module in engine.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert module.weight.dtype == (
                torch.float32 if name.startswith("denoiser.") else torch.bfloat16
            ), name


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown precision 'int4'; choose fp32 or bf16"):
        TorchInference(model(), "int4")
