"""How fast models are and what they need, measured on frames without labels; two of them are compared in one run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.evaluation.machine import describe_machine
from camseg_core.evaluation.roofline import CAVEAT, estimates
from camseg_core.evaluation.timing import Footprint, Latency, footprint, time_in_turns
from camseg_core.model.work import FrameWork, Work
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.runtime.segmenter import Segmenter

RESAMPLES = 2000
"""How often the times are drawn anew for the interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], base: Sequence[float], seed: int = 0) -> Ratio:
    """The median of `times` over that of `base`, which were taken in pairs, with a bootstrap interval (percentile method).

    Pairs are drawn as wholes, so what slowed both of a pair does not widen the interval. Pairs are taken for independent: drift over
    many of them makes the true interval wider than this one.

    Raises:
        DataError: there are no pairs, or the numbers of times differ.
    """
    if len(times) != len(base) or not times:
        raise DataError(
            f"{len(times)} and {len(base)} times make no pairs; a ratio needs as many of one as of the other"
        )
    pairs = np.array([times, base])
    drawn = pairs[
        :, np.random.default_rng(seed).integers(0, len(times), (RESAMPLES, len(times)))
    ]  # (2, resamples, pairs)
    medians = np.median(drawn, axis=2)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return Ratio(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))


@dataclass(frozen=True)
class Variant:
    """A model to measure: what to call it, its options by name, how often it does its stages for a frame, and how to load it."""

    name: str
    options: Mapping[str, object]
    repeats: Mapping[str, float]
    """See `repeats_of`."""
    load: Callable[[], Segmenter]
    """Called in a process of its own as well, see `footprint`."""


@dataclass(frozen=True)
class Measured:
    """What was measured and counted of a variant.

    `engine` is the provider and the precision that it ran in; `network_size` the (width, height) that its network sees of a frame; `work`
    is None where it could not be counted.
    """

    variant: Variant
    engine: str
    network_size: tuple[int, int]
    footprint: Footprint
    latency: Latency
    work: FrameWork | None

    @property
    def frames_per_second(self) -> float:
        """One frame after the other, without pause."""
        return 1000 * len(self.latency.frames_ms) / sum(self.latency.frames_ms)

    def stages(self) -> dict[str, Work]:
        """The work of a frame's stages, repeated as the variant does; none where it was not counted."""
        return {} if self.work is None else self.work.repeated(self.variant.repeats)


@dataclass(frozen=True)
class Benchmark:
    """What `benchmark` found, and on what machine.

    Of two variants, `ratio` is how many times as long a frame takes the second as the first, and `agreement` the mean share of pixels
    (0..1) that have the same class in both masks. `missing` is the package without which no work could be counted, if one was missing.
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
        example: an image `(H, W, 3)` for what is measured or counted once: memory, the time to load, work.
        images: the frames to time, one at a time.
        warm_up: so many of them, the first ones, are not counted.

    Raises:
        CamSegError: a variant cannot be loaded.
        DataError: there are no images left to time.
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
    """The work of each model on frames of its size; or None for each, and the package that is missing."""
    try:  # late: machines that only run the model have no torch, and it must not run beside what is timed
        from camseg_core.model.flops import frame_work

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
    """What the JSON file of a benchmark holds: times in ms with those of all single frames, memory in bytes, and counts of work.

    Args:
        found: the benchmark.
        about: facts on the run, such as the frames and their size.
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
