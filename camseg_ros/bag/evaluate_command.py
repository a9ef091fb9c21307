"""`camseg bag evaluate`: parses the options, evaluates, prints the result."""

import argparse
import functools
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from camseg_core.cli.console import print_lines, say
from camseg_core.cli.options import (
    add_model_options,
    model_options,
    packages_for,
    require_with,
    sampling_facts,
    segmenter_of,
)
from camseg_core.data.folders import real_path
from camseg_core.data.label_table import require_same_ids
from camseg_core.data.shared_labels import shared_over
from camseg_core.errors import ConfigError, DataError, ModelError, camseg_command
from camseg_core.groups import ScoredLabels
from camseg_core.long_runs import StopRequest, atomic_write, shown_progress, writable_folder
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import bundled_models, checkpoint_folder, model_labels
from camseg_ros.bag.command import add_images, add_tolerance
from camseg_ros.bag.evaluation import (
    BagInfo,
    EvaluationOptions,
    EvaluationRun,
    EvaluationStopped,
    check_inspected,
    evaluate_here,
    inspect_bag,
)
from camseg_ros.bag.frames import ReadOptions, label_source
from camseg_ros.bag.label_meaning import stated_by
from camseg_ros.bag.make import MASK_TOPIC
from camseg_ros.bag.mask_bag import write_mask_bag
from camseg_ros.bag.names import bag_name
from camseg_ros.bag.parts import PartFolder, parts_name, versions
from camseg_ros.bag.report import (
    FRAMES,
    TIMINGS,
    Merged,
    broken_limits,
    build_report,
    merge,
    worst_frames,
)
from camseg_ros.bag.report_page import counting_facts, write_page
from camseg_ros.bag.scenario import Scenario

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_STOPPED = 1, 130


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Segment every image of the bags in recorded order with the deployed runtime, and score "
        "the masks where there are labels. Writes report.html, report.json and frames.jsonl. "
        "After an interruption, the same command continues. Exits 1 if a limit of the scenario is "
        "not kept or a bag cannot be evaluated."
    )
    option = parser.add_argument
    add_images(parser)
    option(
        "--labels",
        metavar="TOPIC|FOLDER",
        help="labels in ids of --groups, of labels.yaml in the folder, or of the model's classes, "
        "by default Cityscapes train ids (255: unlabelled): a topic of mono8 images or PNG, "
        "which begins with /, or ./FOLDER of PNG files named for their stamp in ns",
    )
    add_tolerance(parser)
    option(
        "--groups",
        type=Path,
        metavar="FILE",
        help="score over the classes and groups of this mapping file, such as "
        "config/data/camvid.yaml, or over the classes of a labels.yaml, instead of the model's",
    )
    option("--scenario", type=Path, metavar="FILE", help="limits to keep, YAML; see docs/bags.md")
    option("--compare", metavar="MODEL", help="report how far another checkpoint agrees")
    option("--write-bag", type=Path, metavar="FOLDER", help="write a copy of the bag with masks")
    option("--mask-topic", metavar="TOPIC", help=f"of its masks (default: {MASK_TOPIC})")
    option(
        "--out",
        type=Path,
        default=Path("out/bag"),
        help="folder for the report",
    )
    option(
        "--ray",
        action="store_true",
        help="use the Ray cluster at RAY_ADDRESS, or one started on this machine",
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> None:
    """Evaluate and print; exit 1 if something failed, 130 if asked to stop.

    Raises:
        CamSegError: nothing could be evaluated.
    """
    require_with("--labels", bool(options.labels), options, ["tolerance"])
    require_with("--write-bag", options.write_bag is not None, options, ["mask_topic"])
    if options.ray:
        options.threads = options.threads or 1  # a task has one core by default
    scenario = Scenario.read(options.scenario) if options.scenario else Scenario()
    evaluation = _evaluation_options(options, scenario)
    bags, failures = _inspect_bags(options.bags, evaluation)
    if not bags:
        raise DataError(failures[0])
    check_inspected(bags.values(), evaluation.read)
    targets = _mask_bags(options, bags)
    parts = PartFolder(_parts_folder(options, scenario, evaluation.over))
    job = EvaluationRun(evaluation, bags, parts, failures)
    _evaluate(job, options)
    merged = merge(job, options.out)
    problems = [*failures.values(), *merged.damage]
    drawn = {"checkpoint": options.model, **sampling_facts(options)}
    report = build_report(merged, job, drawn, problems)
    broken = [*broken_limits(merged, scenario), *problems] if options.scenario else []
    if options.scenario:
        report["scenario"] = {"passed": not broken, "failures": broken}
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(options.out / "report.json") as path:
        # bytes of names that are not UTF-8 become escapes, which JSON has as well
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    _write_page(options.out, report, merged, job)
    for number, bag in job.good.items():
        if number in targets:
            masks = job.parts.masks(number)
            topic = options.mask_topic or MASK_TOPIC
            write_mask_bag(bag.path, targets[number], bag.topic, masks, topic)
    # a bag with masks that is there already would stop the same command
    stopped = bool(failures.keys() & bags.keys()) and not targets
    if not stopped:
        shutil.rmtree(job.parts.folder)
        with suppress(OSError):  # another evaluation has its parts there
            job.parts.folder.parent.rmdir()
    lines = [*_summary(report, options.out), *(f"masks: {path}" for path in targets.values())]
    print_lines(*lines)
    for line in [*problems, *(f"scenario: {line}" for line in broken)]:
        say(f"{camseg_command()}: {line}")
    if stopped:
        say(
            f"{camseg_command()}: what was evaluated is kept in {job.parts.folder}: "
            "the same command continues"
        )
    if broken or failures:
        sys.exit(EXIT_FAILED)


def _evaluation_options(options: argparse.Namespace, scenario: Scenario) -> EvaluationOptions:
    def loader(model: str) -> Callable[[], Segmenter]:
        given = model_options(options)
        # bundled models are found by name, as their path differs between machines
        given.model = (
            model if model in bundled_models() else os.path.realpath(checkpoint_folder(model))
        )
        return functools.partial(segmenter_of, given)

    if options.compare:
        require_same_ids({each: model_labels(each) for each in (options.model, options.compare)})
    labels = label_source(options.labels, options.tolerance) if options.labels else None
    over, stated = None, stated_by(labels, options.groups)
    if stated is not None:
        shared = shared_over(stated, {options.model: model_labels(options.model)})
        over = shared.scored[0]
        for line in shared.lines:
            say(f"{camseg_command()}: {line}")
    return EvaluationOptions(
        ReadOptions(options.topic, labels, scenario.within, options.white_level),
        loader(options.model),
        loader(options.compare) if options.compare else None,
        options.write_bag is not None,
        over,
    )


def _inspect_bags(
    paths: Sequence[Path], options: EvaluationOptions
) -> tuple[dict[int, BagInfo], dict[int, str]]:
    """Return the bags that can be opened and the errors of the others, by number."""
    bags, failures = dict[int, BagInfo](), dict[int, str]()
    for number, path in enumerate(paths):
        try:
            bags[number] = inspect_bag(real_path(path) if path.exists() else path, options.read)
        except DataError as error:
            failures[number] = str(error)
    return bags, failures


def _mask_bags(options: argparse.Namespace, bags: dict[int, BagInfo]) -> dict[int, Path]:
    """Return where the bags with masks go: the named folder, or in it if there are several bags."""
    folder = options.write_bag
    if folder is None:
        return {}
    several = len(options.bags) > 1
    targets = {n: folder / bag_name(bag.path) if several else folder for n, bag in bags.items()}
    for target in targets.values():
        writable_folder(target.parent, "--write-bag")
        if target.exists() or list(targets.values()).count(target) > 1:
            raise DataError(
                f"{target} exists already, or two bags have its name; "
                "name another folder for the bag with masks"
            )
    return targets


def _parts_folder(
    options: argparse.Namespace, scenario: Scenario, over: ScoredLabels | None
) -> Path:
    """Return a folder for the parts that no command with other options shares."""
    ignored = ("out", "scenario", "mask_topic", "run", "ray", "groups")
    key = {name: str(value) for name, value in vars(options).items() if name not in ignored}
    key["write_bag"] = str(options.write_bag is not None)
    key["stretch"] = str((scenario.start_s, scenario.end_s))
    key["versions"] = json.dumps(versions())
    key["over"] = "" if over is None else json.dumps(over.to_json())
    models = [checkpoint_folder(each) for each in (options.model, options.compare) if each]
    labels = [Path(options.labels)] if options.labels else []  # a folder, or the name of a topic
    used = [*options.bags, *labels, *models]
    return writable_folder(options.out, "--out") / "parts" / parts_name(key, used)


def _evaluate(job: EvaluationRun, options: argparse.Namespace) -> None:
    """Evaluate what is missing; exit 130 if asked to stop."""
    remaining = sum(
        max(0, bag.count - sum(part.stop - part.start for part in job.parts.in_order(number)))
        for number, bag in job.bags.items()
    )
    with StopRequest(job.parts.folder) as stop:
        if options.ray:
            with packages_for("--ray", "ray"):
                from camseg_ros.bag.ray_cluster import evaluate_on_ray
            cores, gpu = options.threads, not {"cuda", "tensorrt"}.isdisjoint(options.provider)
            frames = evaluate_on_ray(job, lambda: stop.requested, cores, gpu)
        else:
            frames = evaluate_here(job, lambda: stop.requested)
        try:
            for _ in shown_progress(frames, remaining, "evaluate"):
                pass
        except EvaluationStopped as stopped:
            sys.stderr.write(f"{camseg_command()}: {stopped}\n")
            sys.exit(EXIT_STOPPED)


def _write_page(out: Path, report: dict[str, Any], merged: Merged, job: EvaluationRun) -> None:
    try:
        shown = worst_frames(merged, job)
    except (ConfigError, ModelError) as error:  # after --ray: this machine may lack the model
        logger.warning("the report shows no frames: %s", error)
        shown = []
    write_page(out / "report.html", report, _frames(out), shown)


def _frames(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of `frames.jsonl` with their latency."""
    with (
        (out / FRAMES).open(encoding="utf-8") as lines,
        (out / TIMINGS).open(encoding="utf-8") as times,
    ):
        for line, time in zip(lines, times, strict=True):
            yield {**json.loads(line), "latency_ms": json.loads(time)["latency_ms"]}


def _summary(report: dict[str, Any], out: Path) -> Iterator[str]:
    """Yield the lines to print."""

    def number(value: float | None) -> str:
        return "-" if value is None or math.isnan(value) else f"{value:.3f}"

    scores, timings = report["scores"], report["timings"]
    by_order = report["bag"]["paired_by_order"]
    order = f" (of {by_order} whose stamps repeat by their order)" if by_order else ""
    yield f"{report['bag']['frames']} frames, {report['bag']['scored']} with labels{order}"
    if scores:
        longest = max(14, *(len(each["name"]) for each in report["classes"]))
        row = f"{{:<{longest}}} {{:>7}} {{:>10}} {{:>7}}".format
        columns = ("iou", "precision", "recall")
        yield row("class", "IoU", "precision", "recall")
        for each in report["classes"]:
            if each["iou"] is not None:
                yield row(each["name"], *(number(each[column]) for column in columns))
        accuracy, ece = number(scores["pixel_accuracy"]), number(scores["ece"])
        yield f"mean IoU {number(scores['miou'])}, pixel accuracy {accuracy}, ECE {ece}"
    for name, fact in counting_facts(report):
        yield f"{name}: {fact}"
    mean, changed = report["confidence"]["mean"], report["flicker"]["change_rate"]
    yield f"confidence {number(mean)}, changed from frame to frame {number(changed)}"
    if report["compare"]:
        agreement = number(report["compare"]["agreement"])
        yield f"agreement with {report['compare']['model']} {agreement}"
    p50, p95 = (timings["latency_ms"][name] for name in ("p50", "p95"))
    read = f"reading took {100 * timings['read_share']:.1f} % of the time"
    yield f"latency p50 {p50:.1f} ms, p95 {p95:.1f} ms; {read}"
    yield f"report: {out / 'report.html'}; report.json, {FRAMES} and {TIMINGS} beside it"
