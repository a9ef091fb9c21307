"""`camseg compare`: two models on a labelled data set, on bags, or on both."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camseg_core.cli.console import EXIT_FAILED, print_lines, say
from camseg_core.cli.options import (
    check_frames,
    data_of,
    packages_for,
    require_with,
    sampling_facts,
    segmenter_of,
)
from camseg_core.cli.scoring import titles
from camseg_core.data import Sample, SamplesOf, spread_numbers
from camseg_core.data.folders import real_path
from camseg_core.data.label_table import LabelTable, is_cityscapes, related
from camseg_core.data.shared_labels import SharedLabels, shared_labels, shared_over
from camseg_core.errors import ConfigError, camseg_command
from camseg_core.evaluation.comparison import (
    ComparedModel,
    Comparison,
    Footage,
    Limits,
    Read,
    compare,
)
from camseg_core.evaluation.report.comparison import comparison_lines, write_comparison
from camseg_core.groups import ScoredLabels
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label
from camseg_core.long_runs import shown_progress, writable_folder
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import model_labels

if TYPE_CHECKING:
    from camseg_ros.bag.evaluation import BagInfo
    from camseg_ros.bag.frames import DecodedFrame, ReadOptions


def run(options: argparse.Namespace) -> None:
    """Compare, write the report and print it; exit with 1 if a limit fails.

    Raises:
        CamSegError: frames or a model cannot be used, or the report cannot be written.
    """
    limits = Limits(**{name: getattr(options, name) for name in vars(Limits())})
    _check(options)
    paths = [options.old, options.new]
    named = dict(zip(titles(paths), paths, strict=True))
    classes = {name: model_labels(path) for name, path in named.items()}
    data = data_of(options) if options.data is not None else None
    bags = _inspected(options) if options.bag else None
    with packages_for("a mapping of labels", "evaluate"):
        on_data = None if data is None else data.scored_by(classes, options.groups)
        on_bags = None
        if bags is not None:
            from camseg_ros.bag.label_meaning import stated_by

            on_bags = _scored_on_bags(stated_by(bags[0].labels, options.groups), classes)
    writable_folder(options.out, "--out")
    if data is not None and on_data is not None:
        check_frames(options, data, on_data.scored[0])
    models = {
        name: segmenter_of(argparse.Namespace(**{**vars(options), "model": path}))
        for name, path in named.items()
    }
    comparisons = []
    if data is not None and on_data is not None:
        samples = SamplesOf(data.samples, spread_numbers(len(data.samples), options.frames))
        title = f"{real_path(options.data).name}/{data.split}"
        footage = Footage.of(title, samples, on_data.lines)
        comparisons.append(_compared(models, on_data, footage))
    if bags is not None and on_bags is not None:
        reading, infos = bags
        notes = [*on_bags.lines, *_labels_left_out(reading, infos)]
        footage = _Drives(infos, reading, options.frames).footage(notes)
        comparisons.append(_compared(models, on_bags, footage))
    problems = [line for each in comparisons for line in each.footage.problems]
    broken = None
    if limits != Limits():
        broken = [*limits.broken(comparisons), *problems]
    about = {"checkpoint": ", ".join(paths), **sampling_facts(options)}
    content = write_comparison(comparisons, options.out, about, broken)
    if options.json:
        sys.stdout.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
    else:
        page = options.out / "comparison.html"
        print_lines(*comparison_lines(content), f"report: {page} and comparison.json beside it")
    for line in [*problems, *(f"limit: {each}" for each in broken or ())]:
        say(f"{camseg_command()}: {line}")
    if broken:
        sys.exit(EXIT_FAILED)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that would have no effect."""
    if options.data is None and not options.bag:
        raise ConfigError("there must be frames to compare on: give --data ROOT, --bag BAG or both")
    for needed, given, names in (
        ("--data", options.data is not None, ("split", "labels", "mapping")),
        ("--bag", bool(options.bag), ("bag_labels", "topic", "white_level")),
        ("--bag-labels", bool(options.bag_labels), ("tolerance",)),
    ):
        require_with(needed, given, options, names)
    if options.max_flicker_rise is not None and not options.bag:
        raise ConfigError("--max-flicker-rise must come with --bag: stills do not flicker")
    limits = ("max_drop", "max_class_drop", "max_calibration_rise")
    scores = [
        f"--{each.replace('_', '-')}" for each in limits if getattr(options, each) is not None
    ]
    if scores and options.data is None and not options.bag_labels:
        raise ConfigError(
            f"{' and '.join(scores)} must come with labels to score against: give --data ROOT or "
            "--bag-labels"
        )


