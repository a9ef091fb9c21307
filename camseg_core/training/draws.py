"""The random numbers of a training step, which depend only on seed, step and sample numbers."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from camseg_core.training.loading import generator

Cut = Literal["clamp", "truncate"]
"""How a normal share gets into 0.7..1.

`clamp` takes the nearer end, so that half of the steps hide everything. `truncate` draws again, as
published (a truncated normal distribution, as in arXiv 2406.11838), which hides 0.87 on average.
"""


@dataclass(frozen=True)
class Draws:
    """The random numbers of B samples.

    `noises` are two of pure noise, `(B, N, C)` each; the second is for the task loss. `timesteps`
    are those of the diffusion, `(B, N)` int64. `hidden` `(B, L)` bool marks the hidden tokens: the
    same number in every row.
    """

    noises: tuple[Tensor, Tensor]
    timesteps: Tensor
    hidden: Tensor

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
        """Draw for the samples `numbers` of training step `step`, on the CPU.

        Args:
            numbers: of the samples.
            step: of the training.
            seed: of the run.
            denoised: `(N, C)`, what the head denoises of a sample.
            tokens: L, the number of mask tokens.
            num_train_timesteps: of the diffusion.
            all_hidden: share of steps that hide the whole mask; the others hide a normal share
                (mean 1, standard deviation 0.25).
            cut: how that share gets into 0.7..1.
        """
        generators = [generator(seed, "noise", number) for number in numbers]
        first, second = (
            torch.stack([torch.randn(denoised, generator=g) for g in generators]) for _ in range(2)
        )
        drawn = [torch.randint(num_train_timesteps, denoised[:1], generator=g) for g in generators]
        shared = generator(seed, "hidden", step)
        everything = torch.rand((), generator=shared) < all_hidden
        count = tokens if everything else _hidden_tokens(tokens, shared, cut)
        order = [torch.rand(tokens, generator=g).argsort().argsort() for g in generators]
        return Draws((first, second), torch.stack(drawn), torch.stack(order) < count)

    def to(self, device: torch.device) -> "Draws":
        """Return the same on `device`."""
        first, second = (noise.to(device) for noise in self.noises)
        return Draws((first, second), self.timesteps.to(device), self.hidden.to(device))

    def repeated(
        self, times: int, numbers: range, seed: int, num_train_timesteps: int
    ) -> tuple[Tensor, Tensor]:
        """Return noise `(times·B, N, C)` and timesteps `(times·B, N)`: these, then more.

        `numbers` and `seed` are those of `of`.
        """
        noises, timesteps = [self.noises[0]], [self.timesteps]
        shape, device = self.noises[0].shape[1:], self.timesteps.device
        for time in range(1, times):
            generators = [generator(seed, "noise", number, time) for number in numbers]
            noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
            drawn = torch.stack(
                [torch.randint(num_train_timesteps, shape[:1], generator=g) for g in generators]
            )
            noises.append(noise.to(device))
            timesteps.append(drawn.to(device))
        return torch.cat(noises), torch.cat(timesteps)


def _hidden_tokens(tokens: int, random: torch.Generator, cut: Cut) -> int:
    """Draw how many tokens to hide: rounded when clamped, else rounded up as published."""

    def drawn() -> float:
        return float(torch.empty(1).normal_(1.0, 0.25, generator=random))

    share = drawn()
    if cut == "clamp":
        return max(1, round(float(torch.tensor(share).clamp(0.7, 1.0)) * tokens))
    while not 0.7 <= share <= 1:
        share = drawn()
    return math.ceil(share * tokens)
