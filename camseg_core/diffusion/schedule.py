"""The noise schedule: how much of a token is left at each step, and which steps are visited.

Plain numpy in float64; source of the formulas: arXiv 2102.09672 (cosine schedule, respacing).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """Steps `0..n-1` from clean to noise.

    `timesteps` `(n,)` are the network's step numbers, ascending. A token at step i is
    `sqrt(alphas_cumprod[i])·clean + sqrt(1 - alphas_cumprod[i])·noise`, `alphas_cumprod` `(n,)`.
    """

    timesteps: npt.NDArray[np.int64]
    alphas_cumprod: Floats

    @staticmethod
    def cosine(steps: int = 1000) -> "Schedule":
        """Return the published schedule: squared cosine, betas capped at 0.999."""

        def level(i: int) -> float:
            return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = np.array([min(1 - level(i + 1) / level(i), 0.999) for i in range(steps)])
        return Schedule(np.arange(steps), np.cumprod(1 - betas))

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
        return Schedule(self.timesteps[kept], self.alphas_cumprod[kept])

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
