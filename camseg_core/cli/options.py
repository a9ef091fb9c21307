"""Options that commands share: argument types, the data set, the model and its sampling."""

import argparse
import importlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from camseg_core.cli.console import how_to_install
from camseg_core.cli.parser import Parser, as_phrase
from camseg_core.data import spread_numbers
from camseg_core.data.sets import AUTO as BY_LAYOUT
from camseg_core.data.sets import SETS, LabelledSet, open_set
from camseg_core.data.sets.kind import NONE, OwnLabels
from camseg_core.diffusion.sampling import OPTIONS, Sampling
from camseg_core.errors import ConfigError
from camseg_core.groups import ScoredLabels
from camseg_core.long_runs import shown_progress
from camseg_core.runtime.engine import ASKED_PRECISIONS, AUTO
from camseg_core.runtime.providers import PROVIDERS, compiles, provider_list
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import DEFAULT_MODEL, bundled_models

logger = logging.getLogger(__name__)


MOST_THREADS = 1024
"""The most that `--threads` takes: engines fail on larger numbers with errors of their own."""


def at_least(least: int, most: int = sys.maxsize) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`; no iterator counts beyond that."""
    wanted = f">= {least}" if most == sys.maxsize else f"from {least} to {most}"

    def whole(text: str) -> int:
        try:
            value = int(text) if text.removeprefix("-").isdecimal() else least - 1
        except ValueError:  # more digits than Python converts
            value = least - 1
        if not least <= value <= most:
            beyond = f" and <= {most}" * (value > most == sys.maxsize)
            raise argparse.ArgumentTypeError(
                f"must be a whole number {wanted}{beyond}, got {text!r}"
            )
        return value

    return whole


def number(
    least: float, most: float | None = None, *, above: bool = False
) -> Callable[[str], float]:
    """An argparse type: a finite number >= `least`, or > if `above`, and <= `most` if given."""
    wanted = f"> {least:g}" if above else f">= {least:g}"
    if most is not None:
        wanted = f"{wanted} and <= {most:g}" if above else f"from {least:g} to {most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = least < value if above else least <= value
        if not (math.isfinite(value) and inside and (most is None or value <= most)):
            raise argparse.ArgumentTypeError(f"must be a number {wanted}, got {text!r}")
        return value

    return parse


share = number(0, 1)
"""An argparse type: a number from 0 to 1."""

not_negative = number(0)
"""An argparse type: a number >= 0."""


def providers(text: str) -> tuple[str, ...]:
    """An argparse type: providers in the order to try them, separated by commas."""
    try:
        return provider_list(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_data_options(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Add the options that name labelled frames to score a model on; `data_of` reads them."""
    parser.add_argument(
        "--data",
        type=Path,
        required=required,
        metavar="ROOT",
        help="root of a labelled data set, such as CamVid or Cityscapes",
    )
    add_split_option(parser)
    add_dataset_options(parser)
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="score over the classes and groups of this mapping file, such as "
        "config/data/camvid.yaml, or over the classes of a labels.yaml, instead of the data set's",
    )


def require_with(
    needed: str, given: bool, options: argparse.Namespace, names: Sequence[str]
) -> None:
    """Refuse options that would have no effect, as another is not given.

    Args:
        needed: the other option, for the message.
        given: whether it is given.
        options: parsed options.
        names: of the options that need it; those that are not given are empty, 0, False or None.

    Raises:
        ConfigError: some of `names` are given, but `needed` is not.
    """
    without = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if without and not given:
        raise ConfigError(f"{' and '.join(without)} must come with {needed}")


def add_split_option(parser: argparse._ActionsContainer) -> None:
    """Add `--split`; without it, the data set's default applies."""
    parser.add_argument(
        "--split",
        help="split, or several joined with + (default: val, else the only one that is not train, "
        "or all frames if there are no splits)",
    )


def add_dataset_options(
    parser: argparse._ActionsContainer, default: str | None = BY_LAYOUT
) -> None:
    """Add the options on the kind of a data set and its labels."""
    parser.add_argument(
        "--dataset",
        metavar="KIND",
        default=default,
        help=f"{', '.join(SETS)}, or {BY_LAYOUT} to recognise the layout; see camseg data list"
        + ("" if default else " (default: that of the configuration)"),
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help="for your own sets: the folder of labels or annotations (default: ROOT/labels)",
    )
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="for your own sets: YAML file that maps label values or names to classes",
    )


def own_labels_of(options: argparse.Namespace) -> OwnLabels:
    """Return the labels that `--labels` and `--mapping` describe."""
    return OwnLabels(options.labels, options.mapping) if options.labels or options.mapping else NONE


def data_of(options: argparse.Namespace, split: str | None = None) -> LabelledSet:
    """Return the data set's split: `split`, or the one named by the options.

    Raises:
        ConfigError: the kind of data set is unknown, or its mapping cannot be used.
        DataError: see `open_set`.
    """
    with packages_for("a mapping of labels", "evaluate"):
        return open_set(
            options.dataset, options.data, split or options.split, own_labels_of(options)
        )


def check_frames(
    options: argparse.Namespace, data: LabelledSet, scored: ScoredLabels, spread_out: bool = True
) -> None:
    """Look at all files of the frames to score over `scored`.

    These are `options.frames`, evenly spread if `spread_out`, else the first.

    Raises:
        DataError: see `LabelledSet.check`.
    """
    total, most = len(data.samples), options.frames
    numbers = spread_numbers(total, most) if spread_out else range(min(total, most or total))
    shown = shown_progress(numbers, len(numbers), "look at files")
    data.check(shown if sys.stderr.isatty() else numbers, scored)


def add_strict_option(parser: argparse.ArgumentParser) -> None:
    """Add `--strict`, for commands that otherwise leave out pictures they cannot read."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at the first image that cannot be read, or at a video's missing end (default: "
        "leave it out, name it, and exit with 1 at the end)",
    )


def add_model_options(parser: argparse.ArgumentParser, choose: bool = True) -> None:
    """Add the options that `segmenter_of` reads: `--model` (if `choose`), provider, sampling."""
    model = parser.add_argument_group("model")
    if choose:
        add_model_option(model)
    model.add_argument(
        "--provider",
        type=providers,
        default=AUTO,
        metavar="LIST",
        help=f"where the model runs: {', '.join(PROVIDERS)}, or several to try in turn, such as "
        "tensorrt,cuda,cpu; auto: the fastest that is installed",
    )
    model.add_argument(
        "--precision",
        choices=list(ASKED_PRECISIONS),
        default=AUTO,
        help="precision of the model; auto: the fastest for the provider",
    )
    help_text = f"CPU threads, up to {MOST_THREADS}; 0 = all cores"
    model.add_argument("--threads", type=at_least(0, MOST_THREADS), default=0, help=help_text)
    add_sampling_options(model)
    model.add_argument(
        "--engine-cache",
        type=Path,
        metavar="FOLDER",
        help="cache folder for what OpenVINO and TensorRT compile, for a quick next start",
    )


def add_sampling_options(
    parser: argparse._ActionsContainer, names: Sequence[str] | None = None
) -> None:
    """Add an option for every sampling option, or only for those in `names`."""
    for option in OPTIONS:
        if names is not None and option.name not in names:
            continue
        settings: dict[str, Any] = {"default": option.default}
        if option.choices:
            settings["choices"] = list(option.choices)
        elif option.kind is int:
            settings["type"] = at_least(int(option.minimum or 0))
        else:
            settings |= {"type": number(option.minimum or 0, option.maximum), "metavar": "X"}
        default = "the model's own" if option.default is None else "%(default)s"
        help_text = f"{as_phrase(option.help)} (default: {default})"
        parser.add_argument(f"--{option.name}", help=help_text, **settings)


def add_model_option(parser: argparse._ActionsContainer) -> None:
    """Add `--model` alone."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a checkpoint folder, or the name of a bundled model: {', '.join(bundled_models())}",
    )


def segmenter_of(options: argparse.Namespace) -> Segmenter:
    """Load the model that the options of `add_model_options` describe.

    Raises:
        ModelError: the folder is missing, incomplete or damaged, or lacks graphs in this precision.
        ConfigError: no listed provider can be used, or the steps do not fit the model's schedule.
    """
    sampling = {option.name: getattr(options, option.name) for option in OPTIONS}
    for name, why in Sampling(**sampling).without_effect.items():
        logger.warning("--%s %s has no effect: %s", name, sampling[name], why)
    if options.engine_cache is not None and not compiles(options.provider):
        logger.warning("--engine-cache has no effect: only openvino and tensorrt compile")
    return Segmenter.from_pretrained(
        options.model,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        engine_cache=options.engine_cache,
        **sampling,
    )


def sampling_facts(options: argparse.Namespace) -> dict[str, str | float]:
    """Return how masks are drawn and on how many threads, to store with the scores of a run."""
    chosen = {option.name: getattr(options, option.name) for option in OPTIONS}
    own = {name: "the model's own" for name, value in chosen.items() if value is None}
    return {**chosen, **own, "threads": options.threads}


def model_options(options: argparse.Namespace) -> argparse.Namespace:
    """Return only the options of `add_model_options`."""
    return argparse.Namespace(
        **{action.dest: getattr(options, action.dest) for action in model_parser()._actions}
    )


def model_parser() -> argparse.ArgumentParser:
    """Return a parser of the options of `add_model_options`, which raises `ConfigError`."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_model_options(parser)
    return parser


class _Parser(Parser):
    """Raises `ConfigError` where argparse would exit."""

    once = False

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.partition(": ")[2] or message)  # without "argument --KEY: "


@contextmanager
def packages_for(task: str, extra: str, *modules: str) -> Iterator[None]:
    """Turn a failed import into an error that says how to install the package.

    Args:
        task: what needs the imports, for the message.
        extra: the project's extra that installs them.
        modules: imported at once, because the work would only import them when it needs them.

    Raises:
        ConfigError: a package is not installed.
    """
    try:
        for module in modules:
            importlib.import_module(module)
        yield
    except ImportError as error:
        if (error.name or "camseg_core").partition(".")[0] in ("camseg_core", "camseg_ros"):
            raise
        raise ConfigError(how_to_install(task, error, extra)) from error
