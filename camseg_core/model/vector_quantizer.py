"""Vector quantisation: every latent vector becomes the nearest entry of a learned codebook.

Sources: arXiv 1711.00937 (gradient straight through, commitment loss, and in its appendix the codebook as a moving average, which
is also how arXiv 1906.00446 trains it); arXiv 2005.00341, section 3.1, for moving entries that nothing uses to vectors of the
current batch. Those vectors are drawn in proportion to their squared error, as k-means++ draws its centres: drawn evenly, nearly
all would be plain road or sky, which have their entries already.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    """A codebook of `size` entries of `channels` numbers.

    It trains itself whenever it is called in training mode: an entry is the moving average of the vectors it stood for. All of its
    state is in buffers, and it draws from torch's global generator. Where several processes train together they all learn from
    the vectors of all, so that their codebooks stay one; their generators must agree, and their batches be of one size.
    """

    codebook: Tensor  # (size, channels)
    uses: Tensor  # (size,): moving average of the vectors per call that an entry stands for

    decay = 0.95  # of both moving averages
    dead_below = 0.05  # uses per call: an entry that is rare but right keeps its place
    revived_at = 1.0  # uses per call that a moved entry starts with: few, so that it soon goes to the middle of what it gets

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(size, channels))
        self.register_buffer("uses", torch.zeros(size))  # all dead: the first batch places them

    def entries(self, latents: Tensor) -> Tensor:
        """Latents `(B, C, h, w)` to the numbers `(B, h, w)` int64 of their nearest entries."""
        return self._nearest(_vectors(latents)).view(latents.shape[0], *latents.shape[2:])

    def look_up(self, entries: Tensor) -> Tensor:
        """Numbers of entries `(B, h, w)` to latents `(B, C, h, w)`."""
        return F.embedding(entries, self.codebook).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(B, C, h, w)` to their nearest entries, same shape, and the mean squared distance to them (scalar).

        The gradient of the first passes straight through to `latents`; that of the second pulls `latents` to the entries.
        """
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):  # bf16 cannot tell close entries apart
            vectors = _vectors(latents)
            nearest = self._nearest(vectors)
            quantised = self.look_up(nearest.view(latents.shape[0], *latents.shape[2:]))
            if self.training:
                self._learn(_of_all_processes(vectors), _of_all_processes(nearest))
        return quantised + (latents - latents.detach()), F.mse_loss(latents, quantised)  # what is added is zero, but has a gradient

    def _nearest(self, vectors: Tensor) -> Tensor:
        # the squared distance less the vector's own square, which is the same for all entries
        return torch.addmm(self.codebook.square().sum(1), vectors, self.codebook.T, alpha=-2).argmin(1)

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


def _vectors(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2).float()


def _of_all_processes(rows: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)
