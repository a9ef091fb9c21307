"""The noise schedule, and samplers: noise to clean tokens in a few calls of the denoiser.

All samplers have one signature. They use only arithmetic that torch tensors and numpy arrays share,
so that training and the runtime run the same code. The clean estimate is never clipped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Floats = npt.NDArray[np.float64]

Array = Any
"""A torch tensor or a numpy array."""

Denoise = Callable[[Array, int], Array]
"""Noisy tokens `(N, C)` and a step number to the denoiser's output, `(N, C)` or `(N, 2C)`."""

Noise = Callable[[int], Array]
"""Standard normal noise `(N, C)` for the k-th executed step; 0 is the noisiest."""


@dataclass(frozen=True)
class Schedule:
    """Noise schedule, in float64 (arXiv 2102.09672): steps `0..n-1` from clean to noise.

    `timesteps` `(n,)` are the network's step numbers, ascending. A token at step i is
    `sqrt(alphas_cumprod[i])·clean + sqrt(1 - alphas_cumprod[i])·noise`, `alphas_cumprod` `(n,)`.
    `prediction_type` is what the network predicts: `epsilon` (the noise) or `sample` (the clean
    token).
    """

    timesteps: npt.NDArray[np.int64]
    alphas_cumprod: Floats
    prediction_type: str = "epsilon"

    @staticmethod
    def cosine(steps: int = 1000, prediction_type: str = "epsilon") -> "Schedule":
        """Return the published schedule: squared cosine, betas capped at 0.999."""

        def level(i: int) -> float:
            return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = np.array([min(1 - level(i + 1) / level(i), 0.999) for i in range(steps)])
        return Schedule(np.arange(steps), np.cumprod(1 - betas), prediction_type)

    def respaced(self, steps: int) -> "Schedule":
        """Keep `steps` evenly spaced steps with both ends; a single one is the noisiest.

        Raises:
            ConfigError: fewer than 1 or more than the schedule has.
        """
        total = len(self.timesteps)
        if not 1 <= steps <= total:
            raise ConfigError(f"steps must be between 1 and {total}, got {steps}")
        kept = (
            np.array([total - 1])
            if steps == 1
            else np.round(np.arange(steps) * (total - 1) / (steps - 1)).astype(np.int64)
        )
        return Schedule(self.timesteps[kept], self.alphas_cumprod[kept], self.prediction_type)

    @property
    def alphas_cumprod_prev(self) -> Floats:
        """`alphas_cumprod` one step nearer to clean; 1 at step 0."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @property
    def betas(self) -> Floats:
        """Variance added by each step."""
        return 1 - self.alphas_cumprod / self.alphas_cumprod_prev

    @property
    def posterior_variance(self) -> Floats:
        """Variance of the posterior; at step 0 that of step 1, so that it has a logarithm."""
        variance = self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        return np.append(variance[1], variance[1:]) if len(variance) > 1 else self.betas

    @property
    def posterior_mean_coef1(self) -> Floats:
        """Weight of the clean token in the posterior's mean."""
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_mean_coef2(self) -> Floats:
        """Weight of the noisy token in the posterior's mean."""
        return (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)


@dataclass(frozen=True)
class SamplerOptions:
    """Options of a sampler.

    Attributes:
        steps: calls of the denoiser, 1 to 1000.
        temperature: scales the noise that is added on the way and, for samplers that need none
            (DDIM, DPM-Solver++), the noise they start from. Below 1, samples stay closer to the
            likeliest one.
        eta: DDIM's share of noise on the way, 0 to 1.
    """

    steps: int = 1
    temperature: float = 1.0
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigError(f"temperature must be >= 0, got {self.temperature}")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta must be >= 0 and <= 1, got {self.eta}")


@dataclass(frozen=True)
class Estimate:
    """One prediction: clean token, noise, and the variance's place between its bounds (or None)."""

    clean: Array
    noise: Array
    variance_share: Array | None


def read_output(output: Array, x: Array, alpha_prod: float, prediction_type: str) -> Estimate:
    """Read the denoiser's raw output at noisy tokens `x`, whose `alphas_cumprod` is `alpha_prod`.

    `prediction_type` is `epsilon` (the noise) or `sample` (the clean token). The second half of an
    output twice as wide as `x` is the variance.
    """
    channels = x.shape[-1]
    first = output[..., :channels]
    share = (output[..., channels:] + 1) / 2 if output.shape[-1] == 2 * channels else None
    if prediction_type == "sample":
        return Estimate(
            first, (x - math.sqrt(alpha_prod) * first) / math.sqrt(1 - alpha_prod), share
        )
    # near pure noise 1 / alpha_prod is huge and the order of operations matters: this is published
    return Estimate(
        math.sqrt(1 / alpha_prod) * x - math.sqrt(1 / alpha_prod - 1) * first, first, share
    )


