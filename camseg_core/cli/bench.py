"""`camseg bench`: speed and memory of a model, alone or against another in the same run."""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.cli.options import (
    add_model_options,
    at_least,
    model_options,
    segmenter_of,
    with_changes,
)
from camseg_core.data.frame_source import START_NS, Frame, FrameSource, open_frames
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.passes import PassOptions
from camseg_core.errors import ConfigError
from camseg_core.evaluation.benchmark import (
    Benchmark,
    Measured,
    Ratio,
    Variant,
    benchmark,
    benchmark_content,
)
from camseg_core.evaluation.roofline import CAVEAT, estimates, repeats_of, roofline_table

SYNTHETIC_FRAMES = 20
"""Different frames of the synthetic drive, which repeat: drawing is slower than segmenting."""

Images = Iterable[npt.NDArray[np.uint8]]


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Time a model stage by stage on this machine, with its memory, parameters and "
        "multiply-accumulates. With --against, time a second one by turns and compare both."
    )
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument(
        "--size",
        type=_size,
        default="480x360",
        metavar="WIDTHxHEIGHT",
        help="of the synthetic drive's frames (default: %(default)s)",
    )
    frames.add_argument(
        "--source",
        type=Path,
        metavar="SOURCE",
        help="take the frames of an image, a video or a folder of images, at their own size",
    )
    parser.add_argument(
        "--frames",
        type=at_least(1),
        default=100,
        help="frames to time; a shorter source is repeated (default: %(default)s)",
    )
    parser.add_argument(
        "--warm-up",
        type=at_least(0),
        default=10,
        help="frames before those, not counted (default: %(default)s)",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="compare with the same model and this option changed, as in threads=1; repeatable",
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="also estimate the least time on AGX Orin, Orin NX, RTX 4090 and H100",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    add_model_options(parser)
    parser.set_defaults(run=_bench)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT in pixels, such as 480x360, got {text!r}"
        )
    return int(found[1]), int(found[2])


def _bench(options: argparse.Namespace) -> None:
    variants = [_variant("A", model_options(options))]
    if options.against:
        variants.append(_variant("B", with_changes(options, options.against)))
    if options.json is not None:
        _write(options.json, "")  # now, not after minutes of measuring
    source, count = _source(options), options.warm_up + options.frames
    example = next(iter(source)).image
    found = benchmark(variants, example, _shown(_repeated(source, count), count), options.warm_up)
    width, height = example.shape[1], example.shape[0]
    if options.json is not None:
        about = {
            "source": source.title,
            "frame_size": [width, height],
            "frames": options.frames,
            "warm_up": options.warm_up,
            "different_frames": min(source.count, count),
        }
        # what JSON has no type for, such as a path, is written as text
        _write(
            options.json,
            json.dumps(benchmark_content(found, about, options.roofline), indent=1, default=str)
            + "\n",
        )
    counts = f"{options.frames} frames after {options.warm_up} to warm up"
    title = f"{source.title}, {width}x{height}: {counts}"
    sys.stdout.write("\n".join([title, *benchmark_lines(found, options.roofline)]) + "\n")


def _variant(name: str, options: argparse.Namespace) -> Variant:
    steps = 1 if options.sampler == "one_step" else options.steps
    repeats = repeats_of(steps, options.samples, PassOptions(options.passes, options.order))
    return Variant(name, vars(options), repeats, partial(segmenter_of, options))


def _source(options: argparse.Namespace) -> FrameSource:
    if options.source is not None:
        return open_frames(options.source)
    width, height = options.size
    drive = SyntheticDrive(min(SYNTHETIC_FRAMES, options.warm_up + options.frames), height, width)
    frames = [
        Frame(START_NS + drive.stamp_ns(i), sample.image, sample.name)
        for i, sample in enumerate(drive)
    ]
    return FrameSource("synthetic drive", len(frames), drive.fps, lambda: iter(frames))


def _repeated(source: FrameSource, count: int) -> Images:
    """Yield the first `count` images of the source, repeated if it is shorter."""

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            for frame in source:
                yield frame.image

    return islice(endless(), count)


def _shown(images: Images, count: int) -> Images:
    """Show progress while the images are read, if rich is installed."""
    try:
        from camseg_core.progress import shown_progress
    except ModuleNotFoundError:  # rich
        return images
    return shown_progress(images, count, "bench")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from error


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


def _heading(each: Measured, base: Measured) -> str:
    """List the options of a model, or those that differ from `base`."""
    options = each.variant.options
    if each is not base:
        options = {
            key: value for key, value in options.items() if value != base.variant.options[key]
        }
    said = ", ".join(
        f"{key.replace('_', ' ')} {_option(value)}"
        for key, value in options.items()
        if value is not None
    )
    if each is base:
        return f"{each.variant.name}: {said}"
    return f"{each.variant.name}: as {base.variant.name}" + (f", but {said}" if said else "")


def _option(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _table(each: Measured) -> Iterator[str]:
    row = "{:<16} {:>8} {:>8} {:>8} {:>8}".format
    gmac = {stage: work.multiply_accumulates / 1e9 for stage, work in each.stages().items()}
    if gmac:
        gmac["frame"] = sum(gmac.values())
    yield row("stage", "p50 ms", "p95 ms", "p99 ms", "GMAC" if gmac else "").rstrip()
    for stage, ms in (each.latency.stages() | {"frame": each.latency.total()}).items():
        counted = f"{gmac[stage]:.2f}" if stage in gmac else ""
        yield row(
            stage.replace("_", " "), f"{ms.p50:.1f}", f"{ms.p95:.1f}", f"{ms.p99:.1f}", counted
        ).rstrip()


def _facts(each: Measured) -> str:
    facts = [
        f"on {each.engine}",
        f"{each.frames_per_second:.1f} frames/s",
        f"peak memory {each.footprint.peak_bytes / 1e6:.0f} MB",
        f"loaded in {each.footprint.load_s:.1f} s",
        f"network {each.network_size[0]}x{each.network_size[1]}",
    ]
    if each.work is not None:
        facts.append(f"{each.work.parameters / 1e6:.2f} million parameters")
    return ", ".join(facts)


def _comparison(ratio: Ratio) -> str:
    certain = "" if ratio.low > 1 or ratio.high < 1 else ": no difference is shown"
    interval = f"95 % interval {ratio.low:.3f} to {ratio.high:.3f}{certain}"
    return f"B takes {ratio.value:.3f} times as long as A (ratio of medians; {interval})"


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """Align columns, the first two to the left, the figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{text:<{width}}" if i < 2 else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
