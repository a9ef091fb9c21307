"""Run the node under load for many minutes: does its memory grow, does it slow down?

    python benchmarks/soak.py --minutes 20 --json

Two cameras at 30 Hz send more than two cores can segment: the node must drop frames, and answer
each frame at most once and in order. Node and driver are separate processes with the environment
that ships. The latency of the last minute is compared with that of the first (in runs under ten
minutes, a tenth of the run). Memory is compared between the first and last tenth of what follows
the first minute.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from document import Outcome, add_document_options, conclude, markdown_table, provenance
from frame_driver import SEVERAL, Driver, Size, camera_names
from frame_ledger import FrameLedger
from node_under_test import (
    CODE_OF_NODES,
    Launch,
    add_model_options,
    model_parameters,
    percentile,
    resident_mb,
    size_of,
    with_node,
)

from camseg_core.cli.options import number
from camseg_core.errors import CamSegError
from camseg_ros.bag.node_process import NodeProcess

SAMPLE_S = 0.5
"""Seconds between two measurements of the node's memory."""

LAST_ANSWERS_S = 2.0
"""Seconds to wait for the answers to the last frames."""

COUNTS = ("frames ", "dropped: ", "rejected: ")
"""Prefixes of the counts in the node's diagnostics."""

INFERENCE = "rejected: inference "
"""Prefix of the counts of frames on which the model failed."""

WRONG_ANSWERS = ("duplicates", "out_of_order", "unmatched")
"""Counts of a ledger that must be 0."""


@dataclass(frozen=True)
class Soaked:
    """A finished run: `began` in the ledgers' time, memory as (s, MB), counts by status name."""

    began: float
    seconds: float
    ledgers: Mapping[str, FrameLedger]
    memory: Sequence[tuple[float, float]]
    counts: Mapping[str, Mapping[str, int]]
    tracebacks: int


@dataclass(frozen=True)
class Limits:
    """Limits of a run: relative growth of memory, relative change of latency over the run."""

    growth: float
    latency_change: float


def drive(driver: Driver, node: NodeProcess, seconds: float, rate: float, size: Size) -> Soaked:
    """Send from every camera at `rate` for this many seconds."""
    frames = {camera: driver.frame(camera, size) for camera in driver.ledgers}
    memory: list[tuple[float, float]] = []
    began, tick = time.monotonic(), 0
    while (due := tick / rate) < seconds:
        driver.serve(began + due - time.monotonic())
        for camera, frame in frames.items():
            driver.send(camera, frame)
        now = time.monotonic() - began
        if not memory or now - memory[-1][0] >= SAMPLE_S:
            node.check()
            memory.append((now, resident_mb(node)))
        tick = max(
            tick + 1, int(now * rate)
        )  # a camera that was kept waiting does not make up for it
    driver.serve(LAST_ANSWERS_S)
    driver.hear_diagnostics()
    counts = {
        name: {k: int(v) for k, v in values.items() if k.startswith(COUNTS)}
        for name, values in driver.diagnostics.items()
    }
    tracebacks = (
        Path(node.log)
        .read_text(encoding="utf-8", errors="replace")
        .count("Traceback (most recent call last)")
    )
    return Soaked(began, seconds, driver.ledgers, memory, counts, tracebacks)


def figures(soaked: Soaked) -> dict[str, Any]:
    """The figures of a run.

    Raises:
        CamSegError: no mask came for a frame of the first stretch, or of another one.
    """
    stretch = min(60.0, soaked.seconds / 10)
    latencies: list[list[float]] = [[] for _ in range(round(soaked.seconds / stretch))]
    for ledger in soaked.ledgers.values():
        for moment, latency in zip(ledger.moments, ledger.latencies_ms, strict=True):
            latencies[min(int((moment - soaked.began) / stretch), len(latencies) - 1)].append(
                latency
            )
    if not all(latencies):
        raise CamSegError(
            f"no mask came in {sum(not each for each in latencies)} of {len(latencies)} stretches "
            f"of {stretch:.0f} s"
        )
    medians = [round(median(each), 1) for each in latencies]
    tenth = (soaked.seconds - stretch) / 10
    first_mb = median(mb for moment, mb in soaked.memory if stretch <= moment < stretch + tenth)
    last_mb = median(mb for moment, mb in soaked.memory if moment >= soaked.seconds - tenth)
    return {
        "rss_growth": round(last_mb / first_mb - 1, 4),
        "exceptions": soaked.tracebacks
        + sum(
            n
            for counts in soaked.counts.values()
            for k, n in counts.items()
            if k.startswith(INFERENCE)
        ),
        **{
            name: sum(getattr(ledger, name) for ledger in soaked.ledgers.values())
            for name in WRONG_ANSWERS
        },
        "latency_first_ms": medians[0],
        "latency_last_ms": medians[-1],
        "latency_change": round(medians[-1] / medians[0] - 1, 3),
        "latency_medians_ms": medians,
        "latency_p95_ms": round(
            percentile([latency for each in latencies for latency in each], 95), 1
        ),
        "rss_first_mb": round(first_mb, 1),
        "rss_last_mb": round(last_mb, 1),
        "minutes": round(soaked.seconds / 60, 2),
        "cameras": {
            ledger.frame_id: {
                name: getattr(ledger, name) for name in ("sent", "answered", *WRONG_ANSWERS)
            }
            for ledger in soaked.ledgers.values()
        },
        "node": {name: dict(counts) for name, counts in soaked.counts.items() if counts},
    }


