"""Batches prepared ahead by worker processes, while the device computes the step before."""

import functools
import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from camseg_core.data.augmentation import Augmentation
from camseg_core.errors import CamSegError
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames

Batch = Callable[[range], tuple[Tensor, Tensor]]
"""Sample numbers to two tensors of that many rows, the same whenever and wherever it is called."""

_AHEAD = 2  # batches that each worker has ready


@contextmanager
def prepared(batch: Batch, processes: Processes, size: int, parts: int = 1) -> Iterator[Batch]:
    """`batch` itself, or, where `processes` has workers, the same answers made ahead by them; they end with the context.

    What is made ahead are this process's samples of one step after the other, see `Processes.samples`, whose arguments `size` and `parts`
    are. A question out of this order, such as the first of a resumed run, starts a new order from there.
    """
    if processes.workers == 0:
        yield batch
        return
    ahead = _Ahead(batch, processes, size, parts)
    try:
        yield ahead
    finally:
        ahead.close()


class _Ahead:
    def __init__(self, batch: Batch, processes: Processes, size: int, parts: int) -> None:
        self._batch, self._among, self._size, self._parts = batch, processes, size, parts
        self._expected: Iterator[range] = iter(())
        self._answers: Iterator[tuple[Tensor, Tensor] | CamSegError] = iter(())

    def close(self) -> None:
        self._answers = iter(
            ()
        )  # the loader ends its workers with the last reference to what it gives

    def __call__(self, numbers: range) -> tuple[Tensor, Tensor]:
        if next(self._expected, None) != numbers:
            self._expected = _following(numbers, self._among, self._size, self._parts)
            next(self._expected)
            self._answers = iter(self._loader(numbers))
        answer = next(self._answers)
        if isinstance(answer, CamSegError):
            raise answer
        return answer

    def _loader(self, numbers: range) -> "DataLoader[tuple[Tensor, Tensor] | CamSegError]":
        return DataLoader(
            _Answers(self._batch),
            batch_size=None,
            sampler=_following(numbers, self._among, self._size, self._parts),
            num_workers=self._among.workers,
            prefetch_factor=_AHEAD,
            worker_init_fn=_begin,
            multiprocessing_context="fork",  # frames that are held in memory are then shared
            pin_memory=self._among.device.type == "cuda",
        )


def _following(numbers: range, processes: Processes, size: int, parts: int) -> Iterator[range]:
    """These numbers, and those that the process takes afterwards."""
    for step in itertools.count(numbers.start // size):
        for part in range(parts):
            found = processes.samples(step, size, part, parts)
            if found.start >= numbers.start:
                yield found


class _Answers(Dataset[tuple[Tensor, Tensor] | CamSegError]):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __getitem__(self, numbers: range) -> tuple[Tensor, Tensor] | CamSegError:
        try:
            return self._batch(numbers)
        except CamSegError as error:  # as a value: the loader would wrap its one line into a page
            return error


def _begin(worker: int) -> None:
    """A wish to stop is for the training, which needs its workers to the end of the step, and often goes to all processes of a group.
    So it is the training's own SIGTERM alone that ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_end, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class FrameStream:
    """Endless passes over `frames`, each shuffled anew. Sample n is the same whoever asks for it, and whenever.

    Without `augment` samples are the frames as they are.
    """

    def __init__(self, frames: Frames, augment: Augmentation | None, seed: int) -> None:
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
        image, indices = self._frames[frame]
        if self._augment is not None:
            drawn = torch.randint(2**62, (), generator=generator(self._seed, "augment", number))
            rgb = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            rgb, label = self._augment(rgb, indices.numpy(), np.random.default_rng(int(drawn)))
            image = torch.from_numpy(rgb).permute(2, 0, 1).contiguous()
            indices = torch.from_numpy(label).long()
        return image.unsqueeze(0).float() / 255, indices.unsqueeze(0)

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self._frames), generator=generator(self._seed, "order", epoch))


def seed_of(*place: int | str) -> int:
    """A 63-bit seed from numbers and words such as (seed, "noise", step, sample): the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=8).digest(), "big") >> 1


def generator(*place: int | str) -> torch.Generator:
    """A CPU generator that starts from `seed_of(*place)`."""
    return torch.Generator().manual_seed(seed_of(*place))
