"""Several models timed on the same frames in turns, so that what changes on the machine meanwhile meets all of them alike."""

import multiprocessing
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError, ModelError
from camseg_core.runtime.frame import Segmentation


@dataclass(frozen=True)
class Percentiles:
    """Median, 95th and 99th percentile, in ms."""

    p50: float
    p95: float
    p99: float


class Latency:
    """Collects the timings of frames, `Segmentation.timings`: ms per stage."""

    def __init__(self) -> None:
        self._stages: dict[str, list[float]] = {}
        self.frames_ms: list[float] = []
        """Of every frame, the sum of its stages."""

    def add(self, timings: Mapping[str, float]) -> None:
        """Count one frame."""
        self.frames_ms.append(sum(timings.values()))
        for stage, ms in timings.items():
            self._stages.setdefault(stage, []).append(ms)

    def total(self) -> Percentiles:
        """Of the whole frame; there must be one."""
        return _percentiles(self.frames_ms)

    def stages(self) -> dict[str, Percentiles]:
        """Of every stage, in the order in which a frame passes them."""
        return {stage: _percentiles(values) for stage, values in self._stages.items()}


def _percentiles(values: list[float]) -> Percentiles:
    return Percentiles(*map(float, np.percentile(values, (50, 95, 99))))


class Segments(Protocol):
    """What can be timed: `Segmenter`, or what stands in for it."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one RGB frame `(H, W, 3)`."""


@dataclass(frozen=True)
class Timed:
    """Latencies of each model, in the order in which they were given, and of each frame the share of pixels (0..1) that all agree on."""

    latencies: tuple[Latency, ...]
    agreements: tuple[float, ...]


def time_in_turns(
    models: Sequence[Segments], images: Iterable[npt.NDArray[np.uint8]], warm_up: int = 0
) -> Timed:
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
        agreements.append(
            float(
                np.logical_and.reduce(
                    [each.mask == results[0].mask for each in results.values()]
                ).mean()
            )
        )
    if not agreements:
        raise DataError(f"there is no frame to time after the {warm_up} to warm up")
    return Timed(latencies, tuple(agreements))


FRAMES = 3
"""So many frames are segmented: ONNX Runtime plans its memory on the first."""


@dataclass(frozen=True)
class Footprint:
    """Peak resident memory of the process in bytes (a GPU's own memory is not in it), and seconds from options to a loaded model."""

    peak_bytes: int
    load_s: float


def footprint(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    """Load a model in a fresh process, let it segment `image` `(H, W, 3)` a few times, and say what that took.

    Args:
        load: loads the model; a function of a module, or a `functools.partial` of one, as it is sent to the process.
        image: RGB `(H, W, 3)`.

    Raises:
        CamSegError: what `load` raises.
        ModelError: the process was killed, as happens where memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_measure, load, image).result()
        except BrokenProcessPool as error:
            raise ModelError(
                "the process that measures the model's memory was killed: is there too little memory for it?"
            ) from error


def _measure(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    began = time.perf_counter()
    model = load()
    loaded = time.perf_counter()
    for _ in range(FRAMES):
        model.segment(image)
    return Footprint(_peak_bytes(), loaded - began)


def _peak_bytes() -> int:
    """The kernel's own mark; `getrusage` would pass on that of the process which started this one."""
    found = re.search(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        raise ModelError(
            "/proc/self/status does not tell the peak memory (VmHWM); this needs a Linux kernel"
        )
    return int(found[1]) * 1024
