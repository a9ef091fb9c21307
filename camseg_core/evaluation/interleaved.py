"""Several models timed on the same frames in turns, so that what changes on the machine meanwhile meets all of them alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.latency import Latency
from camseg_core.runtime.frame import Segmentation


class Segments(Protocol):
    """What can be timed: `Segmenter`, or what stands in for it."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one RGB frame `(H, W, 3)`."""


@dataclass(frozen=True)
class Timed:
    """Latencies of each model, in the order in which they were given, and of each frame the share of pixels (0..1) that all agree on."""

    latencies: tuple[Latency, ...]
    agreements: tuple[float, ...]


def time_in_turns(models: Sequence[Segments], images: Iterable[npt.NDArray[np.uint8]], warm_up: int = 0) -> Timed:
    """Time the models on every image, one after the other, the order reversed from image to image: A B, B A, A B, …

    The first `warm_up` images are not counted. Memory does not grow with the images but for their times.

    Raises:
        DataError: there are no more images than those that warm up.
    """
    latencies = tuple(Latency() for _ in models)
    agreements: list[float] = []
    for number, image in enumerate(images):
        order = range(len(models)) if number % 2 == 0 else reversed(range(len(models)))
        results = {index: models[index].segment(image) for index in order}
        if number < warm_up:
            continue
        for index, latency in enumerate(latencies):
            latency.add(results[index].timings)
        agreements.append(float(np.logical_and.reduce([each.mask == results[0].mask for each in results.values()]).mean()))
    if not agreements:
        raise DataError(f"there is no frame to time after the {warm_up} to warm up")
    return Timed(latencies, tuple(agreements))
