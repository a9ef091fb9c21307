"""Samplers: equal on torch and numpy, exact where the answer is known, strict about options."""

import math

import numpy as np
import pytest
import torch

from camseg_core.diffusion.samplers import SAMPLERS, SamplerOptions, Schedule, sampler_named
from camseg_core.errors import ConfigError

SCHEDULE = Schedule.cosine(prediction_type="sample")
CLEAN = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
NOISE = np.random.default_rng(1).standard_normal((1001, 5, 3)).astype(np.float32)


def knows_the_answer(x, step):
    """A denoiser that always predicts the clean sample `CLEAN`."""
    return torch.from_numpy(CLEAN) if isinstance(x, torch.Tensor) else CLEAN


def contracting(x, step):
    """A smooth made-up network: its clean estimate depends on the input and the step."""
    return 0.5 * x + clean_like(x) * (1 - step / 2000)


def clean_like(x):
    return torch.from_numpy(CLEAN) if isinstance(x, torch.Tensor) else CLEAN


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 25, 1000])
def test_a_perfect_denoiser_gives_the_clean_sample_for_any_number_of_steps(
    name: str, steps: int
) -> None:
    found = SAMPLERS[name](
        knows_the_answer, NOISE[-1], SCHEDULE, SamplerOptions(steps), lambda k: NOISE[k]
    )
    np.testing.assert_allclose(
        found, CLEAN, atol=0.02
    )  # the ancestral sampler leaves the last step's posterior deviation


@pytest.mark.parametrize("name", SAMPLERS)
def test_numpy_and_torch_give_the_same_samples(name: str) -> None:
    options = SamplerOptions(steps=7, temperature=0.8, eta=0.3)
    arrays = SAMPLERS[name](contracting, NOISE[-1], SCHEDULE, options, lambda k: NOISE[k])
    noise = torch.from_numpy(NOISE)
    tensors = SAMPLERS[name](contracting, noise[-1], SCHEDULE, options, lambda k: noise[k])
    np.testing.assert_allclose(arrays, tensors.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_of_any_sampler_is_the_clean_estimate_at_the_noisiest_step(name: str) -> None:
    seen = []

    def denoise(x, step):
        seen.append(step)
        return CLEAN

    found = SAMPLERS[name](denoise, NOISE[-1], SCHEDULE, SamplerOptions(1), lambda k: NOISE[k])
    assert seen == [999]
    np.testing.assert_allclose(found, CLEAN, atol=1e-6)


def test_second_order_solver_comes_nearer_to_the_exact_path_than_first_order() -> None:
    def end(name: str, steps: int):
        return SAMPLERS[name](
            contracting, NOISE[-1], SCHEDULE, SamplerOptions(steps), lambda k: NOISE[k]
        )

    exact = end("ddim", 1000)
    first, second = (float(np.abs(end(name, 20) - exact).max()) for name in ("ddim", "dpm_solver"))
    assert second < 0.5 * first


def test_ddim_with_full_eta_draws_noise_and_without_does_not() -> None:
    def end(eta: float, noise):
        return SAMPLERS["ddim"](
            contracting, NOISE[-1], SCHEDULE, SamplerOptions(10, eta=eta), noise
        )

    other = NOISE[::-1]
    assert np.array_equal(end(0.0, lambda k: NOISE[k]), end(0.0, lambda k: other[k]))
    assert not np.allclose(end(1.0, lambda k: NOISE[k]), end(1.0, lambda k: other[k]))


def test_temperature_zero_draws_no_noise() -> None:
    options = SamplerOptions(10, temperature=0.0)
    a, b = (
        SAMPLERS["ancestral"](contracting, NOISE[-1], SCHEDULE, options, lambda k, n=n: n[k])
        for n in (NOISE, NOISE[::-1])
    )
    assert np.array_equal(a, b)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
def test_temperature_scales_the_noise_that_a_deterministic_sampler_starts_from(name: str) -> None:
    def end(temperature: float, scale: float):
        options = SamplerOptions(10, temperature=temperature)
        return SAMPLERS[name](contracting, scale * NOISE[-1], SCHEDULE, options, lambda k: NOISE[k])

    assert np.array_equal(end(0.5, 1.0), end(1.0, 0.5))
    assert not np.allclose(end(0.5, 1.0), end(1.0, 1.0))


def test_respacing_keeps_both_ends_and_the_levels_of_the_kept_steps() -> None:
    path = SCHEDULE.respaced(10)
    assert path.timesteps.tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert np.array_equal(path.alphas_cumprod, SCHEDULE.alphas_cumprod[path.timesteps])
    assert math.isclose(np.prod(1 - path.betas), SCHEDULE.alphas_cumprod[-1], rel_tol=1e-9)
    assert SCHEDULE.respaced(1).timesteps.tolist() == [999]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps must be between 1 and 1000, got {steps}"):
        SCHEDULE.respaced(steps)


def test_an_unknown_sampler_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="one_step, ddim, dpm_solver, ancestral, got 'euler'"):
        sampler_named("euler")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("temperature", -0.1, ">= 0"),
        ("temperature", math.nan, ">= 0"),
        ("eta", 1.5, ">= 0 and <= 1"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be {said}, got {value}"):
        SamplerOptions(**{option: value})
