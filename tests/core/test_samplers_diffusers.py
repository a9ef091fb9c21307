"""The samplers against the schedulers of `diffusers` (Apache-2.0), an oracle for tests only.

Both get the betas of our schedule with only the visited steps in it, so that the two ways of
choosing steps play no part.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from camseg_core.diffusion.samplers import SAMPLERS, SamplerOptions, Schedule

FULL = Schedule.cosine()
NOISE = torch.from_numpy(np.random.default_rng(1).standard_normal((101, 6, 4)))
PREDICTIONS = ("epsilon", "sample")


def network(x: Tensor, step: int) -> Tensor:
    """A smooth made-up denoiser that depends on its input and on the step."""
    return torch.sin(1.3 * x) * (0.4 + step / 2000) + 0.1


def with_variance(x: Tensor, step: int) -> Tensor:
    return torch.cat([network(x, step), torch.tanh(x + step / 1000)], dim=-1)


def theirs(
    scheduler: Any,
    schedule: Schedule,
    denoise: Callable[[Tensor, int], Tensor],
    **options: Callable[[], object],
) -> Tensor:
    """Sample with a scheduler of diffusers from our noise; `options` are made for each step."""
    scheduler.alphas_cumprod = torch.from_numpy(
        schedule.alphas_cumprod
    )  # in fp32, as it computes them, little is left of the noisiest
    scheduler.set_timesteps(len(schedule.timesteps))
    x = NOISE[-1]
    for t in scheduler.timesteps:
        output = denoise(x, int(schedule.timesteps[int(t)]))
        x = scheduler.step(
            output, int(t), x, **{name: make() for name, make in options.items()}
        ).prev_sample
    return x


def ours(
    name: str, denoise: Callable[[Tensor, int], Tensor], options: SamplerOptions, prediction: str
) -> Tensor:
    found: Tensor = SAMPLERS[name](
        denoise, NOISE[-1], Schedule.cosine(prediction_type=prediction), options, lambda k: NOISE[k]
    )
    return found


def settings(schedule: Schedule, prediction: str) -> dict[str, Any]:
    return {
        "num_train_timesteps": len(schedule.timesteps),
        "trained_betas": schedule.betas.astype(np.float32),
        "prediction_type": prediction,
    }


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [2, 4, 10, 50])
def test_ddim_without_noise(steps: int, prediction: str) -> None:
    schedule = FULL.respaced(steps)
    expected = theirs(
        DDIMScheduler(**settings(schedule, prediction), clip_sample=False), schedule, network
    )
    torch.testing.assert_close(
        ours("ddim", network, SamplerOptions(steps), prediction), expected, rtol=1e-4, atol=1e-4
    )


def test_ddim_with_noise_on_the_way() -> None:
    schedule, k = FULL.respaced(10), iter(range(10))
    scheduler = DDIMScheduler(**settings(schedule, "sample"), clip_sample=False)
    expected = theirs(
        scheduler, schedule, network, eta=lambda: 0.6, variance_noise=lambda: NOISE[next(k)]
    )
    torch.testing.assert_close(
        ours("ddim", network, SamplerOptions(10, eta=0.6), "sample"), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [2, 4, 10, 50])
def test_dpm_solver(steps: int, prediction: str) -> None:
    schedule = FULL.respaced(steps)
    scheduler = DPMSolverMultistepScheduler(
        **settings(schedule, prediction),
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    expected = theirs(scheduler, schedule, network)
    torch.testing.assert_close(
        ours("dpm_solver", network, SamplerOptions(steps), prediction),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_ancestral(variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, k = FULL.respaced(25), iter(range(25))
    # their noise comes from one function; hand it ours, in order
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: NOISE[next(k)]
    )
    denoise = with_variance if variance == "learned_range" else network
    scheduler = DDPMScheduler(
        **settings(schedule, "sample"), variance_type=variance, clip_sample=False
    )
    expected = theirs(scheduler, schedule, denoise)
    torch.testing.assert_close(
        ours("ancestral", denoise, SamplerOptions(25), "sample"), expected, rtol=1e-4, atol=1e-4
    )
