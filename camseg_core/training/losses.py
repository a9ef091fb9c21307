"""Training losses: on decoded class logits, and the published loss on the diffusion head."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from camseg_core.diffusion.samplers import Schedule
from camseg_core.labels import UNLABELLED


@dataclass(frozen=True)
class PixelLoss:
    """`total` `()` carries the gradient; `cross_entropy` and `jaccard` are its parts, to log."""

    total: Tensor
    cross_entropy: float
    jaccard: float


def pixel_loss(
    logits: Tensor, indices: Tensor, weights: Tensor, jaccard_weight: float
) -> PixelLoss:
    """Return cross-entropy plus `jaccard_weight` × soft Jaccard loss, each a mean over images.

    `logits` are `(B, K, H, W)`, `indices` `(B, H, W)` class indices, 255 where unlabelled.
    `weights` `(K,)` weigh classes in the cross-entropy. The Jaccard loss of an image is 1 less the
    intersection over union of probabilities and labels, averaged over the classes it shows: like
    the mIoU, it weighs a thin pole as much as the road, whereas cross-entropy counts pixels.
    """
    total, entropy, jaccard = _PixelLoss.apply(logits, indices, weights, jaccard_weight)  # type: ignore[no-untyped-call]
    return PixelLoss(total, entropy.item(), jaccard.item())


class _PixelLoss(torch.autograd.Function):
    """Computes the gradient with the loss, image by image, so that it stays in the cache.

    Autograd would read and write the logits of the whole batch, the largest tensors of a training
    step, a dozen times.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, indices: Tensor, weights: Tensor, jaccard_weight: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # a pixel's share of the gradient underflows in fp16 until the gradient scaler is applied
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=dtype, memory_format=torch.contiguous_format)
        parts = [
            _of_image(
                image.flatten(1),
                truth.flatten(),
                weights,
                jaccard_weight / len(logits),
                1 / len(logits),
                out.flatten(1),
            )
            for image, truth, out in zip(logits, indices, gradient, strict=True)
        ]
        entropy, jaccard = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        ctx.save_for_backward(gradient)
        ctx.logits_dtype = logits.dtype  # type: ignore[attr-defined]
        return entropy + jaccard_weight * jaccard, entropy, jaccard

    @staticmethod
    def backward(ctx: FunctionCtx, *of_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return (gradient * of_outputs[0]).to(ctx.logits_dtype), None, None, None  # type: ignore[attr-defined]


def _of_image(
    logits: Tensor,
    truth: Tensor,
    weights: Tensor,
    jaccard_weight: float,
    entropy_weight: float,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Jaccard loss of logits `(K, N)` against `truth` `(N,)`.

    Writes the gradient of their weighted sum to `gradient` `(K, N)`.
    """
    labelled = (truth != UNLABELLED).float()
    index = torch.where(truth == UNLABELLED, 0, truth).long()
    log_share = logits.float().log_softmax(0)
    share = log_share.exp()
    log_of_truth = log_share.gather(0, index.unsqueeze(0)).squeeze(0)
    weight = weights[index] * labelled
    weight /= weight.sum().clamp_min(1e-6)
    entropy = -(log_of_truth * weight).sum()

    of_truth = log_of_truth.exp() * labelled
    together = share.new_zeros(len(share)).scatter_add_(0, index, of_truth)
    pixels = share.new_zeros(len(share)).scatter_add_(0, index, labelled)
    union = share @ labelled + pixels - together + 1
    iou = (together + 1) / union
    shown = (pixels > 0).float()
    shown /= shown.sum().clamp_min(1)
    jaccard = ((1 - iou) * shown).sum()

    # derivatives of the Jaccard loss by each class's predicted and common area, then through the
    # softmax, whose derivative is p (δ - p)
    by_predicted = jaccard_weight * shown * iou / union
    by_together = -jaccard_weight * shown * (1 + iou) / union
    of_truth *= by_together[index]
    weight *= entropy_weight
    inner = (by_predicted @ share) * labelled + of_truth
    result = share * (by_predicted.unsqueeze(1) * labelled + (weight - inner))
    gradient.copy_(result.scatter_add_(0, index.unsqueeze(0), (of_truth - weight).unsqueeze(0)))
    return entropy, jaccard


def add_noise(clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule) -> Tensor:
    """Return clean tokens `(N, C)` with the noise of their steps `(N,)`."""
    alpha_prod = _at(schedule.alphas_cumprod, steps)
    return alpha_prod.sqrt() * clean + (1 - alpha_prod).sqrt() * noise


def published_loss(
    output: Tensor, clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule
) -> tuple[Tensor, Tensor]:
    """Return both parts of the published loss, `(N,)` each; their sum is the loss.

    They are the squared error of the noise and the variational bound in bits per dimension.
    `output` is `(N, 2C)`: predicted noise and variance. The bound sees the predicted noise
    detached, so it only trains the variance. Source: arXiv 2102.09672, equation 16 with its bound
    unscaled.
    """
    channels = clean.shape[1]
    predicted, variance = output.split(channels, dim=1)
    squared_error = (noise - predicted).square().mean(1)
    return squared_error, _variational_bound(
        torch.cat([predicted.detach(), variance], dim=1), clean, noise, steps, schedule
    )


def _variational_bound(
    output: Tensor, clean: Tensor, noise: Tensor, steps: Tensor, schedule: Schedule
) -> Tensor:
    alpha_prod = _at(schedule.alphas_cumprod, steps)
    noisy = alpha_prod.sqrt() * clean + (1 - alpha_prod).sqrt() * noise
    channels = clean.shape[1]
    predicted, share = output[:, :channels], (output[:, channels:] + 1) / 2
    estimate = (1 / alpha_prod).sqrt() * noisy - (1 / alpha_prod - 1).sqrt() * predicted
    clean_weight, noisy_weight = (
        _at(schedule.posterior_mean_coef1, steps),
        _at(schedule.posterior_mean_coef2, steps),
    )
    true_mean, mean = (
        clean_weight * clean + noisy_weight * noisy,
        clean_weight * estimate + noisy_weight * noisy,
    )
    low, high = _at(schedule.posterior_variance, steps).log(), _at(schedule.betas, steps).log()
    log_variance = share * high + (1 - share) * low
    kl = 0.5 * (
        -1.0
        + log_variance
        - low
        + (low - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = -_discretised_log_likelihood(clean, mean, 0.5 * log_variance)
    return torch.where(steps == 0, likelihood.mean(1), kl.mean(1)) / math.log(2)


def _discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-likelihood of a Gaussian over bins of ±1/255, open beyond ±0.999."""
    centred, inverse = x - mean, (-log_scale).exp()
    above, below = (
        _normal_cdf(inverse * (centred + 1 / 255)),
        _normal_cdf(inverse * (centred - 1 / 255)),
    )
    inner = torch.where(
        x > 0.999, (1 - below).clamp_min(1e-12).log(), (above - below).clamp_min(1e-12).log()
    )
    return torch.where(x < -0.999, above.clamp_min(1e-12).log(), inner)


def _normal_cdf(x: Tensor) -> Tensor:
    """Return the tanh approximation that the published loss uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _at(values: object, steps: Tensor) -> Tensor:
    """Return entries of a schedule's float64 table at `steps`, as a float32 column `(N, 1)`."""
    return torch.as_tensor(values, device=steps.device)[steps].float().unsqueeze(1)
