"""Measure speed and memory of one model, or compare two in one run, on unlabelled frames."""

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.intervals import Ratio, ratio_of_medians
from camseg_core.evaluation.peak import peaks_of, rate_text
from camseg_core.evaluation.roofline import CAVEAT, FrameWork, Work, estimates, roofline_table
from camseg_core.evaluation.timing import (
    Footprint,
    Latency,
    describe_machine,
    footprint,
    time_in_turns,
)
from camseg_core.runtime.segmenter import Segmenter


@dataclass(frozen=True)
class Variant:
    """A model to measure.

    Attributes:
        name: its name in tables.
        options: by name.
        repeats: how often each stage runs per frame, see `repeats_of`.
        load: loads the model; also called in another process, see `footprint`.
    """

    name: str
    options: Mapping[str, object]
    repeats: Mapping[str, float]
    load: Callable[[], Segmenter]


@dataclass(frozen=True)
class VariantResult:
    """The measurements of a variant.

    Attributes:
        engine: the library, device and precision that it ran in.
        network_size: (width, height) of a frame at the network.
        work: None where it could not be counted.
        peaks: see `peaks_of`.
    """

    variant: Variant
    engine: str
    network_size: tuple[int, int]
    footprint: Footprint
    latency: Latency
    work: FrameWork | None
    peaks: Mapping[str, float]

    @property
    def frames_per_second(self) -> float:
        """Rate of frames processed back to back."""
        return 1000 * len(self.latency.frames_ms) / sum(self.latency.frames_ms)

    @property
    def rate(self) -> float | None:
        """Multiply-accumulates/s of the median frame; None if work was not counted."""
        work = sum(each.multiply_accumulates for each in self.stages().values())
        return 1000 * work / self.latency.total().p50 if work else None

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

    measured: tuple[VariantResult, ...]
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
    """Measure one variant, or two, interleaved.

    Args:
        variants: one or two.
        example: an image `(H, W, 3)` for memory, load time and work.
        images: the frames to time, one at a time.
        warm_up: the number of first images that are not counted.

    Raises:
        CamSegError: a variant cannot be loaded.
        DataError: there are no images beyond the warm-up.
    """
    # each in its own process, before this process fills the memory
    footprints = [footprint(variant.load, example) for variant in variants]
    segmenters = [variant.load() for variant in variants]
    timed = time_in_turns(segmenters, images, warm_up)
    sizes = [_network_size(segmenter, example) for segmenter in segmenters]
    works, missing = _counted(segmenters, sizes)
    engines = [f"{segmenter.engine} in {segmenter.precision}" for segmenter in segmenters]
    peaks = peaks_of(segmenters) if missing is None else [{} for _ in segmenters]
    facts = zip(variants, engines, sizes, footprints, timed.latencies, works, peaks, strict=True)
    measured = tuple(VariantResult(*each) for each in facts)
    ratio, agreement = None, None
    if len(measured) == 2:
        ratio = ratio_of_medians(timed.latencies[1].frames_ms, timed.latencies[0].frames_ms)
        agreement = float(np.mean(timed.agreements))
    return Benchmark(measured, ratio, agreement, missing, describe_machine())


def _network_size(segmenter: Segmenter, image: npt.NDArray[np.uint8]) -> tuple[int, int]:
    height, width = segmenter.geometry(image).padded
    return width, height


