"""What commands share: types of options, and the options that choose a model."""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from camseg_core.data.sets.kind import NONE, OwnLabels
from camseg_core.data.sets.registry import AUTO as BY_LAYOUT
from camseg_core.data.sets.registry import SETS, LabelledSet, open_set
from camseg_core.diffusion.sampling import OPTIONS
from camseg_core.errors import ConfigError
from camseg_core.runtime.graphs import AUTO, PRECISIONS
from camseg_core.runtime.providers import PROVIDERS, provider_list
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import DEFAULT_MODEL, bundled_models


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number >= `least`."""

    def whole(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {least}, got {text!r}")
        return int(text)

    return whole


def number(least: float, most: float | None = None) -> Callable[[str], float]:
    """An argparse type: a finite number >= `least`, and <= `most` if given."""
    wanted = f">= {least:g}" if most is None else f"from {least:g} to {most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= (math.inf if most is None else most)):
            raise argparse.ArgumentTypeError(f"must be a number {wanted}, got {text!r}")
        return value

    return parse


share = number(0, 1)
"""An argparse type: a number from 0 to 1."""

not_negative = number(0)
"""An argparse type: a number >= 0."""


def providers(text: str) -> tuple[str, ...]:
    """An argparse type: providers in the order to try them, with commas between."""
    try:
        return provider_list(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, `--split` and those of `add_dataset_options`: the labelled frames of a command that judges a model by them."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="ROOT",
        help="root of a labelled data set, such as CamVid or Cityscapes",
    )
    add_split_option(parser)
    add_dataset_options(parser)


def add_split_option(parser: argparse.ArgumentParser) -> None:
    """Add `--split`; without it the set's own choice is taken."""
    parser.add_argument(
        "--split",
        help="of the data set; several with + between (default: val, or all where a set has no splits)",
    )


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that, beside `--data` and `--split`, `data_of` reads: what kind of set it is, and what its labels are."""
    parser.add_argument(
        "--dataset",
        metavar="KIND",
        default=BY_LAYOUT,
        help=f"{', '.join(SETS)}, or {BY_LAYOUT}: by its layout, see camseg data list (default: %(default)s)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help="for folder: where the labels are, if not in ROOT/labels",
    )
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE",
        help="for folder and list: YAML that says what the labels hold",
    )


def own_labels_of(options: argparse.Namespace) -> OwnLabels:
    """What `--labels` and `--mapping` say."""
    return OwnLabels(options.labels, options.mapping) if options.labels or options.mapping else NONE


def data_of(options: argparse.Namespace, split: str | None = None) -> LabelledSet:
    """The split that the options ask for, or `split`.

    Raises:
        ConfigError: there is no such kind of set, or its mapping cannot be used.
        DataError: see `open_set`.
    """
    with packages_for("a mapping of labels", "evaluate"):
        return open_set(
            options.dataset, options.data, split or options.split, own_labels_of(options)
        )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `segmenter_of` reads: which model, on what, and how it samples."""
    model = parser.add_argument_group("model")
    add_model_option(model)
    model.add_argument(
        "--provider",
        type=providers,
        metavar="LIST",
        default="cpu",
        help=f"what computes: one of {', '.join(PROVIDERS)}, or several to try in turn, as in tensorrt,cuda,cpu (default: %(default)s)",
    )
    model.add_argument(
        "--precision",
        choices=[AUTO, *PRECISIONS],
        default=AUTO,
        help="what it computes in; auto: the best (default: %(default)s)",
    )
    model.add_argument(
        "--threads",
        type=at_least(0),
        default=0,
        help="CPU threads; 0 = all cores (default: %(default)s)",
    )
    add_sampling_options(model)
    model.add_argument(
        "--engine-cache",
        type=Path,
        metavar="FOLDER",
        help="where TensorRT keeps the engines that it builds",
    )


def add_sampling_options(
    parser: argparse._ActionsContainer, names: Sequence[str] | None = None
) -> None:
    """Add an option for each of the sampling options, or for those of these names alone."""
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
        help_text = f"{option.help[0].lower()}{option.help[1:].rstrip('.')} (default: {default})"
        parser.add_argument(f"--{option.name}", help=help_text, **settings)


def add_model_option(parser: argparse._ActionsContainer) -> None:
    """Add `--model` alone."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a checkpoint folder or one of {', '.join(bundled_models())} (default: %(default)s)",
    )


def segmenter_of(options: argparse.Namespace) -> Segmenter:
    """The model that the options of `add_model_options` ask for.

    Raises:
        ModelError: the folder is missing, incomplete or damaged, or has no graphs in this precision.
        ConfigError: no provider of the list can be used, or the number of steps does not fit the model's schedule.
    """
    return Segmenter.from_pretrained(
        options.model,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        engine_cache=options.engine_cache,
        **{option.name: getattr(options, option.name) for option in OPTIONS},
    )


def model_options(options: argparse.Namespace) -> argparse.Namespace:
    """Of all options, those of `add_model_options` alone."""
    return argparse.Namespace(
        **{action.dest: getattr(options, action.dest) for action in _parser()._actions}
    )


def with_changes(options: argparse.Namespace, changes: Sequence[str]) -> argparse.Namespace:
    """The model options, but for the `changes`: each is `KEY=VALUE`, KEY being an option of `add_model_options` without its dashes.

    Raises:
        ConfigError: a change is not of this form, its key is unknown or its value does not fit; the message lists what does.
    """
    parser, changed = _parser(), model_options(options)
    keys = [action.option_strings[-1].removeprefix("--") for action in parser._actions]
    for change in changes:
        key, equals, value = change.partition("=")
        key = key.replace("_", "-")
        if not equals or key not in keys:
            raise ConfigError(
                f"--against {change}: it is KEY=VALUE, with KEY one of {', '.join(keys)}"
            )
        try:
            parser.parse_args([f"--{key}={value}"], changed)
        except ConfigError as error:
            raise ConfigError(f"--against {change}: {error}") from error
    return changed


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_model_options(parser)
    return parser


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.partition(": ")[2] or message)  # without "argument --KEY: "


@contextmanager
def packages_for(task: str, extra: str) -> Iterator[None]:
    """For the imports of what `task` needs, which the project's `extra` brings.

    Raises:
        ConfigError: a package is not installed; the message says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "camseg_core"):
            raise
        raise ConfigError(
            f"{task} needs {package}, which is not installed: pip install '.[{extra}]' in the project's folder"
        ) from error
