"""Training losses: on decoded class logits, and the published loss on the diffusion head."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
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
    logits: Tensor,
    indices: Tensor,
    weights: Tensor,
    jaccard_weight: float,
    members: Tensor | None = None,
) -> PixelLoss:
    """Return cross-entropy plus `jaccard_weight` × soft Jaccard loss, each a mean over images.

    The probability of a group is that of its classes together. The Jaccard loss of an image is 1
    less the intersection over union of probabilities and labels, averaged over the classes and
    groups it shows: like the mIoU, it weighs a thin pole as much as the road, whereas cross-entropy
    counts pixels. For a class or group, only pixels whose label lies fully inside or outside it
    count: a pixel that may be car or truck is neither right nor wrong for car.

    Args:
        logits: of K classes, `(B, K, H, W)`.
        indices: class indices `(B, H, W)`, from K on groups, 255 where unlabelled.
        weights: of classes and groups in the cross-entropy, `(K + G,)`.
        jaccard_weight: of the Jaccard loss.
        members: which classes belong to each group, `(G, K)`.
    """
    classes = torch.eye(logits.shape[1], device=logits.device)
    regions = classes if members is None else torch.cat([classes, members.to(classes)])
    total, entropy, jaccard = _PixelLoss.apply(  # type: ignore[no-untyped-call]
        logits, indices, weights, jaccard_weight, regions
    )
    return PixelLoss(total, entropy.item(), jaccard.item())


def half_of_pixels(blocks: Tensor, indices: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Return the logits and indices of a diagonal of each 2×2 pixels, the other at the next step.

    Neighbouring pixels are nearly the same, and a loss over all of them takes twice as long.
    `blocks` are logits as `CamSeg.logit_blocks` returns them, `(B, K, 4, H/2, W/2)`, and `indices`
    is `(B, H, W)`. The results are `(B, K, H, W/2)` and `(B, H, W/2)`, both in the same order, not
    that of the image.
    """
    diagonal = [0, 3] if step % 2 else [1, 2]
    chosen = nn.functional.pixel_unshuffle(indices.unsqueeze(1), 2)[:, diagonal]
    return blocks[:, :, diagonal].flatten(2, 3), chosen.flatten(1, 2)