def _counted(
    segmenters: Sequence[Segmenter], sizes: Sequence[tuple[int, int]]
) -> tuple[list[FrameWork | None], str | None]:
    """Count each model's work on frames of its size; or None for each, and the missing package."""
    try:  # late: a vehicle has no torch, and torch must not run while frames are timed
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
    """Return the JSON content of a benchmark: times in ms (also of each frame), bytes, and work.

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
        else {"ratio_of_medians": _bounds(found.ratio), "agreement": found.agreement},
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


def _model(each: VariantResult) -> dict[str, Any]:
    return {
        "name": each.variant.name,
        "options": dict(each.variant.options),
        "engine": each.engine,
        "repeats": dict(each.variant.repeats),
        "network_size": list(each.network_size),
        "frames_per_second": each.frames_per_second,
        "multiply_accumulates_per_s": each.rate,
        "peak_multiply_accumulates_per_s": dict(each.peaks),
        "latency_ms": asdict(each.latency.total()),
        "stages_ms": {stage: asdict(ms) for stage, ms in each.latency.stages().items()},
        "frames_ms": list(each.latency.frames_ms),
        "peak_memory_bytes": each.footprint.peak_bytes,
        "load_s": each.footprint.load_s,
        "parameters": None if each.work is None else each.work.parameters,
        "stages_work": {stage: asdict(work) for stage, work in each.stages().items()},
    }


def benchmark_lines(found: Benchmark, roofline: bool) -> Iterator[str]:
    """Yield each model's table, the comparison, the estimates if `roofline`, the machine."""
    base = found.measured[0]
    for each in found.measured:
        yield from ("", _heading(each, base), *_table(each), _facts(each))
    if found.ratio is not None and found.agreement is not None:
        yield from (
            "",
            _comparison(found.ratio),
            f"their masks agree on {100 * found.agreement:.2f} % of the pixels",
        )
    if found.missing is not None:
        counts = "parameters, GMAC and the roofline" if roofline else "parameters and GMAC"
        yield from (
            "",
            f"{counts} need {found.missing}, which is not installed: "
            "pip install '.[train]' in the project's folder",
        )
    elif roofline:
        for each in found.measured:
            yield from (
                "",
                f"{each.variant.name} on other devices, estimated: "
                "least ms of each stage (* set by the memory)",
            )
            yield from _aligned(roofline_table(estimates(each.stages())))
        yield from ("", *textwrap.wrap(CAVEAT, 110))
    yield ""
    yield from (f"{name}: {value}" for name, value in found.machine.items())


def _heading(each: VariantResult, base: VariantResult) -> str:
    """List the options of a model, or only the differences from `base`."""
    options = each.variant.options
    if each is not base:
        options = {
            key: value for key, value in options.items() if value != base.variant.options[key]
        }
    said = ", ".join(
        f"{key.replace('_', ' ')} {','.join(value) if isinstance(value, tuple) else value}"
        for key, value in options.items()
        if value is not None
    )
    if each is base:
        return f"{each.variant.name}: {said}"
    return f"{each.variant.name}: as {base.variant.name}" + (f", but {said}" if said else "")


def _table(each: VariantResult) -> Iterator[str]:
    row = "{:<16} {:>8} {:>8} {:>8} {:>8}".format
    gmac = {stage: work.multiply_accumulates / 1e9 for stage, work in each.stages().items()}
    if gmac:
        gmac["frame"] = gmac["network"] = sum(gmac.values())
    yield row("stage", "p50 ms", "p95 ms", "p99 ms", "GMAC" if gmac else "").rstrip()
    for stage, ms in (each.latency.stages() | {"frame": each.latency.total()}).items():
        counted = f"{gmac[stage]:.2f}" if stage in gmac else ""
        yield row(
            stage.replace("_", " "), f"{ms.p50:.1f}", f"{ms.p95:.1f}", f"{ms.p99:.1f}", counted
        ).rstrip()


def _facts(each: VariantResult) -> str:
    facts = [
        f"on {each.engine}",
        f"{each.frames_per_second:.1f} frames/s",
        f"peak memory {each.footprint.peak_bytes / 1e6:.0f} MB",
        f"loaded in {each.footprint.load_s:.1f} s",
        f"network {each.network_size[0]}x{each.network_size[1]}",
    ]
    if each.work is not None:
        facts.append(f"{each.work.parameters / 1e6:.2f} million parameters")
        precision = each.engine.rpartition(" in ")[2]
        facts.append(rate_text(each.rate or 0.0, precision, each.peaks))
    return ", ".join(facts)


def _bounds(ratio: Ratio) -> dict[str, float | None]:
    """Return a ratio for JSON, which has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in asdict(ratio).items()}


def _comparison(ratio: Ratio) -> str:
    if math.isnan(ratio.low):
        interval = "no interval: too few frames"
    else:
        interval = f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
        interval += "" if ratio.low > 1 or ratio.high < 1 else ": no difference is shown"
    return f"B takes {ratio.value:.3f} times as long as A (ratio of medians; {interval})"


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """Align columns, the first two to the left, the figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{text:<{width}}" if i < 2 else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
