"""Samples by number: drawn from frames, seeded, and prefetched by worker processes."""

import functools
import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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
"""Maps sample numbers to two tensors of that many rows, the same in every process and run."""

_AHEAD = 2  # batches that each worker prepares


@contextmanager
def prepared(batch: Batch, processes: Processes, size: int, parts: int = 1) -> Iterator[Batch]:
    """Yield `batch`, prefetched by the workers of `processes`, if any, until the context ends.

    The workers follow this process's samples in the order of the steps: `size` and `parts` are
    arguments of `Processes.samples`. A call with other numbers, such as the first of a resumed run,
    restarts the order from there.
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
        self._batch, self._processes, self._size, self._parts = batch, processes, size, parts
        self._expected: Iterator[range] = iter(())
        self._answers: Iterator[tuple[Tensor, Tensor] | CamSegError] = iter(())

    def close(self) -> None:
        self._answers = iter(())  # the loader ends its workers with the last reference to this

    def __call__(self, numbers: range) -> tuple[Tensor, Tensor]:
        if next(self._expected, None) != numbers:
            self._expected = _following(numbers, self._processes, self._size, self._parts)
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
            sampler=_following(numbers, self._processes, self._size, self._parts),
            num_workers=self._processes.workers,
            prefetch_factor=_AHEAD,
            worker_init_fn=_start_worker,
            multiprocessing_context="fork",  # shares the frames that are held in memory
            pin_memory=self._processes.device.type == "cuda",
        )


def _following(numbers: range, processes: Processes, size: int, parts: int) -> Iterator[range]:
    """Yield these numbers, then the numbers of the process's next parts."""
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
        except CamSegError as error:  # returned, not raised: the loader would add a traceback
            return error


def _start_worker(worker: int) -> None:
    """Ignore SIGINT, and SIGTERM from anyone except the training process.

    A request to stop often goes to a whole process group, but the training needs its workers to
    the end of the step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_end, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


_BLOCK = 1000
"""Samples in which every set has its share, rounded to whole samples; their order is random."""


class FrameStream:
    """Endless passes over the sets in `frames`, each shuffled anew; sets alternate by weight.

    Sample n is the same in every process and run; without `augment` it is the frame unchanged.
    Where `chosen` returns a frame and a class for n, that frame takes the place of the next one,
    and the sample shows the class.
    """

    def __init__(
        self,
        frames: Frames,
        augment: Augmentation | None,
        seed: int,
        chosen: Callable[[int], tuple[int, int] | None] | None = None,
    ) -> None:
        self._frames, self._augment, self._seed = frames, augment, seed
        self._chosen = chosen or (lambda _: None)
        parts = frames.parts()
        self._lengths = [len(part.frames) for part in parts]
        self._counts = _shares([part.weight for part in parts], _BLOCK)
        self._order = functools.lru_cache(maxsize=4 * len(parts))(self._shuffled)
        self._sets = functools.lru_cache(maxsize=4)(self._drawn_sets)

    def batch(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Return images `(B, 3, h, w)` in 0..1 and class indices `(B, h, w)`, 255 if unlabelled."""
        images, indices = zip(*(self._sample(number) for number in numbers), strict=True)
        return torch.cat(images), torch.cat(indices)

    def frame(self, number: int) -> int:
        """Return the number of the frame that a sample is from."""
        if (chosen := self._chosen(number)) is not None:
            return chosen[0]
        part, rank = 0, number
        if len(self._lengths) > 1:
            block, place = divmod(number, _BLOCK)
            drawn = self._sets(block)
            part = int(drawn[place])
            rank = block * self._counts[part] + int((drawn[:place] == part).sum())
        epoch, place = divmod(rank, self._lengths[part])
        return sum(self._lengths[:part]) + int(self._order(epoch, part)[place])

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        frame = self.frame(number)
        image, indices = self._frames[frame]
        if self._augment is not None:
            drawn = torch.randint(2**62, (), generator=generator(self._seed, "augment", number))
            rgb = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            rng, chosen = np.random.default_rng(int(drawn)), self._chosen(number)
            shown = None if chosen is None else chosen[1]
            rgb, label = self._augment(rgb, indices.numpy(), rng, shown)
            image = torch.from_numpy(rgb).permute(2, 0, 1).contiguous()
            indices = torch.from_numpy(label).long()
        return image.unsqueeze(0).float() / 255, indices.unsqueeze(0)

    def _shuffled(self, epoch: int, part: int) -> Tensor:
        # the first set keeps the seed from when there was only one: runs of old versions resume
        place = ("order", epoch, part) if part else ("order", epoch)
        return torch.randperm(self._lengths[part], generator=generator(self._seed, *place))

    def _drawn_sets(self, block: int) -> Tensor:
        """Return the sets of the samples of a block, `(_BLOCK,)`."""
        sets = torch.repeat_interleave(torch.tensor(self._counts))
        return sets[torch.randperm(_BLOCK, generator=generator(self._seed, "sets", block))]


def _shares(weights: Sequence[float], total: int) -> list[int]:
    """Return whole numbers in proportion to `weights` with the sum `total`."""
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * total).astype(int)
    return [int(count) for count in np.diff(ends, prepend=0)]


def seed_of(*place: int | str) -> int:
    """Return a 63-bit seed from, for example, (seed, "noise", step, sample), on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=8).digest(), "big") >> 1


def generator(*place: int | str) -> torch.Generator:
    """Return a CPU generator that starts from `seed_of(*place)`."""
    return torch.Generator().manual_seed(seed_of(*place))


def posterior_noise(numbers: range, shape: Sequence[int], seed: int) -> Tensor:
    """Return normal noise `(B, *shape)` that only depends on `seed` and the samples' numbers."""
    generators = (generator(seed, "posterior", number) for number in numbers)
    return torch.stack([torch.randn(*shape, generator=each) for each in generators])
