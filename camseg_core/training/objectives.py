"""What image encoder, transformer and diffusion head are trained to do: step number in, loss out.

Every random number belongs to a sample and is drawn from its number, so a batch holds the same however many processes share it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camseg_core.diffusion.samplers import SamplerOptions, ddim
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import fill_unlabelled
from camseg_core.training.loading import Batch, generator
from camseg_core.training.losses import add_noise, pixel_loss, published_loss
from camseg_core.training.trainer import LoopConfig, Loss


@dataclass(frozen=True)
class TaskLoss:
    """The loss of a model with a mask autoencoder.

    It is `latent_weight` × the squared error of the latents, plus cross-entropy and `jaccard_weight` × soft Jaccard of
    what the mask decoder makes of them. Two estimates are judged: the one from pure noise, which one-step inference
    gives, and one from a random step on the way, which sampling in several steps passes through. On that way `own_share` of the
    images start from the noised first estimate instead of the noised truth, for that is what the sampler will find there; from step
    `late_from` on, when the estimates have become good, it is `late_own_share`.

    The cross-entropy weighs rare classes more at first, so that they are learned early; the weights fade until step `balanced_until`,
    after which every pixel counts the same: kept to the end, they make the model see more persons and signs than there are.

    The mask encoder stays frozen, so the latents keep their meaning. The decoder is frozen until step `decoder_joins`; from then on it
    learns along, because it has only ever seen the latents of true masks, and those that the head is not sure of look different. True
    latents stay processes what it decodes, so that it remains the decoder of an autoencoder.

    With `chains`, numbers of steps such as 2 and 4, the images that start from the own estimate walk such a chain of DDIM to one of its
    later calls, instead of to a random step: what is judged there is what inference in so many steps gives. So a model is distilled.
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
        if (
            min(
                self.latent_weight,
                self.jaccard_weight,
                self.decoder_joins,
                self.late_from,
                self.balanced_until,
            )
            < 0
        ):
            raise ConfigError(
                "latent_weight, jaccard_weight, decoder_joins, late_from and balanced_until are 0 or more"
            )
        if not (0 <= self.own_share < 1 and 0 <= self.late_own_share < 1):
            raise ConfigError("own_share and late_own_share are shares from 0 to below 1")
        if any(steps < 2 for steps in self.chains):
            raise ConfigError(
                f"chains is {list(self.chains)}; it lists numbers of steps from 2 up (one step is always trained)"
            )

    def judged_call(self, step: int) -> tuple[int, int] | None:
        """The chain whose estimate is judged at a training step: its number of steps and which call, counted from 0; they take turns."""
        calls = [(steps, call) for steps in self.chains for call in range(1, steps)]
        return calls[step % len(calls)] if calls else None

    def class_weights(self, balanced: Tensor, step: int) -> Tensor:
        """The weights of the classes at a step, on their way from `balanced` `(K,)` to all ones."""
        return (
            balanced ** max(0.0, 1 - step / self.balanced_until)
            if self.balanced_until
            else torch.ones_like(balanced)
        )


