"""Augmented samples of a labelled data set in a shuffled order that is known in advance."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from camseg_core.training.frames import Frames
from camseg_core.training.seeds import generator, seeded

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""An image `(1, 3, H, W)` in 0..1 and its class indices `(1, H, W)` to the same at another size; draws from torch's global generator."""


class FrameStream:
    """Endless passes over `frames`, each shuffled anew. Sample n is the same whoever asks for it, and whenever.

    Without `augment` samples are the frames as they are.
    """

    def __init__(self, frames: Frames, augment: Augment | None, seed: int) -> None:
        self._frames, self._augment, self._seed = frames, augment, seed
        self._order = functools.lru_cache(maxsize=4)(self._shuffled)

    def batch(self, numbers: range) -> tuple[Tensor, Tensor]:
        """The samples of these numbers: images `(B, 3, h, w)` in 0..1 and class indices `(B, h, w)`, 255 where unlabelled."""
        images, indices = zip(*(self._sample(number) for number in numbers), strict=True)
        return torch.cat(images), torch.cat(indices)

    def frame(self, number: int) -> int:
        """Which frame a sample is of."""
        epoch, place = divmod(number, len(self._frames))
        return int(self._order(epoch)[place])

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        frame = self.frame(number)
        image, indices = (tensor.unsqueeze(0) for tensor in self._frames[frame])
        image = image.float() / 255
        if self._augment is None:
            return image, indices
        with seeded(self._seed, "augment", number):
            return self._augment(image, indices)

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self._frames), generator=generator(self._seed, "order", epoch))
