"""Codebooks that latents are quantised to: learned (VQ), or a grid (FSQ)."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    """A codebook of `size` entries of `channels` numbers.

    Calls in training mode train it: an entry is the moving average of the vectors it stood for. All
    state is in buffers, and random numbers come from torch's global generator. Processes that train
    together learn from the vectors of all, so that their codebooks agree; their generators must
    agree too, and their batches be of one size.
    """

    codebook: Tensor  # (size, channels)
    uses: Tensor  # (size,): moving average of the vectors per call that an entry stands for

    decay = 0.95  # of both moving averages
    dead_below = 0.05  # uses per call, so low that a rare entry keeps its place
    revived_at = 1.0  # uses per call that a moved entry starts with: few, so that it moves fast

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(size, channels))
        self.register_buffer("uses", torch.zeros(size))  # all dead: the first batch places them

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self.codebook)

    def entries(self, latents: Tensor) -> Tensor:
        """Return the numbers `(B, h, w)` int64 of the entries nearest to latents `(B, C, h, w)`."""
        return self._nearest(_vectors(latents)).view(latents.shape[0], *latents.shape[2:])

    def look_up(self, entries: Tensor) -> Tensor:
        """Return the latents `(B, C, h, w)` of entries by number `(B, h, w)`."""
        return F.embedding(entries, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entries nearest to latents `(B, C, h, w)`, and the mean squared distance.

        The gradient of the first passes straight through to `latents`; that of the second pulls
        `latents` to the entries.
        """
        # in fp32: bf16 cannot separate close entries
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            vectors = _vectors(latents)
            nearest = self._nearest(vectors)
            quantised = self.look_up(nearest.view(latents.shape[0], *latents.shape[2:]))
            if self.training:
                self._learn(_of_all_processes(vectors), _of_all_processes(nearest))
        return straight_through(latents, quantised), F.mse_loss(latents, quantised)

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the entries nearest to latents `(B, C, h, w)`, which may be disturbed entries."""
        return self(latents)[0]

    def _nearest(self, vectors: Tensor) -> Tensor:
        # the squared distance less the vector's own square, which is the same for all entries
        return torch.addmm(
            self.codebook.square().sum(1), vectors, self.codebook.T, alpha=-2
        ).argmin(1)

    def _learn(self, vectors: Tensor, entries: Tensor) -> None:
        error = (vectors - self.codebook[entries]).square().sum(1)
        counts = torch.zeros_like(self.uses).index_add_(0, entries, torch.ones_like(error))
        sums = torch.zeros_like(self.codebook).index_add_(0, entries, vectors)
        self.uses.lerp_(counts, 1 - self.decay)
        step = (1 - self.decay) / self.uses.clamp_min(1e-9)
        self.codebook.add_(step.unsqueeze(1) * (sums - counts.unsqueeze(1) * self.codebook))

        dead = (self.uses < self.dead_below).nonzero().squeeze(1)[: len(vectors)]
        if len(dead):
            # a network that has diverged is for the training loop to report
            chosen = torch.multinomial(error.nan_to_num(posinf=0.0) + 1e-9, len(dead))
            self.codebook[dead] = vectors[chosen]
            self.uses[dead] = self.revived_at


class FiniteScalarQuantizer(nn.Module):
    """Rounds each latent channel to few levels: FSQ (Mentzer et al., arXiv 2309.15505).

    `levels` has the number of levels of every channel; the codebook is all their combinations and
    has no weights. A channel is bounded by tanh, so that it reaches all of its levels and no more;
    entries are scaled to -1..1.
    """

    levels: Tensor  # (C,)
    places: Tensor  # (C,): the entry's number is the sum over channels of level times place

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        places = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(self.levels.prod())

    def entries(self, latents: Tensor) -> Tensor:
        """Return the numbers `(B, h, w)` int64 of the entries that latents `(B, C, h, w)` become.

        The latents are the encoder's, before they are bounded.
        """
        steps = (self._bounded(latents).round() + self._middle).long()
        return (steps * self.places.view(-1, 1, 1)).sum(1)

    def look_up(self, entries: Tensor) -> Tensor:
        """Return the latents `(B, C, h, w)` of entries by number `(B, h, w)`."""
        levels, places = self.levels.view(-1, 1, 1), self.places.view(-1, 1, 1)
        return (entries.unsqueeze(1) // places % levels - self._middle) / self._middle

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entries that the encoder's latents `(B, C, h, w)` become, and a penalty of 0.

        The gradient passes straight through the rounding to the bounded latents.
        """
        bounded = self._bounded(latents)
        quantised = straight_through(bounded, bounded.round()) / self._middle
        return quantised, latents.new_zeros(())

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the entries nearest to latents `(B, C, h, w)`, which may be disturbed entries."""
        middle, highest = self._middle, self.levels.view(-1, 1, 1) - 1 - self._middle
        steps = (latents * middle).round().maximum(-middle).minimum(highest)
        return straight_through(latents, steps / middle)

    @property
    def _middle(self) -> Tensor:
        """By channel `(C, 1, 1)`: the level that stands for 0, and the steps from -1 to 0."""
        return (self.levels // 2).float().view(-1, 1, 1)

    def _bounded(self, latents: Tensor) -> Tensor:
        """Latents on a scale on which levels are whole numbers; 0 stays 0."""
        levels = self.levels.view(-1, 1, 1)
        reach = (levels - 1) * 1.001 / 2  # a little more than the outer levels
        offset = 0.5 * (levels % 2 == 0)  # an even number has one more level below 0 than above
        return (latents.float() + (offset / reach).atanh()).tanh() * reach - offset


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """Return `quantised` with the gradient of `latents`."""
    return quantised + (latents - latents.detach())  # what is added is zero, but has a gradient


def _vectors(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2).float()


def _of_all_processes(rows: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
