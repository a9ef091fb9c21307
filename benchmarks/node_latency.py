"""Measure latency and memory of the node: send one frame at a time over DDS and time its mask.

    python benchmarks/node_latency.py --json

Node and driver are separate processes with the environment that ships. Latency is measured by a
client: from before `publish` of an rgb8 image to the mask in the subscriber's callback.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from typing import Any

from document import Outcome, conclude, markdown_table, provenance
from frame_driver import ONE, Driver, Size
from node_under_test import (
    CODE_OF_NODES,
    Launch,
    model_parameters,
    node_parser,
    percentile,
    resident_mb,
    size_text,
    with_node,
)

from camseg_ros.bag.node_process import NodeProcess

Row = dict[str, Any]


def drive(
    driver: Driver, node: NodeProcess, sizes: Sequence[Size], frames: int, warm_up: int
) -> tuple[list[Row], float]:
    """Return one row for each size, and the node's memory in MB after the last."""
    return [latency(driver, size, frames, warm_up) for size in sizes], resident_mb(node)


def latency(driver: Driver, size: Size, frames: int, warm_up: int) -> Row:
    """One row of the table."""
    (camera,) = ONE
    frame = driver.frame(camera, size)
    answers = [driver.ask(camera, frame) for _ in range(warm_up + frames)][warm_up:]
    times = [answer for answer in answers if answer is not None]
    row: Row = {"size": size_text(size), "frames": frames, "answered": len(times)}
    if times:
        row |= {
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(percentile(times, 95), 1),
        }
    return row


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = []
    for row in rows:
        times = row.get("p50_ms", "–"), row.get("p95_ms", "–")
        lines.append([row["size"], f"{row['answered']} of {row['frames']}", *times])
    return markdown_table(["size", "answered", "p50 ms", "p95 ms"], lines)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Measure all sizes with one node; an unanswered frame is a failure."""
    sizes = arguments.size or [(480, 360), (640, 480)]
    rows, memory = with_node(
        Launch(parameters=model_parameters(arguments)),
        drive,
        sizes,
        arguments.frames,
        arguments.warm_up,
    )
    below = provenance(arguments, f"{memory:.0f} MB resident; ")
    failures = [
        f"{row['size']}: {row['answered']} of {row['frames']} answered"
        for row in rows
        if row["answered"] < row["frames"]
    ]
    return Outcome(
        table(rows),
        below,
        {"sizes": rows, "rss_mb": round(memory, 1), "cores": os.cpu_count()},
        failures,
    )


def main() -> None:
    """Print the table; with `--json` the figures as the last line.

    Exit code 1 if a frame was not answered.
    """
    parser = node_parser(__doc__, "480x360 and 640x480")
    conclude(parser, "node-latency", measure, CODE_OF_NODES)


if __name__ == "__main__":
    main()
