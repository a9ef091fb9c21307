"""Measure speed and memory of one model, or compare two in one run, on unlabelled frames."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.machine import describe_machine
from camseg_core.evaluation.roofline import CAVEAT, FrameWork, Work, estimates
from camseg_core.evaluation.timing import Footprint, Latency, footprint, time_in_turns
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.runtime.segmenter import Segmenter

RESAMPLES = 2000
"""Bootstrap resamples for the interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """Divide the median of `times` by that of `base`, measured in pairs; bootstrap the interval.

    Percentile method on whole pairs, so that what slowed both of a pair does not widen the
    interval. It assumes independent pairs: drift over many makes the true interval wider.

    Raises:
        DataError: there are no pairs, or the numbers of times differ.
    """
    if len(times) != len(base) or not times:
        raise DataError(
            f"a ratio needs as many times of one as of the other, got {len(times)} and {len(base)}"
        )
    pairs = np.array([times, base])
    draws = np.random.default_rng(seed).integers(0, len(times), (RESAMPLES, len(times)))
    medians = np.median(pairs[:, draws], axis=2)  # (2, resamples)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return Ratio(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))


@dataclass(frozen=True)
class Variant:
    """A model to measure.

    Attributes:
        name: its name in tables.
        options: by name.
        repeats: how often a frame runs each stage, see `repeats_of`.
        load: loads it; also called in another process, see `footprint`.
    """

    name: str
    options: Mapping[str, object]
    repeats: Mapping[str, float]
    load: Callable[[], Segmenter]


@dataclass(frozen=True)
class Measured:
    """The measurements of a variant.

    Attributes:
        engine: provider and precision it ran in.
        network_size: (width, height) of a frame at the network.
        work: None where it could not be counted.
    """

    variant: Variant
    engine: str
    network_size: tuple[int, int]
    footprint: Footprint
    latency: Latency
    work: FrameWork | None

    @property
    def frames_per_second(self) -> float:
        """Rate of one frame after the other, without pause."""
        return 1000 * len(self.latency.frames_ms) / sum(self.latency.frames_ms)

    def stages(self) -> dict[str, Work]:
        """Return the work of a frame by stage, with repeats; empty if it was not counted."""
        return {} if self.work is None else self.work.repeated(self.variant.repeats)


@dataclass(frozen=True)
class Benchmark:
    """The result of `benchmark`.

    Attributes:
        ratio: time per frame of the second variant over the first, if there are two.
        agreement: mean share of pixels (0..1) with the same class in both masks.
        missing: the package that counting work needs, if it is not installed.
    """

    measured: tuple[Measured, ...]
    ratio: Ratio | None
    agreement: float | None
    missing: str | None
    machine: Mapping[str, str]


def benchmark(
    variants: Sequence[Variant],
    example: npt.NDArray[np.uint8],
    images: Iterable[npt.NDArray[np.uint8]],
    warm_up: int = 0,
) -> Benchmark:
    """Measure one variant, or two in turns.

    Args:
        variants: one or two.
        example: an image `(H, W, 3)` for memory, load time and work.
        images: the frames to time, one at a time.
        warm_up: the number of first images that are not counted.

    Raises:
        CamSegError: a variant cannot be loaded.
        DataError: there are no images beyond the warm-up.
    """
    # each in its own process, and before this one fills the memory
    footprints = [footprint(variant.load, example) for variant in variants]
    segmenters = [variant.load() for variant in variants]
    timed = time_in_turns(segmenters, images, warm_up)
    sizes = [_network_size(segmenter, example) for segmenter in segmenters]
    works, missing = _counted(segmenters, sizes)
    engines = [f"{segmenter.provider} in {segmenter.precision}" for segmenter in segmenters]
    measured = tuple(
        Measured(*each)
        for each in zip(variants, engines, sizes, footprints, timed.latencies, works, strict=True)
    )
    compared = len(measured) == 2
    return Benchmark(
        measured,
        ratio_of_medians(timed.latencies[1].frames_ms, timed.latencies[0].frames_ms)
        if compared
        else None,
        float(np.mean(timed.agreements)) if compared else None,
        missing,
        describe_machine(),
    )


def _network_size(segmenter: Segmenter, image: npt.NDArray[np.uint8]) -> tuple[int, int]:
    config = segmenter.config
    height, width = FrameGeometry.fit(
        image.shape[0], image.shape[1], config.network_pixels, config.size_multiple
    ).padded
    return width, height


def _counted(
    segmenters: Sequence[Segmenter], sizes: Sequence[tuple[int, int]]
) -> tuple[list[FrameWork | None], str | None]:
    """Count each model's work on frames of its size; or None for each, and the missing package."""
    try:  # late: a vehicle has no torch, and it must not run beside what is timed
        from camseg_core.evaluation.flops import frame_work

        return [
            frame_work(each.config, each.labels, height, width)
            for each, (width, height) in zip(segmenters, sizes, strict=True)
        ], None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "camseg_core"):
            raise
        return [None] * len(segmenters), package


def benchmark_content(
    found: Benchmark, about: Mapping[str, object], roofline: bool
) -> dict[str, Any]:
    """Return the JSON content of a benchmark: times in ms (all frames' too), bytes, and work.

    Args:
        found: the benchmark.
        about: facts about the run, such as the frames and their size.
        roofline: whether to add the estimates for other devices.
    """
    content = {
        "about": dict(about),
        "machine": dict(found.machine),
        "models": [_model(each) for each in found.measured],
        "comparison": None
        if found.ratio is None
        else {"ratio_of_medians": asdict(found.ratio), "agreement": found.agreement},
    }
    if roofline and found.missing is None:
        content["roofline"] = {
            "caveat": CAVEAT,
            "models": {
                each.variant.name: [
                    asdict(estimate) | {"ms": estimate.ms} for estimate in estimates(each.stages())
                ]
                for each in found.measured
            },
        }
    return content


def _model(each: Measured) -> dict[str, Any]:
    return {
        "name": each.variant.name,
        "options": dict(each.variant.options),
        "engine": each.engine,
        "repeats": dict(each.variant.repeats),
        "network_size": list(each.network_size),
        "frames_per_second": each.frames_per_second,
        "latency_ms": asdict(each.latency.total()),
        "stages_ms": {stage: asdict(ms) for stage, ms in each.latency.stages().items()},
        "frames_ms": list(each.latency.frames_ms),
        "peak_memory_bytes": each.footprint.peak_bytes,
        "load_s": each.footprint.load_s,
        "parameters": None if each.work is None else each.work.parameters,
        "stages_work": {stage: asdict(work) for stage, work in each.stages().items()},
    }