class _PixelLoss(torch.autograd.Function):
    """Computes the gradient with the loss, image by image, so that it stays in the cache.

    Autograd would read and write the logits of the whole batch, the largest tensors of a training
    step, a dozen times.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        indices: Tensor,
        weights: Tensor,
        jaccard_weight: float,
        regions: Tensor,
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
                regions,
                out.flatten(1),
            )
            for image, truth, out in zip(logits, indices, gradient, strict=True)
        ]
        entropy, jaccard = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        ctx.save_for_backward(gradient)
        ctx.logits_dtype = logits.dtype  # type: ignore[attr-defined]
        return entropy + jaccard_weight * jaccard, entropy, jaccard

    @staticmethod
    def backward(ctx: FunctionCtx, *of_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient *= of_outputs[0]  # in place: a second backward pass would be refused
        of_logits = gradient.to(ctx.logits_dtype)  # type: ignore[attr-defined]
        return of_logits, None, None, None, None


_UNDERFLOW = 1e-30  # a probability below this is computed from logarithms


def _of_image(
    logits: Tensor,
    truth: Tensor,
    weights: Tensor,
    jaccard_weight: float,
    entropy_weight: float,
    regions: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Jaccard loss of logits `(K, N)` against `truth` `(N,)`.

    `regions` `(R, K)` are 1 for the classes of each label. Writes the gradient of the weighted sum
    of both losses to `gradient` `(K, N)`.
    """
    # tables by the labels that occur, in which the last column is for unlabelled pixels
    pixels = torch.bincount(truth, minlength=256)
    pixels[UNLABELLED] = 0
    present = pixels.nonzero().squeeze(1)
    column = torch.full_like(pixels, len(present))
    column[present] = torch.arange(len(present), device=truth.device)
    label = column.take(truth.long())
    of_label = regions[present]  # (L, K)
    pixels = pixels[present].float()

    def by_pixel(table: Tensor) -> Tensor:
        """Spread a table `(K, L)` over the pixels, `(K, N)`; 0 where unlabelled."""
        return nn.functional.pad(table, (0, 1)).gather(1, label.expand(len(table), -1))

    log_share = logits.float().log_softmax(0)
    share = log_share.exp()
    allowed = by_pixel(of_label.T)
    of_truth = (share * allowed).sum(0)
    rare = ((of_truth < _UNDERFLOW) & (label < len(present))).nonzero().squeeze(1)
    exact = log_share[:, rare].where(allowed[:, rare] > 0, -torch.inf)
    weight = nn.functional.pad(weights[present], (0, 1)).take(label)
    weight /= weight.sum().clamp_min(1e-6)
    log_of_truth = of_truth.clamp_min(_UNDERFLOW).log()
    log_of_truth[rare] = exact.logsumexp(0)
    entropy = -(log_of_truth * weight).sum()

    # areas of the labels that occur (rows), among the pixels of each (columns)
    common = of_label @ of_label.T
    size = of_label.sum(1)
    inside, outside = (common == size).float(), (common == 0).float()
    one_hot = share.new_zeros(len(present) + 1, len(truth)).scatter_(0, label.unsqueeze(0), 1.0)
    area = of_label @ (share @ one_hot[:-1].T)
    together = (inside * area).sum(1)
    predicted = ((inside + outside) * area).sum(1)
    union = predicted + inside @ pixels - together + 1
    iou = (together + 1) / union
    jaccard = (1 - iou).sum() / max(1, len(present))

    # derivatives of the Jaccard loss with respect to predicted and common area, summed for each
    # class over the labels that contain it; then through the softmax, whose derivative is p (δ - p)
    scale = jaccard_weight / max(1, len(present))
    by_predicted = (scale * iou / union).unsqueeze(1)
    by_together = (-scale * (1 + iou) / union).unsqueeze(1)
    by_share = by_pixel(of_label.T @ ((inside + outside) * by_predicted + inside * by_together))
    weight *= entropy_weight
    inner = (share * by_share).sum(0)
    pull = weight / of_truth.clamp_min(_UNDERFLOW)
    pull[rare] = 0
    by_share.addcmul_(allowed, pull, value=-1).add_(weight - inner).mul_(share)
    gradient.copy_(by_share)
    gradient[:, rare] -= (weight[rare] * exact.softmax(0)).to(gradient.dtype)
    return entropy, jaccard


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule) -> Tensor:
    """Return clean tokens `(N, C)` with the noise of their timesteps `(N,)`."""
    alpha_prod = _at(schedule.alphas_cumprod, timesteps)
    return alpha_prod.sqrt() * clean + (1 - alpha_prod).sqrt() * noise


def published_loss(
    output: Tensor, clean: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule
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
        torch.cat([predicted.detach(), variance], dim=1), clean, noise, timesteps, schedule
    )


def _variational_bound(
    output: Tensor, clean: Tensor, noise: Tensor, timesteps: Tensor, schedule: Schedule
) -> Tensor:
    alpha_prod = _at(schedule.alphas_cumprod, timesteps)
    noisy = alpha_prod.sqrt() * clean + (1 - alpha_prod).sqrt() * noise
    channels = clean.shape[1]
    predicted, share = output[:, :channels], (output[:, channels:] + 1) / 2
    estimate = (1 / alpha_prod).sqrt() * noisy - (1 / alpha_prod - 1).sqrt() * predicted
    clean_weight, noisy_weight = (
        _at(schedule.posterior_mean_coef1, timesteps),
        _at(schedule.posterior_mean_coef2, timesteps),
    )
    true_mean, mean = (
        clean_weight * clean + noisy_weight * noisy,
        clean_weight * estimate + noisy_weight * noisy,
    )
    low, high = (
        _at(schedule.posterior_variance, timesteps).log(),
        _at(schedule.betas, timesteps).log(),
    )
    log_variance = share * high + (1 - share) * low
    kl = 0.5 * (
        -1.0
        + log_variance
        - low
        + (low - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = -_discretised_log_likelihood(clean, mean, 0.5 * log_variance)
    return torch.where(timesteps == 0, likelihood.mean(1), kl.mean(1)) / math.log(2)


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


def _at(values: object, timesteps: Tensor) -> Tensor:
    """Return entries of a schedule's float64 table at `timesteps`, as a float32 column `(N, 1)`."""
    return torch.as_tensor(values, device=timesteps.device)[timesteps].float().unsqueeze(1)
