"""`camseg bag evaluate`: parses, evaluates, tells what came of it."""

import argparse
import functools
import hashlib
import json
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from camseg_core.atomic_write import atomic_write
from camseg_core.cli.options import add_model_options, not_negative
from camseg_core.errors import ConfigError, DataError, ModelError
from camseg_core.progress import shown_progress
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.stop_request import StopRequest
from camseg_core.weights import bundled_models, checkpoint_folder
from camseg_ros.bag.evaluate import BagFacts, Stopped, evaluate_here, look_at
from camseg_ros.bag.evaluation import Evaluating
from camseg_ros.bag.frames import Reading
from camseg_ros.bag.labels import LabelPlace
from camseg_ros.bag.mask_bag import MASK_TOPIC, write_mask_bag
from camseg_ros.bag.merging import FRAMES, TIMINGS, Merged, merge
from camseg_ros.bag.parts import PartFolder
from camseg_ros.bag.report import build_report, measured, worst_frames
from camseg_ros.bag.scenario import Scenario

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_STOPPED = 1, 130


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Segment every image of the bags in recorded order, through the runtime that ships, and score the masks where there are labels. "
        "Writes report.html, report.json and frames.jsonl. Interrupted, the same command goes on where it was. "
        "Exits 1 if a limit of the scenario is not kept or a bag could not be evaluated."
    )
    parser.add_argument(
        "bags", nargs="+", type=Path, metavar="BAG", help="a bag folder, or one .mcap or .db3 file"
    )
    parser.add_argument("--topic", help="the image topic, where a bag has several")
    parser.add_argument(
        "--labels",
        metavar="TOPIC|FOLDER",
        help="labels, Cityscapes train ids (255 = none): a topic of mono8 images or PNG, which begins with /, or ./FOLDER of PNG files "
        "named for their stamp in ns",
    )
    parser.add_argument(
        "--tolerance",
        type=not_negative,
        metavar="MS",
        default=5.0,
        help="by which the stamps of image and label may differ (default: 5)",
    )
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="limits to keep, in YAML; see docs/bags.md"
    )
    parser.add_argument(
        "--compare", metavar="MODEL", help="another checkpoint, to tell how much the two agree"
    )
    parser.add_argument(
        "--write-bag",
        type=Path,
        metavar="FOLDER",
        help="a new bag with the masks beside what was recorded",
    )
    parser.add_argument(
        "--mask-topic",
        metavar="TOPIC",
        default=MASK_TOPIC,
        help="of the masks in it (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/bag"),
        help="folder for the report (default: %(default)s)",
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="spread over a Ray cluster: RAY_ADDRESS, or one started on this machine",
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Evaluate, print, and exit 1 where something fell short, 130 where it was asked to stop.

    Raises:
        CamSegError: nothing could be evaluated.
    """
    scenario = Scenario.read(options.scenario) if options.scenario else Scenario()
    evaluating = _evaluating(options, scenario)
    failures: dict[int, str] = {}
    bags = list(_look_at(options.bags, evaluating, failures))
    if not bags:
        raise DataError(failures[0])
    targets = _mask_bags(options, bags)
    parts = PartFolder(_parts_folder(options, scenario))
    with StopRequest(parts.folder) as stop:
        work = _on_ray(bags, evaluating, parts, failures, stop, options) if options.ray else None
        work = work or evaluate_here(bags, evaluating, parts, failures, lambda: stop.requested)
        try:
            for _ in shown_progress(work, _left(bags, parts), "evaluate"):
                pass
        except Stopped as stopped:
            sys.stderr.write(f"camseg: {stopped}\n")
            sys.exit(EXIT_STOPPED)
    merged = merge(bags, parts, evaluating, failures, options.out)
    good = [(number, bag) for number, bag in bags if number not in failures]
    problems = [*failures.values(), *merged.damage]
    report = build_report(merged, good, evaluating.reading, _about(options), problems)
    failed = _check(scenario, report, merged, problems) if options.scenario else None
    report["scenario"] = None if failed is None else {"passed": not failed, "failures": failed}
    with atomic_write(options.out / "report.json") as path:
        path.write_text(
            json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )
    _write_page(options.out, report, merged, good, evaluating)
    for (number, bag), target in zip(bags, targets, strict=False):
        if number not in failures:
            write_mask_bag(bag.path, target, bag.topic, parts.masks(number), options.mask_topic)
    shutil.rmtree(parts.folder)
    with suppress(OSError):  # another command keeps its own there
        parts.folder.parent.rmdir()
    sys.stdout.write("\n".join(_summary(report, options.out, targets)) + "\n")
    for line in [*problems, *(f"scenario: {line}" for line in failed or [])]:
        sys.stderr.write(f"camseg: {line}\n")
    if failed or failures:
        sys.exit(EXIT_FAILED)


def _evaluating(options: argparse.Namespace, scenario: Scenario) -> Evaluating:
    names = (
        "provider",
        "precision",
        "threads",
        "sampler",
        "steps",
        "seed",
        "temperature",
        "eta",
        "samples",
        "passes",
        "order",
    )
    settings = {name: getattr(options, name) for name in (*names, "engine_cache")}
    if options.ray:
        settings["threads"] = (
            settings["threads"] or 1
        )  # a worker has one core unless more are asked for
    load = functools.partial(Segmenter.from_pretrained, _anywhere(options.model), **settings)
    compare = (
        functools.partial(Segmenter.from_pretrained, _anywhere(options.compare), **settings)
        if options.compare
        else None
    )
    places = None
    if options.labels:
        topic = (
            options.labels
            if options.labels.startswith("/") and not Path(options.labels).is_dir()
            else None
        )
        folder = None if topic else Path(options.labels).resolve()
        places = LabelPlace(topic, folder, round(1e6 * options.tolerance))
    return Evaluating(
        Reading(options.topic, places, scenario.start_s, scenario.end_s),
        load,
        compare,
        options.write_bag is not None,
    )


def _anywhere(model: str) -> str:
    """The name of a bundled model, which another machine has elsewhere, or the whole path of a folder."""
    return model if model in bundled_models() else str(checkpoint_folder(model).resolve())


def _look_at(
    bags: Sequence[Path], evaluating: Evaluating, failures: dict[int, str]
) -> Iterator[tuple[int, BagFacts]]:
    for number, bag in enumerate(bags):
        try:
            yield number, look_at(bag.resolve() if bag.exists() else bag, evaluating)
        except DataError as error:
            failures[number] = str(error)


def _mask_bags(options: argparse.Namespace, bags: Sequence[tuple[int, BagFacts]]) -> list[Path]:
    """Where the bags with masks go: nowhere, to the folder named, or into it where there are several."""
    if options.write_bag is None:
        return []
    several = len(options.bags) > 1
    targets = [
        options.write_bag / bag.path.stem if several else options.write_bag for _, bag in bags
    ]
    for target in targets:
        if target.exists() or targets.count(target) > 1:
            raise DataError(
                f"{target} exists already, or two bags have its name; name another folder for the bag with masks"
            )
    return targets


def _parts_folder(options: argparse.Namespace, scenario: Scenario) -> Path:
    """A folder for what is found by exactly these options, so that no other command goes on with it."""
    ignored = ("out", "scenario", "mask_topic", "run", "ray")
    said = {name: str(value) for name, value in vars(options).items() if name not in ignored}
    said |= {
        "write_bag": str(options.write_bag is not None),
        "stretch": str((scenario.start_s, scenario.end_s)),
    }
    models = [checkpoint_folder(each) for each in (options.model, options.compare) if each]
    said["files"] = str([_state(path) for path in (*options.bags, *models)])
    name = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    try:
        folder = Path(options.out) / "parts" / name
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {options.out}: {error.strerror}; name another folder with --out"
        ) from error
    return folder


def _state(path: Path) -> list[tuple[str, int, int]]:
    """The files at `path` with size and time of change."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [
        (str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.exists()
    ]