Cut = Literal["clamp", "truncate"]
"""How a normal share is brought to 0.7..1: what lies outside becomes the nearer end, so that half of the steps hide everything; or it is
drawn again, as published (a truncated normal distribution, as in arXiv 2406.11838), which hides 0.87 on average."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of some samples, drawn from their numbers."""

    noises: tuple[Tensor, Tensor]
    """Two of pure noise, each `(B, N, C)` for what the head denoises; the second is for the task loss."""
    steps: Tensor
    """Diffusion steps `(B, N)`."""
    hidden: Tensor
    """Which tokens of the transformer are hidden, `(B, L)` bool: other ones in every row, but the same number."""

    @staticmethod
    def of(
        numbers: range,
        step: int,
        seed: int,
        denoised: tuple[int, int],
        tokens: int,
        num_train_timesteps: int,
        all_hidden: float,
        cut: Cut = "clamp",
    ) -> "Draws":
        """`denoised` is (N, C). `all_hidden` is the share of steps that hide the whole mask; the others hide a share that is drawn from
        a normal distribution around 1 of deviation 0.25 and, see `Cut`, brought to 0.7..1."""
        generators = [generator(seed, "noise", number) for number in numbers]
        noises = tuple(
            torch.stack([torch.randn(denoised, generator=g) for g in generators]) for _ in range(2)
        )
        steps = torch.stack(
            [torch.randint(num_train_timesteps, denoised[:1], generator=g) for g in generators]
        )
        shared = generator(seed, "hidden", step)
        everything = torch.rand((), generator=shared) < all_hidden
        count = tokens if everything else _hidden_tokens(tokens, shared, cut)
        order = torch.stack(
            [torch.rand(tokens, generator=g).argsort().argsort() for g in generators]
        )
        return Draws((noises[0], noises[1]), steps, order < count)

    def repeated(
        self, times: int, numbers: range, seed: int, num_train_timesteps: int
    ) -> tuple[Tensor, Tensor]:
        """Noise `(times·B, N, C)` and diffusion steps `(times·B, N)`: these first, then others of the same samples, on their device."""
        noises, steps = [self.noises[0]], [self.steps]
        for time in range(1, times):
            generators = [generator(seed, "noise", number, time) for number in numbers]
            noises.append(
                torch.stack(
                    [torch.randn(self.noises[0].shape[1:], generator=g) for g in generators]
                ).to(self.steps.device)
            )
            steps.append(
                torch.stack(
                    [
                        torch.randint(num_train_timesteps, self.steps.shape[1:], generator=g)
                        for g in generators
                    ]
                ).to(self.steps.device)
            )
        return torch.cat(noises), torch.cat(steps)

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(
            (self.noises[0].to(device), self.noises[1].to(device)),
            self.steps.to(device),
            self.hidden.to(device),
        )