def _compared(
    models: Mapping[str, Segmenter], shared: SharedLabels, footage: Footage
) -> Comparison:
    old, new = (
        ComparedModel(name, segmenter, scored)
        for (name, segmenter), scored in zip(models.items(), shared.scored, strict=True)
    )

    def progress(frames: Read) -> Read:
        return shown_progress(frames, footage.count, f"compare on {footage.title}")

    return compare(old, new, footage, progress, shared.left_out)


def _inspected(options: argparse.Namespace) -> tuple["ReadOptions", list["BagInfo"]]:
    """Open the bags and their labels, so that what is missing is reported before the work."""
    with packages_for("--bag", "bag"):
        from camseg_ros.bag.evaluation import inspect_bags
        from camseg_ros.bag.frames import ReadOptions, label_source
    labels = None
    if options.bag_labels:
        labels = label_source(options.bag_labels, options.tolerance)
    reading = ReadOptions(options.topic, labels, white_level=options.white_level)
    return reading, inspect_bags(options.bag, reading)


def _labels_left_out(reading: "ReadOptions", bags: Sequence["BagInfo"]) -> list[str]:
    from camseg_ros.bag.evaluation import paired

    left_out = reading.labels.unpaired(paired(bags)) if reading.labels is not None else ""
    return [left_out] if left_out else []


def _scored_on_bags(stated: Path | None, classes: Mapping[str, Sequence[Label]]) -> SharedLabels:
    """Return the labels to score on bags: those of the file `stated`, else of the new model."""
    if stated is not None:
        return shared_over(stated, classes)
    old, new = classes.values()
    table = LabelTable.of(CITYSCAPES if is_cityscapes(new) else new)
    known = zip(related(old, table.labels), related(new, table.labels), strict=True)
    pairs = zip(table.labels, known, strict=True)
    own = ScoredLabels.of([label for label, places in pairs if any(places)])
    return shared_labels(own, table, classes)


class _Drives:
    """The images of bags, at most `most` of each."""

    def __init__(self, bags: Sequence["BagInfo"], reading: "ReadOptions", most: int | None) -> None:
        self._bags, self._reading, self._most = bags, reading, most
        self._places: list[tuple[int, int]] = []
        self._problems: list[str] = []

    def footage(self, notes: Sequence[str]) -> Footage:
        """Return them as frames to compare on."""
        paths = [bag.path.name for bag in self._bags]
        title = paths[0] if len(paths) == 1 else f"{len(paths)} bags"
        count = sum(min(bag.count, self._most or bag.count) for bag in self._bags)
        return Footage(title, count, self._read, self._pick, self._problems, tuple(notes))

    def _read(self) -> Iterator[tuple[Sample, bool]]:
        """Yield the images; none follows one of another bag, nor one that cannot be read."""
        from camseg_ros.bag.frames import read_frames
        from camseg_ros.bag.read import BagDamaged

        for number, bag in enumerate(self._bags):
            left_out, first = 0, ""
            with self._reading.open(bag.path) as images:
                try:
                    frames = read_frames(images, self._reading, pairs=bag.pairs)
                    for frame in islice(frames, self._most):
                        if frame.image is None:
                            left_out, first = left_out + 1, first or frame.problem
                        else:
                            self._places.append((number, frame.index))
                            yield self._sample(number, frame), frame.follows
                except BagDamaged as error:
                    self._problems.append(str(error))
            if left_out:
                self._problems.append(
                    f"images of {bag.path} left out: {left_out}, the first: {first}"
                )
            if bag.pairs is not None and bag.pairs.unclear:
                self._problems.append(
                    f"{bag.pairs.unclear} images of {bag.path} left without a label, as "
                    f"{bag.pairs.example}"
                )

    def _sample(self, number: int, frame: "DecodedFrame") -> Sample:
        assert frame.image is not None
        label = frame.truth
        if label is None:
            label = np.full(frame.image.shape[:2], UNLABELLED, np.uint8)
        bag = f"{self._bags[number].path.name}, " if len(self._bags) > 1 else ""
        return Sample(frame.image, label, f"{bag}image {frame.index}")

    def _pick(self, numbers: Sequence[int]) -> dict[int, Sample]:
        from camseg_ros.bag.frames import read_frames

        found = {}
        for number, bag in enumerate(self._bags):
            wanted = {self._places[i][1]: i for i in numbers if self._places[i][0] == number}
            with self._reading.open(bag.path) as images:
                frames = read_frames(images, self._reading, only=wanted, pairs=bag.pairs)
                # `wanted` first: then nothing is read after the last of them
                for _, frame in zip(wanted, frames, strict=False):
                    found[wanted[frame.index]] = self._sample(number, frame)
        return found
