"""`camseg robustness`: how much of its performance a model keeps on disturbed pictures."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camseg_core.cli.options import (
    add_data_options,
    add_model_options,
    at_least,
    data_of,
    model_options,
    packages_for,
    segmenter_of,
)

if TYPE_CHECKING:
    from camseg_core.evaluation.robustness import Work


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
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
        "--against",
        metavar="MODEL",
        help="a second checkpoint folder or bundled model to compare with",
    )
    parser.add_argument(
        "--disturbance-seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the disturbances (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/robustness"),
        help="folder for the report (default: %(default)s)",
    )
    add_model_options(parser)
    parser.set_defaults(run=_robustness)


class _List(argparse.Action):
    """Lists the disturbances without requiring the options that a run needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from camseg_core.evaluation.robustness_suite import listing

        sys.stdout.write("\n".join(listing()) + "\n")
        parser.exit()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names separated by commas, got {text!r}")
    return names


def _robustness(options: argparse.Namespace) -> None:
    # imported here, since machines that only segment lack some packages, and before any work
    with packages_for("evaluation", "evaluate"):
        from camseg_core.evaluation.report.robustness import kept_table, write_robustness
        from camseg_core.evaluation.robustness import identity, run_suite, titles
        from camseg_core.evaluation.robustness_suite import SUITE, selected
        from camseg_core.progress import shown_progress
    suite = selected(options.only) if options.only else SUITE
    data = data_of(options)
    models = [options.model] if options.against is None else [options.model, options.against]
    contenders, identities = {}, {}
    for name, model in zip(titles(models), models, strict=True):
        variant = argparse.Namespace(**vars(model_options(options)) | {"model": model})
        contenders[name] = segmenter_of(variant)
        identities[name] = identity(model, contenders[name], vars(variant))
    shown = ("sampler", "steps", "samples", "passes", "seed", "threads")

    def progress(work: "Work", total: int) -> "Iterable[tuple[Any, int]]":
        return shown_progress(work, total, "disturb and segment") if total else work

    robustness = run_suite(
        contenders,
        data.samples,
        data.labels,
        suite,
        frames=options.frames,
        seed=options.disturbance_seed,
        keep=options.out / "parts",
        identities=identities,
        progress=progress,
        about={
            "data": f"{options.data.resolve().name}/{data.split}",
            **{
                name: f"{each.name}, {each.precision} on {each.provider}"
                for name, each in contenders.items()
            },
            **{name: getattr(options, name) for name in shown},
        },
    )
    page = write_robustness(robustness, options.out)
    lines = [*kept_table(robustness), f"report: {page} and robustness.json beside it"]
    sys.stdout.write("\n".join(lines) + "\n")
