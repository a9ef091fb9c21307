"""Commands that score models on labelled frames: `camseg evaluate` and `camseg robustness`."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camseg_core.cli.console import print_lines
from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    check_frames,
    data_of,
    model_options,
    packages_for,
    sampling_facts,
    segmenter_of,
)
from camseg_core.data import Sample
from camseg_core.data.folders import real_path
from camseg_core.data.label_table import is_cityscapes, require_same_ids
from camseg_core.data.sets import LabelledSet
from camseg_core.data.shared_labels import SharedLabels
from camseg_core.errors import ConfigError
from camseg_core.evaluation.protocols import (
    OWN_SIZE,
    PROTOCOLS,
    PUBLISHED,
    Protocol,
    check_mask_names,
    write_mask,
)
from camseg_core.groups import FIRST_GROUP, ScoredLabels
from camseg_core.long_runs import writable_folder
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.weights import model_labels

if TYPE_CHECKING:
    from camseg_core.evaluation.robustness import Work


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg evaluate`."""
    parser.description = (
        "Score a model on labelled frames, with the deployed runtime: IoU, precision, "
        "boundaries, calibration and latency. Prints a table, writes report.html and report.json."
    )
    add_data_options(parser)
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default=OWN_SIZE.name,
        help="own-size: frames at their own size, the data set's classes; cityscapes: Cityscapes' "
        "official evaluation, 19 classes and 7 categories; camseg: as published, at 768x768",
    )
    parser.add_argument(
        "--write-masks",
        type=Path,
        metavar="FOLDER",
        help="also write each mask as NAME_labelIds.png, with Cityscapes' label ids",
    )
    parser.add_argument(
        "--frames", type=at_least(1), help="stop after this many frames (default: all)"
    )
    _add_report_option(parser, "out/evaluate")
    add_model_options(parser)
    parser.set_defaults(run=_evaluate, kept="no report was written")


def _evaluate(options: argparse.Namespace) -> None:
    # imported here because machines that only segment lack some packages; before any work
    with packages_for("evaluation", "evaluate", "rich.progress"):
        from camseg_core.evaluation.evaluate import evaluate
        from camseg_core.evaluation.report.evaluation import score_table, write_report
        from camseg_core.long_runs import shown_progress
    protocol = PROTOCOLS[options.protocol]
    if options.write_masks is not None and protocol is PUBLISHED:
        raise ConfigError(
            "--write-masks needs masks at the frames' own size: not with --protocol "
            f"{protocol.name}"
        )
    if options.groups is not None and protocol.labels is not None:
        raise ConfigError(
            f"--protocol {protocol.name} has classes of its own: give --groups without it"
        )
    labels, data = model_labels(options.model), data_of(options)
    for option, needed in (
        (f"--protocol {protocol.name}", protocol.labels is not None),
        ("--write-masks", options.write_masks is not None),
    ):
        if needed and not (data.table is None and is_cityscapes(labels)):
            raise ConfigError(
                f"{option} needs Cityscapes' classes and ids: model and data set must have no "
                "class table of their own"
            )
    shared = shared_of(data, [options.model], options.groups)
    scored, notes = shared.scored[0], shared.lines
    if protocol.labels is not None:
        known = {label.id for label in labels}
        _refuse_groups(protocol, data, known)
        scored = ScoredLabels.of(protocol.labels)
        lacking = ", ".join(label.name for label in protocol.labels if label.id not in known)
        notes = [f"wrong, missing in {titles([options.model])[0]}: {lacking}"] if lacking else []
    writable_folder(options.out, "--out")
    if options.write_masks is not None:
        writable_folder(options.write_masks, "--write-masks")
        check_mask_names(data.pairs[: options.frames], options.write_masks)
    check_frames(options, data, scored, spread_out=False)
    segmenter = segmenter_of(options)
    frames = min(len(data.samples), options.frames or len(data.samples))

    def write(sample: Sample, result: Segmentation) -> None:
        write_mask(options.write_masks, sample.name, result.mask)

    evaluation = evaluate(
        segmenter,
        data.samples,
        scored,
        frames=options.frames,
        progress=lambda samples: shown_progress(samples, frames),
        about=_about(options, data, {"frames": frames}, notes),
        protocol=protocol,
        seen=None if options.write_masks is None else write,
    )
    page = write_report(evaluation, options.out)
    print_lines(*score_table(evaluation), *notes, f"report: {page} and report.json beside it")