def _left(bags: Sequence[tuple[int, BagFacts]], parts: PartFolder) -> int:
    """How many images are still to be evaluated."""
    return sum(
        max(0, bag.count - sum(part.stop - part.start for part in parts.in_order(number)))
        for number, bag in bags
    )


def _on_ray(
    bags: Sequence[tuple[int, BagFacts]],
    evaluating: Evaluating,
    parts: PartFolder,
    failures: dict[int, str],
    stop: StopRequest,
    options: argparse.Namespace,
) -> Iterator[int]:
    from camseg_core.cli.options import packages_for

    with packages_for("--ray", "ray"):
        from camseg_ros.bag.ray_cluster import evaluate_on_ray
    cores = options.threads or 1
    return evaluate_on_ray(
        bags,
        evaluating,
        parts,
        failures,
        lambda: stop.requested,
        cores,
        gpu=options.provider != ("cpu",),
    )


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {"sampler": options.sampler, "steps": options.steps, "seed": options.seed}


def _check(
    scenario: Scenario, report: dict[str, Any], merged: Merged, problems: Sequence[str]
) -> list[str]:
    """The limits that are not kept; a bag that is not whole keeps none."""
    confusion = merged.tally.confusion_matrix()
    classes = {
        label.name: float(iou)
        for label, iou in zip(merged.facts.labels, confusion.iou(), strict=True)
    }
    return [*scenario.check(measured(report, merged), classes), *problems]


