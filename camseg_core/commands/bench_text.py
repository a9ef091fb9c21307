"""What `camseg bench` writes: a benchmark as lines of text."""

import textwrap
from collections.abc import Iterator

from camseg_core.evaluation.benchmark import Benchmark, Measured
from camseg_core.evaluation.ratio import Ratio
from camseg_core.evaluation.roofline import CAVEAT, estimates, roofline_table


def benchmark_lines(found: Benchmark, roofline: bool) -> Iterator[str]:
    """The whole: each model's table, the comparison, the estimates if `roofline`, the machine."""
    base = found.measured[0]
    for each in found.measured:
        yield from ("", _heading(each, base), *_table(each), _facts(each))
    if found.ratio is not None and found.agreement is not None:
        yield from ("", _comparison(found.ratio), f"their masks agree on {100 * found.agreement:.2f} % of the pixels")
    if found.missing is not None:
        counts = "parameters, GMAC and the roofline" if roofline else "parameters and GMAC"
        yield from ("", f"{counts} need {found.missing}, which is not installed: pip install '.[train]' in the project's folder")
    elif roofline:
        for each in found.measured:
            yield from ("", f"{each.variant.name} on other devices, estimated: least ms of each stage (* set by the memory)")
            yield from _aligned(roofline_table(estimates(each.stages())))
        yield from ("", *textwrap.wrap(CAVEAT, 110))
    yield ""
    yield from (f"{name}: {value}" for name, value in found.machine.items())


def _heading(each: Measured, base: Measured) -> str:
    """Its options, or what sets them apart from those of `base`."""
    options = each.variant.options
    if each is not base:
        options = {key: value for key, value in options.items() if value != base.variant.options[key]}
    said = ", ".join(f"{key.replace('_', ' ')} {_option(value)}" for key, value in options.items() if value is not None)
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
        yield row(stage.replace("_", " "), f"{ms.p50:.1f}", f"{ms.p95:.1f}", f"{ms.p99:.1f}", counted).rstrip()


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
    return f"B takes {ratio.value:.3f} times as long as A (ratio of medians; 95 % interval {ratio.low:.3f} to {ratio.high:.3f}{certain})"


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """Columns under each other, the first two to the left, the figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{text:<{width}}" if i < 2 else f"{text:>{width}}" for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
