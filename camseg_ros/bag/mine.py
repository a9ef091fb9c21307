"""`camseg bag mine`: finds the frames of bags that are worth labelling."""

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camseg_core.cli.console import print_lines, say
from camseg_core.cli.options import (
    add_model_options,
    at_least,
    model_options,
    require_with,
    segmenter_of,
)
from camseg_core.config.yaml_file import to_yaml
from camseg_core.data.image_files import write_image
from camseg_core.data.label_table import (
    LABEL_TABLE,
    LabelTable,
    is_cityscapes,
    require_same_ids,
)
from camseg_core.data.sets.voc import write_voc_zip
from camseg_core.errors import DataError, camseg_command
from camseg_core.evaluation.report.page import render, write_files
from camseg_core.evaluation.report.page import thumbnail as page_picture
from camseg_core.evaluation.selection import (
    MEASURES,
    Chosen,
    Judge,
    Pool,
    choose,
)
from camseg_core.labels import Label, color_table
from camseg_core.long_runs import new_folder, require_new, shown_progress
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import model_labels
from camseg_ros.bag.command import add_images, add_tolerance
from camseg_ros.bag.evaluation import BagInfo, inspect_bags
from camseg_ros.bag.frames import (
    DecodedFrame,
    ReadOptions,
    label_source,
    read_frames,
    wanted_frames,
)
from camseg_ros.bag.label_meaning import class_table
from camseg_ros.bag.names import frame_name
from camseg_ros.bag.pairs import NO_LABEL

_WIDTH = 320


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Find the frames of bags that are worth labelling: those whose masks are uncertain, "
        "change from frame to frame or show rare classes, spread over the drives and over how "
        "frames look, without near-duplicates. Writes images, masks to start from, a zip of these "
        "for CVAT, selection.csv with the reasons, and a page. The same command chooses the same "
        "frames."
    )
    option = parser.add_argument
    add_images(parser)
    option("--frames", type=at_least(1), default=50, metavar="N", help="frames to choose")
    option("--compare", metavar="MODEL", help="prefer frames in which this checkpoint differs")
    option(
        "--labels",
        metavar="TOPIC|FOLDER",
        help="also write the labels that the chosen frames have already; see camseg bag evaluate",
    )
    add_tolerance(parser)
    option(
        "--out",
        type=Path,
        default=Path("out/to_label"),
        metavar="FOLDER",
        help="new folder for what is found",
    )
    option("--json", action="store_true", help="print the result as JSON")
    add_model_options(parser)
    parser.set_defaults(kept="nothing was written")


def run(options: argparse.Namespace) -> None:
    """Choose frames and write them; `--out` appears when all is there.

    Raises:
        CamSegError: a bag or model cannot be used, or `--out` is not a new folder.
    """
    require_new(options.out, "--out")
    require_with("--labels", bool(options.labels), options, ["tolerance"])
    labels = label_source(options.labels, options.tolerance) if options.labels else None
    class_table(labels)  # checked before the work
    reading = ReadOptions(options.topic, labels, white_level=options.white_level)
    bags = inspect_bags(options.bags, reading)
    with new_folder(options.out, "--out") as partial:
        result = _mine(options, reading, bags, partial)
    chosen, problems = len(result["chosen"]), result["left_out"]
    if options.json:
        sys.stdout.write(json.dumps(result, indent=1, allow_nan=False) + "\n")
    else:
        lines = [
            f"{chosen} of {result['frames_read']} frames chosen: {options.out}",
            f"images to upload: {options.out / 'images'}",
            f"masks to start from, for CVAT (Segmentation mask 1.1): {options.out / 'cvat.zip'}",
            *([f"their labels: {options.out / 'labels'}"] if options.labels else ()),
            f"why: {options.out / 'selection.csv'}, {options.out / 'index.html'}",
        ]
        print_lines(*lines)
    for problem in problems:
        say(f"{camseg_command()}: {problem}")


