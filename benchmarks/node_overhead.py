"""Measure what the node adds to inference, with and without the settings that ship.

    python benchmarks/node_overhead.py --json

One frame is sent at a time. The overhead is the median from before `publish` of an rgb8 image to
the mask in the subscriber's callback, minus the medians of the segmenter's stages in the node's
diagnostics; it includes the driver's own publishing and receiving. Each row is a new node and a new
driver, both with or without the Fast DDS profile (config/fastdds.xml) and the allocator settings
(camseg_ros/middleware.py). Images are sent best effort (sensor-data QoS), and also reliable where
not all of them arrive.
"""

import argparse
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from document import Outcome, conclude, markdown_table, provenance
from frame_driver import ONE, Driver, Size
from node_under_test import (
    CODE_OF_NODES,
    Launch,
    model_parameters,
    node_parser,
    percentile,
    size_text,
    with_node,
)

from camseg_ros.bag.node_process import NodeProcess

AIMS_MS = {(640, 480): 3.0, (1920, 1080): 7.0}
"""Target for the overhead in ms, by size."""

SEGMENTER_STAGES = (
    "preprocess",
    "image_encoder",
    "transformer",
    "denoiser",
    "decoder",
    "network",
    "postprocess",
)
NODE_STAGES = ("wait", "read", "publish")
"""The node's stages from its callback to the published mask, except the segmenter's."""

LOST_AFTER_S = 1.0
"""Seconds without an answer after which a frame counts as lost."""

Row = dict[str, Any]


def drive(driver: Driver, node: NodeProcess, size: Size, frames: int, warm_up: int) -> Row:
    """Return the number of frames answered and, if all were, the times in ms."""
    (camera,) = ONE
    frame = driver.frame(camera, size)
    answers = [driver.ask(camera, frame, LOST_AFTER_S) for _ in range(warm_up + frames)][warm_up:]
    times = [answer for answer in answers if answer is not None]
    row: Row = {"frames": frames, "answered": len(times)}
    if len(times) == frames:
        driver.hear_diagnostics()
        row |= overhead(
            times,
            {key: value for values in driver.diagnostics.values() for key, value in values.items()},
        )
    return row


def overhead(times: Sequence[float], diagnostics: Mapping[str, str]) -> Row:
    """The overhead and its parts in ms; `outside` is the rest: middleware and driver."""
    stages = {
        name: float(diagnostics.get(f"stage {name} (ms)", 0))
        for name in (*SEGMENTER_STAGES, *NODE_STAGES)
    }
    end_to_end, segmenter = median(times), sum(stages[name] for name in SEGMENTER_STAGES)
    own = {name: stages[name] for name in NODE_STAGES}
    parts = {
        "end_to_end": end_to_end,
        "segmenter": segmenter,
        "overhead": end_to_end - segmenter,
    } | own
    parts |= {
        "outside": end_to_end - segmenter - sum(own.values()),
        "end_to_end_p95": percentile(times, 95),
        "end_to_end_min": min(times),
    }
    return {f"{name}_ms": round(value, 1) for name, value in parts.items()}


def rows_of(size: Size, profile: bool, allocator: bool, arguments: argparse.Namespace) -> list[Row]:
    """The row of best-effort images, and one of reliable images unless all were answered."""
    rows: list[Row] = []
    for reliable in (False, True):
        launch = Launch(
            parameters=model_parameters(arguments),
            reliable=reliable,
            profile=profile,
            allocator=allocator,
        )
        setting = {
            "size": size_text(size),
            "profile": profile,
            "allocator": allocator,
            "reliable": reliable,
        }
        rows.append(setting | with_node(launch, drive, size, arguments.frames, arguments.warm_up))
        if rows[-1]["answered"] == arguments.frames:
            break
    return rows


COLUMNS = (
    "end_to_end_ms",
    "end_to_end_p95_ms",
    "segmenter_ms",
    "overhead_ms",
    "wait_ms",
    "read_ms",
    "publish_ms",
    "outside_ms",
)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    heads = [
        "size",
        "profile",
        "allocator",
        "images",
        "answered",
        *(name.removesuffix("_ms").replace("_", " ") for name in COLUMNS),
    ]
    lines = []
    for row in rows:
        used = ["yes" if row[name] else "no" for name in ("profile", "allocator")]
        cells = [
            row["size"],
            *used,
            "reliable" if row["reliable"] else "best effort",
            f"{row['answered']} of {row['frames']}",
        ]
        lines.append([*cells, *(row.get(name, "–") for name in COLUMNS)])
    return markdown_table(heads, lines)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Measure every size in every setting.

    An unanswered frame with the settings that ship is a failure.
    """
    sizes = arguments.size or list(AIMS_MS)
    settings = [(True, True), (True, False), (False, True), (False, False)]
    rows = [
        row
        for size in sizes
        for profile, allocator in settings
        for row in rows_of(size, profile, allocator, arguments)
    ]
    shipped = {
        row["size"]: row
        for row in rows
        if row["profile"] and row["allocator"] and not row["reliable"]
    }
    found = {size: row.get("overhead_ms") for size, row in shipped.items()}
    aims = {size_text(size): aim for size, aim in AIMS_MS.items() if size in sizes}
    said = "; ".join(
        f"{size} {ms} ms" + (f" (aim {aims[size]:g} ms)" if size in aims else "")
        for size, ms in found.items()
    )
    below = [f"Times in ms. With all that ships: {said}.", *provenance(arguments)]
    failures = [
        f"{size}: {row['answered']} of {row['frames']} answered"
        for size, row in shipped.items()
        if found[size] is None
    ]
    return Outcome(
        table(rows), below, {"overhead_ms": found, "aims_ms": aims, "rows": rows}, failures
    )


def main() -> None:
    """Print the table; with `--json` the figures as the last line.

    Exit code 1 if a frame was not answered with the settings that ship.
    """
    parser = node_parser(__doc__, "640x480 and 1920x1080")
    conclude(parser, "node-overhead", measure, CODE_OF_NODES)


if __name__ == "__main__":
    main()
