"""The losses of a training step, by its number: with a mask autoencoder, and as published."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from camseg_core.diffusion.samplers import SamplerOptions, ddim
from camseg_core.labels import UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.training.completion import (
    complete_by_model,
    fill_unlabelled,
    has_groups,
)
from camseg_core.training.distributed import Processes
from camseg_core.training.draws import Cut, Draws
from camseg_core.training.loading import Batch
from camseg_core.training.losses import (
    add_noise,
    half_of_pixels,
    pixel_loss,
    published_loss,
)
from camseg_core.training.settings import LoopConfig, check_setting
from camseg_core.training.trainer import Loss


@dataclass(frozen=True)
class TaskLoss:
    """The loss of a model with a mask autoencoder.

    It scores two estimates: from pure noise, as in one-step inference, and from a random step, as
    in multi-step sampling. The loss is `latent_weight` × the squared error of the latents, plus
    cross-entropy and `jaccard_weight` × soft Jaccard of the decoded latents. Cells are weighted by
    the share of their pixels that is labelled; of the pixels, half are scored (`half_of_pixels`).

    Where the label is a group, the true latents are those of the model's own completion: each pixel
    gets the most probable of the group's classes, by the estimate from pure noise that sees no
    mask.

    Attributes:
        latent_weight: of the squared error of the latents.
        jaccard_weight: of the soft Jaccard loss.
        own_share: share of the images of a batch that start the second estimate from the noised
            first estimate, as a sampler does, instead of the noised truth; at least one starts from
            the truth.
        decoder_joins: step from which the mask decoder learns. Until then it has only seen latents
            of true masks, and the head's uncertain latents look different. True latents remain
            among its inputs, so it still decodes the encoder's output. The encoder stays frozen,
            so the latents keep their meaning.
        late_own_share: `own_share` from step `late_from` on, when the estimates are good.
        late_from: see `late_own_share`.
        balanced_until: step by which the higher weights of rare classes in the cross-entropy have
            faded. With them, rare classes are learned early; kept to the end, the model would
            predict too many persons and signs.
        chains: numbers of steps, such as 2 and 4. The images of `own_share` follow such a chain of
            DDIM to one of its later calls, instead of to a random step: this distils a model.

    Raises:
        ConfigError: a value is out of range.
    """

    latent_weight: float = 0.25
    jaccard_weight: float = 1.0
    own_share: float = 0.34
    decoder_joins: int = 800
    late_own_share: float = 0.67
    late_from: int = 2400
    balanced_until: int = 2800
    chains: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("latent_weight", "jaccard_weight", "decoder_joins", "late_from"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        check_setting("balanced_until", self.balanced_until, self.balanced_until >= 0, ">= 0")
        for name in ("own_share", "late_own_share"):
            check_setting(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        longer = all(steps >= 2 for steps in self.chains)
        check_setting("chains", list(self.chains), longer, "a list of numbers of steps >= 2")

    def scored_call(self, step: int) -> tuple[int, int] | None:
        """Return the chain of a training step: its number of steps, and the call that is scored.

        Calls are counted from 0. Chains and calls take turns.
        """
        calls = [(steps, call) for steps in self.chains for call in range(1, steps)]
        return calls[step % len(calls)] if calls else None

    def class_weights(self, balanced: Tensor, step: int) -> Tensor:
        """Return the weights of the classes at a step, between `balanced` `(K,)` and all ones."""
        if self.balanced_until == 0:
            return torch.ones_like(balanced)
        return balanced ** max(0.0, 1 - step / self.balanced_until)


def task_objective(
    model: CamSeg,
    batch: Batch,
    size: int,
    weights: Tensor,
    config: TaskLoss,
    all_hidden: float,
    loop: LoopConfig,
    processes: Processes,
    cut: Cut = "clamp",
    members: Tensor | None = None,
) -> Loss:
    """Return the loss of a model with a mask autoencoder, see `TaskLoss`.

    `batch` returns images `(B, 3, H, W)` in 0..1 and class indices `(B, H, W)`, see `Frames`;
    `size` is the number of samples in a whole batch. `weights` `(K + G,)` weigh classes and groups
    at the start. `members` `(G, K)` are the classes of each group.
    """
    codec = model.mask_autoencoder
    assert codec is not None
    last = len(model.schedule.timesteps) - 1
    device = processes.device

    def loss(step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        model.train()
        codec.eval()  # the latents' statistics were measured with these batch norms
        joined = step >= config.decoder_joins
        codec.decoder.requires_grad_(joined)
        numbers = processes.samples(step, size, part, loop.grad_accum_steps)
        images, cpu_indices = batch(numbers)
        indices = completed = cpu_indices.to(device)
        shape = (side // codec.config.stride for side in indices.shape[1:])
        blank = torch.zeros(len(numbers), codec.config.latent_channels, *shape, device=device)
        (tokens, grid), (base, cells) = model.to_tokens(blank), model.to_denoised(blank)
        draws = Draws.of(
            numbers,
            step,
            loop.seed,
            (base.shape[1], base.shape[2]),
            tokens.shape[1],
            len(model.schedule.timesteps),
            all_hidden,
            cut,
        )
        sees_mask = not bool(draws.hidden.all())
        draws = draws.to(device)
        start, noise = draws.noises
        share = config.late_own_share if step >= config.late_from else config.own_share
        # of the whole batch the first frames, of which this process or part may have some or none
        of_batch = min(round(share * size), size - 1)  # at least one uses the truth
        before = numbers.start - step * size
        own, both = (min(max(end - before, 0), len(numbers)) for end in (of_batch, 2 * of_batch))
        with loop.autocast(device):
            features = model.image_features(images.to(device) * 255)

            def estimate(x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
                output = model.denoiser(x.flatten(0, 1), timesteps.flatten(), condition)
                return output.float().view_as(start)

            def first_estimate(*mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                """Return condition, cells and logits from noise; by default the mask is hidden."""
                condition = model.conditions(features, *mask).flatten(0, 1)
                found = estimate(start, torch.full_like(draws.timesteps, last), condition)
                return condition, found, model.logit_blocks(model.to_latents(found, cells))

            grouped = members is not None and has_groups(cpu_indices, len(model.labels))
            if grouped:
                assert members is not None
                with torch.set_grad_enabled(not sees_mask):
                    condition, first, logits = first_estimate()
                whole = F.pixel_shuffle(logits.detach().flatten(1, 2), 2)
                completed = complete_by_model(indices, whole, members.to(device))
            with torch.no_grad():
                latents = codec.encode(fill_unlabelled(completed.cpu()).to(device)).float()
            (tokens, _), (clean, _) = model.to_tokens(latents), model.to_denoised(latents)
            if sees_mask or not grouped:
                condition, first, logits = first_estimate(tokens, draws.hidden)
            base = torch.cat([first[:own].detach(), clean[own:]])
            noisy = add_noise(
                base.flatten(0, 1), noise.flatten(0, 1), draws.timesteps.flatten(), model.schedule
            ).view_as(clean)
            timesteps = draws.timesteps
            if own and (scored := config.scored_call(step)) is not None:
                own_condition = condition.unflatten(0, clean.shape[:2])[:own]
                met, number = ddim_input(model, own_condition, start[:own], *scored)
                noisy = torch.cat([met, noisy[own:]])
                reached = torch.full_like(timesteps[:own], number)
                timesteps = torch.cat([reached, timesteps[own:]])
            later = estimate(noisy, timesteps, condition)
            true = slice(own, both) if joined else slice(0, 0)
            if own or clean[true].numel():
                others = torch.cat([later[:own], clean[true]])
                of_others = model.logit_blocks(model.to_latents(others, cells))
                logits = torch.cat([logits, of_others])
        counted = _for_cells(draws.hidden, grid, cells) * _labelled_share(indices, cells)
        of_first = _mean((first - clean).square().mean(2), counted)
        of_later = _mean((later - clean).square().mean(2)[own:], counted[own:])
        squared = of_first + of_later
        truth = torch.cat([indices, indices[:own], completed[true]])
        class_weights = config.class_weights(weights, step).to(device)
        half = half_of_pixels(logits, truth, step)
        pixels = pixel_loss(*half, class_weights, config.jaccard_weight, members)
        figures = {
            "latents": squared.item(),
            "cross_entropy": pixels.cross_entropy,
            "jaccard": pixels.jaccard,
        }
        return config.latent_weight * squared + pixels.total, figures

    return loss


@torch.no_grad()
def ddim_input(
    model: CamSeg, condition: Tensor, start: Tensor, steps: int, call: int
) -> tuple[Tensor, int]:
    """Return the head's input at a call of DDIM in `steps` steps, and the diffusion step.

    `start` is pure noise `(B, N, C)`, as is the input; `call` counts from 0.
    """
    seen: list[tuple[Tensor, int]] = []
    flat = condition.flatten(0, 1)

    def denoise(x: Tensor, number: int) -> Tensor:
        seen.append((x, number))
        return model.denoiser(x, torch.full((len(x),), number, device=x.device), flat).float()

    def no_noise(_: int) -> Tensor:
        return torch.zeros_like(start[0])

    options = SamplerOptions(steps, model.config.temperature)
    ddim(denoise, start.flatten(0, 1), model.schedule, options, no_noise)
    x, number = seen[call]
    return x.view_as(start), number


def published_objective(
    model: CamSeg,
    batch: Batch,
    size: int,
    all_hidden: float,
    loop: LoopConfig,
    processes: Processes,
    diffusion_batch_mul: int = 1,
    cut: Cut = "clamp",
) -> Loss:
    """Return the loss of the published layout, see `losses.published_loss`.

    `batch` returns latents of the image and of the mask drawn as a picture, each `(B, c, h, w)`;
    `size` is the number of samples in a whole batch. The loss is a mean over the hidden mask
    tokens, each denoised from `diffusion_batch_mul` noises and diffusion steps under the same
    condition.
    """
    device, num_train_timesteps = processes.device, len(model.schedule.timesteps)

    def loss(step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        model.train()
        numbers = processes.samples(step, size, part, loop.grad_accum_steps)
        image, mask = (latents.to(device) for latents in batch(numbers))
        tokens, _ = model.to_tokens(image)
        clean, grid = model.to_tokens(mask)
        draws = Draws.of(
            numbers,
            step,
            loop.seed,
            (clean.shape[1], clean.shape[2]),
            clean.shape[1],
            num_train_timesteps,
            all_hidden,
            cut,
        ).to(device)
        repeated = draws.repeated(diffusion_batch_mul, numbers, loop.seed, num_train_timesteps)
        noise, timesteps = (drawn.flatten(0, 1) for drawn in repeated)
        flat = clean.flatten(0, 1).repeat(diffusion_batch_mul, 1)
        noisy = add_noise(flat, noise, timesteps, model.schedule)
        with loop.autocast(device):
            conditions = model.transformer(tokens, grid, clean, draws.hidden).flatten(0, 1)
            condition = conditions.repeat(diffusion_batch_mul, 1)
            output = model.denoiser(noisy, timesteps, condition).float()
        error, bound = published_loss(output, flat, noise, timesteps, model.schedule)
        chosen = draws.hidden.flatten().repeat(diffusion_batch_mul)
        squared, bits = error[chosen].mean(), bound[chosen].mean()
        return squared + bits, {"noise": squared.item(), "bound": bits.item()}

    return loss


def _for_cells(hidden: Tensor, grid: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Spread flags of tokens `(B, L)` over the cells of each, which the head denoises, `(B, N)`."""
    times = cells[0] // grid[0]
    flags = hidden.unflatten(1, grid)
    return flags.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)


def _labelled_share(indices: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the share of each cell's pixels that is labelled, `(B, N)`."""
    labelled = (indices != UNLABELLED).float()
    return F.adaptive_avg_pool2d(labelled, cells).flatten(1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean; 0 if all weights are."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)