def _mine(
    options: argparse.Namespace, reading: ReadOptions, bags: Sequence[BagInfo], folder: Path
) -> dict[str, Any]:
    """Choose frames and write them to `folder`; return the content of `selection.json`."""
    if options.compare:
        require_same_ids({each: model_labels(each) for each in (options.model, options.compare)})
    segmenter, other = segmenter_of(options), None
    if options.compare:
        given = model_options(options)
        given.model = options.compare
        other = segmenter_of(given)
    judge = Judge(segmenter, other)
    count = sum(bag.count for bag in bags)
    pool, problems = Pool(count, options.frames), list[str]()
    for bag, frame in shown_progress(_frames(bags, reading, problems), count, "mine"):
        assert frame.image is not None  # of _frames
        pool.add(judge.candidate((bag, frame.index), frame.stamp_ns, frame.image, frame.follows))
    chosen = choose(pool, options.frames)
    if not chosen:
        why = problems[0] if problems else "they hold none"
        raise DataError(f"no image of the bags can be read: {why}")
    if len(chosen) < options.frames:
        problems.append(
            f"only {len(chosen)} of {options.frames} frames: the others are near-duplicates of "
            "these, or of no interest beside them"
        )
    rows = _write(folder, bags, reading, chosen, judge.segmenter, problems)
    if reading.labels is not None:
        table = class_table(reading.labels)
        if table is not None:
            shutil.copyfile(table, folder / LABEL_TABLE)
        elif not is_cityscapes(judge.segmenter.labels):
            text = to_yaml(LabelTable.of(judge.segmenter.labels))
            write_files(folder, {LABEL_TABLE: text})
    result = {
        "model": judge.segmenter.name,
        "compared_with": options.compare,
        "engine": judge.segmenter.engine,
        "bags": {str(bag.path): bag.count for bag in bags},
        "topics": {str(bag.path): bag.topic for bag in bags},
        "frames_read": pool.seen,
        "asked": options.frames,
        "left_out": problems,
        "chosen": [{key: row[key] for key in row if key != "pictures"} for row in rows],
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_files(folder, {"selection.json": text})
    _write_page(folder, result, rows, judge.segmenter.labels)
    return result


def _frames(
    bags: Sequence[BagInfo], reading: ReadOptions, problems: list[str]
) -> Iterator[tuple[int, DecodedFrame]]:
    """The images of all bags that can be decoded; `problems` gets a line for each that cannot."""
    for number, bag in enumerate(bags):
        # by name, as without the labels their topic would be one to choose from
        unlabelled = replace(reading, topic=bag.topic, labels=None)
        with unlabelled.open(bag.path) as images:
            try:
                for frame in read_frames(images, unlabelled):
                    if frame.image is None:
                        problems.append(frame.problem)
                    else:
                        yield number, frame
            except DataError as error:
                problems.append(str(error))


def _write(
    folder: Path,
    bags: Sequence[BagInfo],
    reading: ReadOptions,
    chosen: Sequence[Chosen],
    segmenter: Segmenter,
    problems: list[str],
) -> list[dict[str, Any]]:
    """Write images, masks and labels of the chosen frames; return their rows, the best first.

    `problems` gets a line for each label that is missing or cannot be used.
    """
    pictures: dict[tuple[int, int], tuple[str, str]] = {}
    names: dict[tuple[int, int], str] = {}
    for found in (each.candidate for each in chosen):
        number, index = found.place
        names[found.place] = frame_name(number, bags[number].path, index, found.stamp_ns)
    for number, bag in enumerate(bags):
        wanted = [index for place, index in names if place == number]
        if not wanted:
            continue
        with reading.open(bag.path) as images:
            for frame in wanted_frames(
                images, reading, wanted, bag.pairs, lambda error: problems.append(str(error))
            ):
                name, image = names[number, frame.index], frame.image
                assert image is not None  # it could be read before
                mask = segmenter.segment(image).mask
                write_image(folder / "images" / f"{name}.png", image)
                write_image(folder / "masks" / f"{name}.png", mask)
                if frame.truth is not None:
                    write_image(folder / "labels" / f"{name}.png", frame.truth)
                elif bag.pairs is not None and bag.pairs.of(frame.index) == NO_LABEL:
                    problems.append(f"{name} has no label yet")
                colors = color_table(segmenter.labels)
                blended = cv2.addWeighted(image, 0.5, colors[mask], 0.5, 0)
                pictures[number, frame.index] = (
                    page_picture(image, _WIDTH),
                    page_picture(np.asarray(blended, np.uint8), _WIDTH),
                )
    rows = [
        {
            "name": names[each.candidate.place],
            "bag": str(bags[each.candidate.place[0]].path),
            "index": each.candidate.place[1],
            "stamp_ns": each.candidate.stamp_ns,
            **{name: round(rank, 4) for name, rank in each.ranks.items()},
            "reason": each.reason,
        }
        for each in chosen
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_files(folder, {"selection.csv": table.getvalue()})
    write_voc_zip(folder / "cvat.zip", folder / "masks", list(names.values()), segmenter.labels)
    for row, each in zip(rows, chosen, strict=True):
        row["pictures"] = pictures[each.candidate.place]
    return rows


def _write_page(
    folder: Path, result: dict[str, Any], rows: Sequence[dict[str, Any]], labels: Sequence[Label]
) -> None:
    page = render(
        "camseg_ros.bag",
        "mine.html.j2",
        result=result,
        rows=rows,
        measures={name: text for name, text in MEASURES.items() if name in rows[0]},
        legend=[(label.name, f"rgb{label.color}") for label in labels],
    )
    write_files(folder, {"index.html": page})