def failures(found: Mapping[str, Any], limits: Limits) -> list[str]:
    """The limits that a run broke, one line each."""
    wrong = [
        f"{name} is {found[name]}, must be 0"
        for name in ("exceptions", *WRONG_ANSWERS)
        if found[name]
    ]
    wrong += [
        f"{camera} was never answered"
        for camera, counts in found["cameras"].items()
        if not counts["answered"]
    ]
    if found["rss_growth"] >= limits.growth:
        wrong.append(f"rss_growth is {found['rss_growth']}, must be below {limits.growth:g}")
    if abs(found["latency_change"]) > limits.latency_change:
        wrong.append(
            f"latency_change must be within ±{limits.latency_change:g}, "
            f"is {found['latency_change']}"
        )
    return wrong


def table(found: Mapping[str, Any]) -> str:
    """The figures as a table in Markdown."""
    wrong = ", ".join(str(found[name]) for name in ("exceptions", *WRONG_ANSWERS))
    medians = found["latency_medians_ms"]
    rows = [
        (f"{name}: frames sent, answered", f"{counts['sent']}, {counts['answered']}")
        for name, counts in found["cameras"].items()
    ]
    rows += [
        (f"`{name}`: {key}", str(count))
        for name, counts in found["node"].items()
        for key, count in counts.items()
    ]
    rows += [
        ("exceptions; masks twice, out of order, of no frame", wrong),
        (
            "resident memory, first and last tenth, MB",
            f"{found['rss_first_mb']}, {found['rss_last_mb']} ({found['rss_growth']:+.2%})",
        ),
        (
            "latency, first and last minute, median ms",
            f"{medians[0]}, {medians[-1]} ({found['latency_change']:+.1%})",
        ),
        ("the same, lowest and highest of all minutes", f"{min(medians)}, {max(medians)}"),
        ("latency, p95 of the whole run, ms", str(found["latency_p95_ms"])),
    ]
    return markdown_table(["", ""], rows)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Run once; each limit that does not hold is a failure."""
    launch = Launch(camera_names(arguments.cameras), model_parameters(arguments))
    found = figures(
        with_node(launch, drive, arguments.minutes * 60, arguments.rate, arguments.size)
    )
    return Outcome(
        table(found),
        provenance(arguments),
        found,
        failures(found, Limits(arguments.growth_limit, arguments.latency_tolerance)),
    )


def main() -> None:
    """Print the table; with `--json` the figures as the last line.

    Exit code 1 if a limit does not hold.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=number(0.1), default=20.0, help="how long (default: %(default)g)"
    )
    parser.add_argument(
        "--cameras",
        type=int,
        choices=range(1, len(SEVERAL) + 1),
        default=2,
        help="how many (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=number(0.1),
        default=30.0,
        help="frames a second of each camera (default: %(default)g)",
    )
    parser.add_argument(
        "--size",
        type=size_of,
        default=(640, 480),
        metavar="WxH",
        help="of the frames (default: 640x480)",
    )
    parser.add_argument(
        "--growth-limit",
        type=float,
        default=0.02,
        help="memory must grow by less, relatively (default: %(default)g)",
    )
    parser.add_argument(
        "--latency-tolerance",
        type=float,
        default=0.1,
        help="noise of the latency: so much may it change, relatively (default: %(default)g)",
    )
    add_model_options(parser)
    add_document_options(parser)
    conclude(parser, "soak", measure, CODE_OF_NODES)


if __name__ == "__main__":
    main()
