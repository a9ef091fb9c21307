"""Training losses of the diffusion head, per token."""

import math

import torch
from torch import Tensor

from camseg_core.model.schedule import Schedule


def add_noise(clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule) -> Tensor:
    """Clean tokens `(N, C)` at the noise level of their steps `(N,)`."""
    signal = _at(schedule.signal, steps)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def published_loss(output: Tensor, clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The published loss's two parts, `(N,)` each: squared error of the noise, and the variational bound in bits per dimension.

    `output` is `(N, 2C)`: predicted noise and variance. The bound sees the predicted noise detached, so it trains the variance
    alone. Their sum is the loss. Source: arXiv 2102.09672, equation 16 with its bound unscaled.
    """
    channels = clean.shape[1]
    predicted, variance = output.split(channels, dim=1)
    squared_error = (noise - predicted).square().mean(1)
    return squared_error, _variational_bound(torch.cat([predicted.detach(), variance], dim=1), clean, noise, steps, schedule)


def _variational_bound(output: Tensor, clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule) -> Tensor:
    signal = _at(schedule.signal, steps)
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    channels = clean.shape[1]
    predicted, share = output[:, :channels], (output[:, channels:] + 1) / 2
    estimate = (1 / signal).sqrt() * noisy - (1 / signal - 1).sqrt() * predicted
    clean_weight, noisy_weight = _at(schedule.posterior_clean_weight, steps), _at(schedule.posterior_noisy_weight, steps)
    true_mean, mean = clean_weight * clean + noisy_weight * noisy, clean_weight * estimate + noisy_weight * noisy
    low, high = _at(schedule.posterior_variance, steps).log(), _at(schedule.betas, steps).log()
    log_variance = share * high + (1 - share) * low
    kl = 0.5 * (-1.0 + log_variance - low + (low - log_variance).exp() + (true_mean - mean).square() * (-log_variance).exp())
    likelihood = -_discretised_log_likelihood(clean, mean, 0.5 * log_variance)
    return torch.where(steps == 0, likelihood.mean(1), kl.mean(1)) / math.log(2)


def _discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood of a Gaussian over bins of ±1/255, the outer ones open beyond ±0.999."""
    centred, inverse = x - mean, (-log_scale).exp()
    above, below = _normal_cdf(inverse * (centred + 1 / 255)), _normal_cdf(inverse * (centred - 1 / 255))
    inner = torch.where(x > 0.999, (1 - below).clamp_min(1e-12).log(), (above - below).clamp_min(1e-12).log())
    return torch.where(x < -0.999, above.clamp_min(1e-12).log(), inner)


def _normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation that the published loss uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _at(values: object, steps: Tensor) -> Tensor:
    """Entries of a schedule's float64 table at `steps`, as a float32 column `(N, 1)`."""
    return torch.as_tensor(values, device=steps.device)[steps].float().unsqueeze(1)