def add_robustness(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg robustness`."""
    parser.description = (
        "Score a model on labelled frames, undisturbed and disturbed: the paper's eight "
        "disturbances, 19 common corruptions, and weather on the synthetic drive. Prints the share "
        "of the clean performance that is kept and writes robustness.html and robustness.json. "
        "After Ctrl-C, the same command resumes."
    )
    parser.add_argument(
        "--list", action=_List, nargs=0, help="list all disturbances with their levels, and exit"
    )
    add_data_options(parser)
    parser.add_argument(
        "--frames", type=at_least(1), help="use this many frames, evenly spread (default: all)"
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=(),
        metavar="NAMES",
        help="families (paper, common, weather) or disturbances, separated by commas, such as "
        "paper,weather/fog (default: all)",
    )
    parser.add_argument(
        "--compare",
        "--against",
        metavar="MODEL",
        help="a second checkpoint folder or bundled model to compare with",
    )
    parser.add_argument(
        "--disturbance-seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the disturbances",
    )
    _add_report_option(parser, "out/robustness")
    add_model_options(parser)
    parser.set_defaults(
        run=_robustness,
        kept="finished parts are in {out}/parts; the same command resumes",
    )


class _List(argparse.Action):
    """Lists the disturbances without requiring the options that a run needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from camseg_core.evaluation.robustness_suite import listing

        print_lines(*listing())
        parser.exit()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names separated by commas, got {text!r}")
    return names


def _robustness(options: argparse.Namespace) -> None:
    with packages_for("evaluation", "evaluate", "rich.progress"):
        from camseg_core.evaluation.report.robustness import kept_table, write_robustness
        from camseg_core.evaluation.robustness import identity, run_suite
        from camseg_core.evaluation.robustness_suite import SUITE, selected
        from camseg_core.long_runs import shown_progress
    suite = selected(options.only) if options.only else SUITE
    models = [options.model] if options.compare is None else [options.model, options.compare]
    require_same_ids({model: model_labels(model) for model in models})
    data = data_of(options)
    shared = shared_of(data, models, options.groups)
    scored, notes = shared.together(), shared.lines
    writable_folder(options.out, "--out")
    check_frames(options, data, scored)
    contenders, identities = {}, {}
    for name, model in zip(titles(models), models, strict=True):
        variant = argparse.Namespace(**vars(model_options(options)) | {"model": model})
        contenders[name] = segmenter_of(variant)
        identities[name] = identity(model, contenders[name], vars(variant))

    def progress(work: "Work", total: int) -> "Work":
        return shown_progress(work, total, "disturb and segment") if total else work

    engines = {
        name: f"{each.name}, {each.precision} on {each.engine}"
        + ", noise filter" * each.config.noise_filter
        for name, each in contenders.items()
    }
    robustness = run_suite(
        contenders,
        data.samples,
        scored,
        suite,
        frames=options.frames,
        seed=options.disturbance_seed,
        keep=options.out / "parts",
        identities=identities,
        progress=progress,
        about=_about(options, data, engines, notes),
        table=data.table,
    )
    page = write_robustness(robustness, options.out)
    print_lines(*kept_table(robustness), *notes, f"report: {page} and robustness.json beside it")


def _refuse_groups(protocol: Protocol, data: LabelledSet, known: Collection[int]) -> None:
    """Refuse labels that stand for one of several classes of a model where each is scored alone."""
    unclear = [
        each.name
        for each in data.groups
        if each.id >= FIRST_GROUP or len({*each.train_ids} & {*known}) > 1
    ]
    if unclear:
        raise ConfigError(
            f"--protocol {protocol.name} scores each class by itself, but labels of the data set "
            f"stand for one of several: {', '.join(unclear)}; score without --protocol"
        )


def titles(models: Sequence[str]) -> list[str]:
    """Return distinct names for models: the shortest ends of their paths that differ."""
    paths = [Path(model).parts for model in models]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{model} ({number})" for number, model in enumerate(models, start=1)]


def shared_of(data: LabelledSet, models: Sequence[str], over: Path | None = None) -> SharedLabels:
    """Return the labels to score the models over: those of `data`, or those of `over`."""
    with packages_for("a mapping of labels", "evaluate"):
        named = zip(titles(models), models, strict=True)
        return data.scored_by({name: model_labels(each) for name, each in named}, over)


def _add_report_option(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--out", type=Path, default=Path(folder), help="folder for the report")


def _about(
    options: argparse.Namespace, data: LabelledSet, more: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """Return facts about a run to store with its scores: models, data, `more`, notes, sampling."""
    models = [options.model, *filter(None, [getattr(options, "compare", None)])]
    return {
        "checkpoint": ", ".join(models),
        "data": f"{real_path(options.data).name}/{data.split}",
        **more,
        **({"labels": "; ".join(notes)} if notes else {}),
        **sampling_facts(options),
    }
