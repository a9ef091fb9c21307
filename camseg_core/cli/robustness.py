"""`camseg robustness`: how much of a model's performance is left when its pictures are disturbed, alone or beside another model's."""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
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
from camseg_core.weights import checkpoint_folder

if TYPE_CHECKING:
    from camseg_core.evaluation.robustness import Robustness, Work
    from camseg_core.evaluation.robustness_suite import Series


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Score a model on labelled frames as they are and disturbed: the paper's eight disturbances, 19 common corruptions, and weather "
        "on the synthetic drive. Prints how much of the clean performance is kept and writes robustness.html and robustness.json. "
        "Ctrl-C stops it; the same command goes on."
    )
    parser.add_argument(
        "--list", action=_List, nargs=0, help="name all disturbances with their levels, and exit"
    )
    add_data_options(parser)
    parser.add_argument(
        "--frames",
        type=at_least(1),
        help="use so many frames, evenly spread over the data (default: all)",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=(),
        metavar="NAMES",
        help="families (paper, common, weather) or disturbances, with commas between, as in paper,weather/fog (default: all)",
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="a second checkpoint folder or bundled model to draw beside the first",
    )
    parser.add_argument(
        "--disturbance-seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="of the disturbances (default: %(default)s)",
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
    """Says what there is, without wanting the options that a run needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from camseg_core.evaluation.robustness_suite import FAMILIES, SUITE

        width = max(len(series.key) for series in SUITE)
        for family, title in FAMILIES.items():
            sys.stdout.write(f"{title}\n")
            for series in SUITE:
                if series.family == family:
                    levels = " ".join(f"{level:g}" for level in series.levels)
                    sys.stdout.write(
                        f"  {series.key:<{width}}  {levels}  ({series.unit}, clean at {series.clean:g})\n"
                    )
        parser.exit()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between")
    return names


def _robustness(options: argparse.Namespace) -> None:
    with packages_for(
        "evaluation", "evaluate"
    ):  # late, for the machines that only segment; and before the work, so that none is lost
        from camseg_core.evaluation.report.robustness import write_robustness
        from camseg_core.evaluation.robustness import run_suite
        from camseg_core.evaluation.robustness_suite import SUITE, selected
        from camseg_core.progress import shown_progress
    suite = selected(options.only) if options.only else SUITE
    data = data_of(options)
    variants = [model_options(options)]
    if options.against is not None:
        variants.append(argparse.Namespace(**{**vars(variants[0]), "model": options.against}))
    contenders = {}
    identities = {}
    for name, variant in zip(
        titles([variant.model for variant in variants]), variants, strict=True
    ):
        contenders[name] = segmenter_of(variant)
        identities[name] = _identity(variant, contenders[name].provider, contenders[name].precision)
    about: dict[str, Any] = {
        "data": f"{options.data.resolve().name}/{data.split}",
        **{
            name: f"{segmenter.name}, {segmenter.precision} on {segmenter.provider}"
            for name, segmenter in contenders.items()
        },
        **{
            name: getattr(options, name)
            for name in ("sampler", "steps", "samples", "passes", "seed", "threads")
        },
    }

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
        about=about,
    )
    page = write_robustness(robustness, options.out)
    sys.stdout.write(
        "\n".join(
            [*table(robustness), f"report: {page} and {page.with_suffix('.json').name} beside it"]
        )
        + "\n"
    )


def titles(models: list[str]) -> list[str]:
    """Names for the models that differ: their folders', with so much of the path as they need for that."""
    paths = [Path(model).parts for model in models]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{model} ({number})" for number, model in enumerate(models, start=1)]


def _identity(variant: argparse.Namespace, provider: str, precision: str) -> str:
    """A text that changes when the model would give other masks: its options, and the content of its folder."""
    folder, digest = checkpoint_folder(variant.model), hashlib.sha256()
    for path in sorted(
        [folder / "config.json", folder / "labels.json", *(folder / "onnx" / precision).glob("*")]
    ):
        with path.open("rb") as file:
            digest.update(path.name.encode())
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    chosen = {
        key: value
        for key, value in vars(variant).items()
        if key not in ("model", "provider", "precision", "engine_cache")
    }
    return json.dumps(
        {**chosen, "provider": provider, "precision": precision, "files": digest.hexdigest()},
        sort_keys=True,
        default=str,
    )


def table(robustness: "Robustness") -> list[str]:
    """What is kept, of every series by level, as lines of text: AP and mean IoU of each contender, in per cent."""
    lines = [
        f"{name}: {', '.join(_reference(robustness, reference, name) for reference in robustness.groups)}"
        for name in robustness.contenders
    ]
    lines += ["", "kept of the clean performance in %: AP/mean IoU by level"]
    return lines + [line for series in robustness.suite for line in _lines(robustness, series)]


def _reference(robustness: "Robustness", reference: Any, name: str) -> str:
    scores = robustness.scores[reference][name]
    return f"{reference.series} AP {scores.average_precision:.3f}, mean IoU {scores.mean_iou:.3f}"


def _lines(robustness: "Robustness", series: "Series") -> Iterator[str]:
    width, name_width = (
        max(map(len, names))
        for names in ([each.key for each in robustness.suite], robustness.contenders)
    )
    for number, name in enumerate(robustness.contenders):
        kept = [
            f"{condition.level:g}: {_percent(scores.kept_precision)}/{_percent(scores.kept_iou)}"
            for condition in series.conditions()
            for scores in [robustness.scores[condition][name]]
        ]
        whose = f"  {name:<{name_width}}" if len(robustness.contenders) > 1 else ""
        yield f"{series.key if number == 0 else '':<{width}}{whose}  {'  '.join(kept)}"


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.0f}"
