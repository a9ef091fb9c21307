"""`camseg evaluate`: scores of a model on a labelled data set, as a table, a page and JSON."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
from camseg_core.runtime.frame import Segmentation

if TYPE_CHECKING:
    from camseg_core.evaluation.evaluate import Evaluation


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score a model on labelled frames, through the runtime that ships: IoU, precision, boundaries, calibration and latency. "
        "Prints a table and writes report.html and report.json."
    )
    add_data_options(parser)
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default=OWN_SIZE.name,
        help="own-size: frames as they are, the set's own classes; cityscapes: as its official evaluation, 19 classes and categories; "
        "camseg: as published, at 768x768 (default: %(default)s)",
    )
    parser.add_argument(
        "--write-masks",
        type=Path,
        metavar="FOLDER",
        help="also write each mask as NAME_labelIds.png in Cityscapes' label ids",
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
    with packages_for(
        "evaluation", "evaluate"
    ):  # late, for the machines that only segment; and before the work, so that none is lost
        from camseg_core.evaluation.evaluate import evaluate
        from camseg_core.evaluation.report.evaluation import write_report
        from camseg_core.progress import shown_progress
    protocol = PROTOCOLS[options.protocol]
    if options.write_masks is not None and protocol is PUBLISHED:
        raise ConfigError(
            f"--write-masks is for masks at the frames' own size: not with --protocol {PUBLISHED.name}"
        )
    data = data_of(options)
    segmenter = segmenter_of(options)
    frames = min(len(data.samples), options.frames or len(data.samples))
    about: dict[str, str | int] = {
        "data": f"{options.data.resolve().name}/{data.split}",
        "frames": frames,
        "sampler": options.sampler,
        "steps": options.steps,
        "samples": options.samples,
        "passes": options.passes,
        "seed": options.seed,
        "threads": options.threads,
    }

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
        about=about,
        protocol=protocol,
        seen=None if options.write_masks is None else write,
    )
    page = write_report(evaluation, options.out)
    sys.stdout.write(
        "\n".join(
            [*table(evaluation), f"report: {page} and {page.with_suffix('.json').name} beside it"]
        )
        + "\n"
    )


def table(evaluation: "Evaluation") -> list[str]:
    """The scores as lines of text."""
    classes = [each for each in evaluation.classes if each.group is not None]
    row = "{:<14} {:>7} {:>10} {:>12} {:>9}".format
    groups = ", ".join(
        f"{group} {_number(value)}"
        for group, value in evaluation.average_precision_by_group.items()
    )
    latency = evaluation.latency.total()
    categories = ", ".join(f"{each.name} {_number(each.iou)}" for each in evaluation.categories)
    return [
        f"protocol {evaluation.protocol.name}",
        row("class", "IoU", "precision", "boundary F1", "pixels"),
        *(
            row(
                each.label.name,
                _number(each.iou),
                _number(each.precision),
                _number(each.boundary_f1),
                f"{100 * each.share:.2f} %",
            )
            for each in classes
        ),
        row(
            "mean",
            _number(evaluation.mean_iou),
            _number(evaluation.average_precision),
            _number(evaluation.boundary_f1),
            "",
        ),
        "",
        f"pixel accuracy {_number(evaluation.pixel_accuracy)}, expected calibration error {_number(evaluation.calibration.error())}",
        *(
            [f"mean category IoU {_number(evaluation.mean_category_iou)}: {categories}"]
            if evaluation.categories
            else []
        ),
        f"AP {_number(evaluation.average_precision)}: {groups}",
        f"latency p50 {latency.p50:.1f} ms, p95 {latency.p95:.1f} ms over {len(evaluation.frames)} frames",
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