def _write_page(
    out: Path,
    report: dict[str, Any],
    merged: Merged,
    bags: Sequence[tuple[int, BagFacts]],
    evaluating: Evaluating,
) -> None:
    from camseg_ros.bag.report_page import WorstFrame, write_page

    try:
        shown = [WorstFrame(*each) for each in worst_frames(merged, dict(bags), evaluating)]
    except (
        ConfigError,
        ModelError,
    ) as error:  # after --ray: this machine need not be one that can run the model
        logger.warning("the report shows no frames: %s", error)
        shown = []
    write_page(out / "report.html", report, _frames(out), shown)


def _frames(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of `frames.jsonl` with their latency."""
    with (
        (out / FRAMES).open(encoding="utf-8") as lines,
        (out / TIMINGS).open(encoding="utf-8") as times,
    ):
        for line, time in zip(lines, times, strict=True):
            yield {**json.loads(line), "latency_ms": json.loads(time)["latency_ms"]}


def _summary(report: dict[str, Any], out: Path, targets: Sequence[Path]) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None or math.isnan(value) else f"{value:.3f}"

    scores, latency = report["scores"], report["timings"]["latency_ms"]
    lines = [f"{report['bag']['frames']} frames, {report['bag']['scored']} with labels"]
    if scores:
        row = "{:<14} {:>7} {:>10} {:>7}".format
        lines += [row("class", "IoU", "precision", "recall")]
        for each in report["classes"]:
            if each["iou"] is not None:
                lines += [
                    row(
                        each["name"],
                        number(each["iou"]),
                        number(each["precision"]),
                        number(each["recall"]),
                    )
                ]
        lines += [
            f"mean IoU {number(scores['miou'])}, pixel accuracy {number(scores['pixel_accuracy'])}, ECE {number(scores['ece'])}"
        ]
    flicker = report["flicker"]
    lines += [
        f"confidence {number(report['confidence']['mean'])}, changed from frame to frame {number(flicker['change_rate'])}"
    ]
    if report["compare"]:
        lines += [
            f"agreement with {report['compare']['model']} {number(report['compare']['agreement'])}"
        ]
    read = 100 * report["timings"]["read_share"]
    lines += [
        f"latency p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms; reading took {read:.1f} % of the time"
    ]
    lines += [f"report: {out / 'report.html'}; report.json, {FRAMES} and {TIMINGS} beside it"]
    return [*lines, *(f"masks: {target}" for target in targets)]
