"""Two sets of model options for a comparison: the ones of the command line, and the same with some changed."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from camseg_core.commands.options import add_model_options
from camseg_core.errors import ConfigError


def model_options(options: argparse.Namespace) -> argparse.Namespace:
    """Of all options, those of `add_model_options` alone."""
    return argparse.Namespace(**{action.dest: getattr(options, action.dest) for action in _parser()._actions})


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
            raise ConfigError(f"--against {change}: it is KEY=VALUE, with KEY one of {', '.join(keys)}")
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