def _hidden_tokens(tokens: int, random: torch.Generator, cut: Cut) -> int:
    """How many of the tokens a share drawn from `random` is: to the nearest when clamped, rounded up as published otherwise."""

    def drawn() -> float:
        return float(torch.empty(1).normal_(1.0, 0.25, generator=random))

    share = drawn()
    if cut == "clamp":
        return max(1, round(float(torch.tensor(share).clamp(0.7, 1.0)) * tokens))
    while not 0.7 <= share <= 1:
        share = drawn()
    return math.ceil(share * tokens)


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
) -> Loss:
    """For models with a frozen mask autoencoder; `batch` gives images `(B, 3, H, W)` in 0..1 and class indices `(B, H, W)`.

    `weights` `(K,)` weigh the classes in the cross-entropy at the start, see `TaskLoss`; `size` is the number of samples in a whole batch.
    """
    codec = model.mask_autoencoder
    assert codec is not None
    last = len(model.schedule.timesteps) - 1

    def loss(step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        model.train()
        codec.eval()  # its batch norms keep the statistics that its latents were measured with
        joined = step >= config.decoder_joins
        codec.decoder.requires_grad_(joined)
        numbers = processes.samples(step, size, part, loop.grad_accum_steps)
        images, cpu_indices = batch(numbers)
        filled, indices = (
            fill_unlabelled(cpu_indices).to(processes.device),
            cpu_indices.to(processes.device),
        )
        with torch.no_grad(), loop.autocast(processes.device):
            latents = codec.encode(filled).float()
        tokens, grid = model.to_tokens(latents)
        clean, cells = model.to_denoised(latents)
        draws = Draws.of(
            numbers,
            step,
            loop.seed,
            (clean.shape[1], clean.shape[2]),
            tokens.shape[1],
            len(model.schedule.timesteps),
            all_hidden,
            cut,
        ).to(processes.device)
        start, noise = draws.noises
        share = config.late_own_share if step >= config.late_from else config.own_share
        own = min(
            round(share * len(numbers)), len(numbers) - 1
        )  # one at least starts from the truth
        with loop.autocast(processes.device):
            features = model.image_features(images.to(processes.device) * 255)
            condition = model.conditions(features, tokens, draws.hidden).flatten(0, 1)

            def estimate(x: Tensor, steps: Tensor) -> Tensor:
                return (
                    model.denoiser(x.flatten(0, 1), steps.flatten(), condition)
                    .float()
                    .view_as(clean)
                )

            first = estimate(start, torch.full_like(draws.steps, last))
            base = torch.cat([first[:own].detach(), clean[own:]])
            noisy = add_noise(
                base.flatten(0, 1), noise.flatten(0, 1), draws.steps.flatten(), model.schedule
            ).view_as(clean)
            steps = draws.steps
            if own and (judged := config.judged_call(step)) is not None:
                met, number = met_by_ddim(
                    model, condition.unflatten(0, clean.shape[:2])[:own], start[:own], *judged
                )
                noisy, steps = (
                    torch.cat([met, noisy[own:]]),
                    torch.cat([torch.full_like(steps[:own], number), steps[own:]]),
                )
            later = estimate(noisy, steps)
            true = slice(own, 2 * own) if joined else slice(0, 0)
            logits = codec.decode(
                model.to_latents(torch.cat([first, later[:own], clean[true]]), cells)
            )
        chosen = _for_cells(draws.hidden, grid, cells)
        squared = (first - clean).square().mean(2)[chosen].mean() + (later - clean).square().mean(
            2
        )[own:][chosen[own:]].mean()
        truth = torch.cat([indices, indices[:own], indices[true]])
        pixels = pixel_loss(
            logits,
            truth,
            config.class_weights(weights, step).to(processes.device),
            config.jaccard_weight,
        )
        figures = {
            "latents": squared.item(),
            "cross_entropy": pixels.cross_entropy,
            "jaccard": pixels.jaccard,
        }
        return config.latent_weight * squared + pixels.total, figures

    return loss


@torch.no_grad()
def met_by_ddim(
    model: CamSeg, condition: Tensor, start: Tensor, steps: int, call: int
) -> tuple[Tensor, int]:
    """What DDIM in so many steps hands to the head at its `call`-th call, like `start` `(B, N, C)`, and the step number it names."""
    seen: list[tuple[Tensor, int]] = []
    flat = condition.flatten(0, 1)

    def denoise(x: Tensor, number: int) -> Tensor:
        seen.append((x, number))
        return model.denoiser(x, torch.full((len(x),), number, device=x.device), flat).float()

    def no_noise(_: int) -> Tensor:
        return torch.zeros_like(start[0])

    options = SamplerOptions(steps, model.config.temperature)
    ddim(
        denoise,
        start.flatten(0, 1),
        model.schedule,
        options,
        no_noise,
        model.config.denoiser.prediction_type,
    )
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
    """For the published layout; `batch` gives latents of the image and of the mask drawn as a picture, each `(B, c, h, w)`.

    The loss is the published one (see `model.loss.published_loss`), averaged over the hidden tokens of the mask, each denoised from
    `diffusion_batch_mul` noises and diffusion steps under the one condition that the transformer gives for it.
    """

    def loss(step: int, part: int = 0) -> tuple[Tensor, dict[str, float]]:
        model.train()
        numbers = processes.samples(step, size, part, loop.grad_accum_steps)
        image, mask = (latents.to(processes.device) for latents in batch(numbers))
        tokens, _ = model.to_tokens(image)
        clean, grid = model.to_tokens(mask)
        num_train_timesteps = len(model.schedule.timesteps)
        draws = Draws.of(
            numbers,
            step,
            loop.seed,
            (clean.shape[1], clean.shape[2]),
            clean.shape[1],
            num_train_timesteps,
            all_hidden,
            cut,
        ).to(processes.device)
        noise, steps = (
            drawn.flatten(0, 1)
            for drawn in draws.repeated(
                diffusion_batch_mul, numbers, loop.seed, num_train_timesteps
            )
        )
        flat = clean.flatten(0, 1).repeat(diffusion_batch_mul, 1)
        with loop.autocast(processes.device):
            condition = (
                model.transformer(tokens, grid, clean, draws.hidden)
                .flatten(0, 1)
                .repeat(diffusion_batch_mul, 1)
            )
            output = model.denoiser(
                add_noise(flat, noise, steps, model.schedule), steps, condition
            ).float()
        error, bound = published_loss(output, flat, noise, steps, model.schedule)
        chosen = draws.hidden.flatten().repeat(diffusion_batch_mul)
        squared, bits = error[chosen].mean(), bound[chosen].mean()
        return squared + bits, {"noise": squared.item(), "bound": bits.item()}

    return loss


def _for_cells(hidden: Tensor, grid: tuple[int, int], cells: tuple[int, int]) -> Tensor:
    """Flags of tokens `(B, L)` for what the head denoises `(B, N)`: each token spreads over its square."""
    times = cells[0] // grid[0]
    return (
        hidden.unflatten(1, grid).repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)
    )
