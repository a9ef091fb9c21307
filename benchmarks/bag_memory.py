"""Measure the evaluation of a long bag: peak memory, and the share of reading and decoding.

    python benchmarks/bag_memory.py --frames 5000 --json

Makes a bag that repeats a few small synthetic frames with labels, and runs `camseg bag evaluate` on
it in a process. Both are deleted afterwards.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from document import (
    Outcome,
    add_document_options,
    conclude,
    markdown_table,
    provenance,
)

from camseg_core.cli.options import at_least
from camseg_core.data.frame_source import START_NS
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError
from camseg_ros.bag.make import LABEL_TOPIC, BagTopics, LabelledFrame, write_bag

HEIGHT, WIDTH, DISTINCT = 180, 240, 24
STEP_NS = 33_333_333

PROGRAM = """
import argparse
from camseg_core.evaluation.timing import process_peak_bytes
from camseg_ros.bag import evaluate_command
parser = argparse.ArgumentParser()
evaluate_command.add(parser)
evaluate_command.run(parser.parse_args())
print("peak bytes", process_peak_bytes())
"""


def frames(count: int) -> Iterator[LabelledFrame]:
    """The drive's first frames, repeated, at 30 Hz."""
    samples = list(SyntheticDrive(frames=min(count, DISTINCT), height=HEIGHT, width=WIDTH))
    for index in range(count):
        sample = samples[index % len(samples)]
        yield LabelledFrame(START_NS + index * STEP_NS, sample.image, sample.name, sample.label)


def measure(
    count: int, threads: int, folder: Path | None = None, program: str = PROGRAM
) -> dict[str, Any]:
    """Make the bag in a new folder under `folder`, evaluate it, and return memory and times.

    Raises:
        ConfigError: the evaluation failed.
    """
    with TemporaryDirectory(dir=folder) as temporary:
        bag, out = Path(temporary) / "bag", Path(temporary) / "out"
        write_bag(frames(count), bag, topics=BagTopics(focal=0.0))
        command = [
            sys.executable,
            "-c",
            program,
            str(bag),
            "--labels",
            LABEL_TOPIC,
            "--out",
            str(out),
            "--threads",
            str(threads),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        peak = re.search(r"peak bytes (\d+)", done.stdout)
        if done.returncode or peak is None:
            raise ConfigError(
                f"the evaluation failed with exit code {done.returncode}; see its output above"
            )
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    timings = report["timings"]
    return {
        "frames": report["bag"]["frames"],
        "peak_rss_mb": round(int(peak[1]) / 2**20, 1),
        "read_share": round(timings["read_share"], 4),
        "seconds": round(timings["seconds"], 1),
        "latency_ms": timings["latency_ms"],
    }


def outcome(arguments: argparse.Namespace) -> Outcome:
    """The figures as a table."""
    figures = measure(arguments.frames, arguments.threads, arguments.folder)
    rows = (
        ("peak memory", f"{figures['peak_rss_mb']:.0f} MB"),
        ("reading and decoding", f"{100 * figures['read_share']:.1f} % of the time"),
        (
            "time",
            f"{figures['seconds']:.0f} s, "
            f"{1000 * figures['seconds'] / figures['frames']:.1f} ms a frame",
        ),
    )
    table = markdown_table([f"{figures['frames']} frames of {WIDTH}×{HEIGHT}", ""], rows)
    return Outcome(table, provenance(arguments), figures)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--frames", type=at_least(1), default=5000, help="of the bag (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=at_least(0),
        default=0,
        help="CPU threads of the model; 0 = all cores (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="for the bag, 170 kB a frame (default: the system's for temporary files)",
    )
    add_document_options(parser)
    conclude(parser, "bag-memory", outcome, ("camseg_core", "camseg_ros", "benchmarks"))


if __name__ == "__main__":
    main()
