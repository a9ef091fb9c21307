"""Times models interleaved, so that drift affects all alike; measures memory; names the machine."""

import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError, ModelError
from camseg_core.runtime.segmenter import Segmentation


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
        """The sum of the stages of every frame."""

    def add(self, timings: Mapping[str, float]) -> None:
        """Add one frame."""
        self.frames_ms.append(sum(timings.values()))
        for stage, ms in timings.items():
            self._stages.setdefault(stage, []).append(ms)

    def total(self) -> Percentiles:
        """Return the percentiles of whole frames; at least one must have been added."""
        return _percentiles(self.frames_ms)

    def stages(self) -> dict[str, Percentiles]:
        """Return the percentiles of every stage, in the order in which a frame passes them."""
        return {stage: _percentiles(values) for stage, values in self._stages.items()}


def _percentiles(values: list[float]) -> Percentiles:
    return Percentiles(*map(float, np.percentile(values, (50, 95, 99))))


class Segments(Protocol):
    """Anything that can be timed: a `Segmenter` or a stand-in."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one RGB frame `(H, W, 3)`."""


@dataclass(frozen=True)
class Timed:
    """Latencies by model, and for each frame the share of pixels (0..1) on which models agree."""

    latencies: tuple[Latency, ...]
    agreements: tuple[float, ...]


class WarmUp:
    """Segments the first frame of each size once more, before it is timed.

    Engines plan their memory or compile their graphs at a new size, which takes seconds.
    """

    def __init__(self) -> None:
        self._sizes: set[tuple[int, ...]] = set()

    def __call__(
        self,
        segment: Iterable[Callable[[npt.NDArray[np.uint8]], object]],
        image: npt.NDArray[np.uint8],
    ) -> None:
        """Call each model's `segment` with the image if none of its size was segmented here."""
        if image.shape not in self._sizes:
            self._sizes.add(image.shape)
            for each in segment:
                each(image)


def in_turns(
    models: Sequence[Segments], image: npt.NDArray[np.uint8], number: int
) -> list[Segmentation]:
    """Segment frame `number` with each model; on odd numbers the last model begins."""
    order = range(len(models)) if number % 2 == 0 else reversed(range(len(models)))
    results = {index: models[index].segment(image) for index in order}
    return [results[index] for index in range(len(models))]


def time_in_turns(
    models: Sequence[Segments], images: Iterable[npt.NDArray[np.uint8]], warm_up: int = 0
) -> Timed:
    """Time the models on every image, in alternating order: A B, B A, A B, …

    The first `warm_up` images are not counted. Images are not kept.

    Raises:
        DataError: there are no images beyond the warm-up.
    """
    latencies = tuple(Latency() for _ in models)
    agreements: list[float] = []
    for number, image in enumerate(images):
        results = in_turns(models, image, number)
        if number < warm_up:
            continue
        for result, latency in zip(results, latencies, strict=True):
            latency.add(result.timings)
        alike = [each.mask == results[0].mask for each in results]
        agreements.append(float(np.logical_and.reduce(alike).mean()))
    if not agreements:
        raise DataError(f"there must be frames to time after the {warm_up} to warm up, got none")
    return Timed(latencies, tuple(agreements))


FRAMES = 3
"""Frames to segment: ONNX Runtime plans its memory on the first."""


@dataclass(frozen=True)
class Footprint:
    """Peak resident host memory in bytes, and seconds to load the model."""

    peak_bytes: int
    load_s: float


def footprint(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    """Measure a model in a fresh process, which segments `image` a few times.

    Args:
        load: loads the model; must be picklable, as it is sent to the process.
        image: RGB `(H, W, 3)`.

    Raises:
        CamSegError: what `load` raises.
        ModelError: the process was killed, as when memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_measure, load, image).result()
        except BrokenProcessPool as error:
            raise ModelError(
                "the process that measured the model's memory was killed, perhaps out of memory"
            ) from error


def _measure(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    began = time.perf_counter()
    model = load()
    loaded = time.perf_counter()
    for _ in range(FRAMES):
        model.segment(image)
    return Footprint(process_peak_bytes(), loaded - began)


def process_peak_bytes() -> int:
    """Return the peak resident memory of this process, the kernel's high-water mark.

    `getrusage` would include that of the parent process.

    Raises:
        ModelError: the kernel does not report it.
    """
    found = re.search(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        raise ModelError(
            "/proc/self/status has no peak memory (VmHWM); measuring memory needs Linux"
        )
    return int(found[1]) * 1024


PACKAGES = ("camseg_ros", "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return processor, system and versions of the installed `packages`, by the name to show."""
    described = {
        "Processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "System": f"{_system()}, {platform.machine()}",
        "Python": platform.python_version(),
    }
    for name in packages:
        try:
            described[name] = version(name)
        except PackageNotFoundError:  # only one of the two ONNX Runtimes is installed
            continue
    return described


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
