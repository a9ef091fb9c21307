"""`camseg evaluate`: scores of a model on a labelled data set, as a table, a page and JSON."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    data_of,
    packages_for,
    segmenter_of,
)
from camseg_core.data.sample import Sample
from camseg_core.errors import ConfigError
from camseg_core.evaluation.protocols import OWN_SIZE, PROTOCOLS, PUBLISHED, write_mask
from camseg_core.runtime.segmenter import Segmentation


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score a model on labelled frames, through the runtime that ships: IoU, precision, "
        "boundaries, calibration and latency. Prints a table, writes report.html and report.json."
    )
    add_data_options(parser)
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default=OWN_SIZE.name,
        help="own-size: frames at their own size, the data set's classes; cityscapes: Cityscapes' "
        "official evaluation, 19 classes and 7 categories; camseg: as published, at 768x768 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--write-masks",
        type=Path,
        metavar="FOLDER",
        help="also write each mask as NAME_labelIds.png, with Cityscapes' label ids",
    )
    parser.add_argument("--frames", type=at_least(1), help="stop after this many frames")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/evaluate"),
        help="folder for the report (default: %(default)s)",
    )
    add_model_options(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    # imported here, since machines that only segment lack some packages, and before any work
    with packages_for("evaluation", "evaluate"):
        from camseg_core.evaluation.evaluate import evaluate
        from camseg_core.evaluation.report.evaluation import score_table, write_report
        from camseg_core.progress import shown_progress
    protocol = PROTOCOLS[options.protocol]
    if options.write_masks is not None and protocol is PUBLISHED:
        raise ConfigError(
            "--write-masks needs masks at the frames' own size: not with --protocol "
            f"{protocol.name}"
        )
    data = data_of(options)
    segmenter = segmenter_of(options)
    frames = min(len(data.samples), options.frames or len(data.samples))
    shown = ("sampler", "steps", "samples", "passes", "seed", "threads")

    def progress(samples: Iterable[Sample]) -> Iterator[Sample]:
        return shown_progress(samples, frames)

    def write(sample: Sample, result: Segmentation) -> None:
        write_mask(options.write_masks, sample.name, result.mask)

    evaluation = evaluate(
        segmenter,
        data.samples,
        data.labels,
        frames=options.frames,
        progress=progress,
        about={
            "data": f"{options.data.resolve().name}/{data.split}",
            "frames": frames,
            **{name: getattr(options, name) for name in shown},
        },
        protocol=protocol,
        seen=None if options.write_masks is None else write,
    )
    page = write_report(evaluation, options.out)
    lines = [*score_table(evaluation), f"report: {page} and report.json beside it"]
    sys.stdout.write("\n".join(lines) + "\n")