class _Walk:
    """A respaced schedule with the denoiser bound to it."""

    def __init__(self, denoise: Denoise, schedule: Schedule, steps: int) -> None:
        self.path = schedule.respaced(steps)
        self._denoise = denoise
        self.indices = list(reversed(range(steps)))

    def estimate(self, x: Array, index: int) -> Estimate:
        return read_output(
            self._denoise(x, int(self.path.timesteps[index])),
            x,
            float(self.path.alphas_cumprod[index]),
            self.path.prediction_type,
        )


Sampler = Callable[[Denoise, Array, Schedule, SamplerOptions, Noise], Array]
"""(denoise, pure noise `(N, C)`, schedule, options, noise) to clean tokens."""


def ancestral(
    denoise: Denoise, start: Array, schedule: Schedule, options: SamplerOptions, noise: Noise
) -> Array:
    """Draw from the posterior at every step, as published (arXiv 2006.11239, arXiv 2102.09672)."""
    walk, x = _Walk(denoise, schedule, options.steps), start
    path = walk.path
    for k, i in enumerate(walk.indices):
        estimate = walk.estimate(x, i)
        if options.steps == 1:
            return estimate.clean
        x = (
            float(path.posterior_mean_coef1[i]) * estimate.clean
            + float(path.posterior_mean_coef2[i]) * x
        )
        if i > 0:
            low, high = math.log(path.posterior_variance[i]), math.log(path.betas[i])
            share = estimate.variance_share
            log_variance = low if share is None else share * high + (1 - share) * low
            x = x + math.e ** (0.5 * log_variance) * options.temperature * noise(k)
    return x


def ddim(
    denoise: Denoise, start: Array, schedule: Schedule, options: SamplerOptions, noise: Noise
) -> Array:
    """DDIM (arXiv 2010.02502): deterministic at eta 0, ancestral-like noise at eta 1."""
    walk, x = _Walk(denoise, schedule, options.steps), options.temperature * start
    path = walk.path
    for k, i in enumerate(walk.indices):
        estimate = walk.estimate(x, i)
        alpha_prod, previous = float(path.alphas_cumprod[i]), float(path.alphas_cumprod_prev[i])
        sigma = options.eta * math.sqrt(
            (1 - previous) / (1 - alpha_prod) * (1 - alpha_prod / previous)
        )
        x = (
            math.sqrt(previous) * estimate.clean
            + math.sqrt(max(0.0, 1 - previous - sigma**2)) * estimate.noise
        )
        if i > 0 and sigma > 0:
            x = x + sigma * options.temperature * noise(k)
    return x


def dpm_solver(
    denoise: Denoise, start: Array, schedule: Schedule, options: SamplerOptions, noise: Noise
) -> Array:
    """DPM-Solver++(2M) (arXiv 2211.01095): deterministic, second order, the last step first."""
    walk, x = _Walk(denoise, schedule, options.steps), options.temperature * start
    path = walk.path
    log_snr = [0.5 * math.log(s / (1 - s)) for s in path.alphas_cumprod]
    # the last clean estimate, and the length of the step that followed it
    before: tuple[Array, float] | None = None
    for i in walk.indices:
        clean = walk.estimate(x, i).clean
        if i == 0:
            return clean
        step = log_snr[i - 1] - log_snr[i]
        direction = (
            clean if before is None else clean + (clean - before[0]) * (step / (2 * before[1]))
        )
        alpha_prod, target = float(path.alphas_cumprod[i]), float(path.alphas_cumprod[i - 1])
        x = (
            math.sqrt((1 - target) / (1 - alpha_prod)) * x
            - math.sqrt(target) * math.expm1(-step) * direction
        )
        before = clean, step
    return x


def one_step(
    denoise: Denoise, start: Array, schedule: Schedule, options: SamplerOptions, noise: Noise
) -> Array:
    """Return the clean estimate at the noisiest step; `options.steps` is not used."""
    output = denoise(start, int(schedule.timesteps[-1]))
    return read_output(
        output, start, float(schedule.alphas_cumprod[-1]), schedule.prediction_type
    ).clean


SAMPLERS: dict[str, Sampler] = {
    "one_step": one_step,
    "ddim": ddim,
    "dpm_solver": dpm_solver,
    "ancestral": ancestral,
}

FUSABLE = ("one_step", "ddim", "dpm_solver")
"""Samplers that draw no noise on the way (DDIM at eta 0): all their steps fit into one graph."""


def start_scale(sampler: str, options: SamplerOptions) -> float:
    """Return the scale of the noise that a sampler starts from, see `SamplerOptions`."""
    return options.temperature if sampler in ("ddim", "dpm_solver") else 1.0


def sampler_named(name: str) -> Sampler:
    """Return a sampler by name.

    Raises:
        ConfigError: the name is unknown; the message lists the choices.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    return SAMPLERS[name]
