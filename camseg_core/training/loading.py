"""Batches prepared ahead by worker processes, while the device computes the step before."""

import itertools
import signal
from collections.abc import Callable, Iterator

import cv2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from camseg_core.errors import CamSegError
from camseg_core.training.parallel import Processes

Batch = Callable[[range], tuple[Tensor, Tensor]]
"""Sample numbers to two tensors of that many rows, the same whenever and wherever it is called."""

_AHEAD = 2  # batches that each worker has ready


def prepared(batch: Batch, among: Processes, size: int, parts: int = 1) -> Batch:
    """`batch` itself, or, where `among` has workers, the same answers made ahead by them.

    What is made ahead are this process's samples of one step after the other, see `Processes.samples`, whose arguments `size` and `parts`
    are. A question out of this order, such as the first of a resumed run, starts a new order from there.
    """
    return batch if among.workers == 0 else _Ahead(batch, among, size, parts)


class _Ahead:
    def __init__(self, batch: Batch, among: Processes, size: int, parts: int) -> None:
        self._batch, self._among, self._size, self._parts = batch, among, size, parts
        self._expected: Iterator[range] = iter(())
        self._answers: Iterator[tuple[Tensor, Tensor] | CamSegError] = iter(())

    def __call__(self, numbers: range) -> tuple[Tensor, Tensor]:
        if next(self._expected, None) != numbers:
            self._expected = self._from(numbers)
            next(self._expected)
            self._answers = iter(self._loader(numbers))
        answer = next(self._answers)
        if isinstance(answer, CamSegError):
            raise answer
        return answer

    def _from(self, numbers: range) -> Iterator[range]:
        for step in itertools.count(numbers.start // self._size):
            for part in range(self._parts):
                found = self._among.samples(step, self._size, part, self._parts)
                if found.start >= numbers.start:
                    yield found

    def _loader(self, numbers: range) -> "DataLoader[tuple[Tensor, Tensor] | CamSegError]":
        return DataLoader(
            _Answers(self._batch),
            batch_size=None,
            sampler=self._from(numbers),
            num_workers=self._among.workers,
            prefetch_factor=_AHEAD,
            worker_init_fn=_begin,
            multiprocessing_context="fork",  # frames that are held in memory are then shared
            pin_memory=self._among.device.type == "cuda",
        )


class _Answers(Dataset[tuple[Tensor, Tensor] | CamSegError]):
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __getitem__(self, numbers: range) -> tuple[Tensor, Tensor] | CamSegError:
        try:
            return self._batch(numbers)
        except CamSegError as error:  # as a value: the loader would wrap its one line into a page
            return error


def _begin(worker: int) -> None:
    """The training is told when to stop, and its workers end with it; they get the same signals where these go to the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
