"""The argument parser of all commands: shows defaults, refuses options given twice, gives hints."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from camseg_core.cli.console import printable

OTHER_COMMANDS = "camseg.commands"
"""The group of entry points with which other packages, such as the ROS one, add commands."""


def as_phrase(sentence: str) -> str:
    """Return a sentence as help shows it: without capital and full stop; abbreviations stay."""
    start = sentence[:2] if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:2]
    return start + sentence[2:].rstrip(".")


class Help(argparse.HelpFormatter):
    """Adds the default to the help of every option that has one and does not state it itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        unset = action.default in (None, argparse.SUPPRESS)
        unset = unset or isinstance(action.default, bool | list | tuple)
        if not action.option_strings or unset or "default" in text:
            return action.help
        return f"{text} (default: %(default)s)".lstrip()


class LayoutHelp(Help, argparse.RawDescriptionHelpFormatter):
    """`Help` that keeps the line breaks of the description and the epilog."""


class Once(argparse._StoreAction):
    """Stores an option's value; a second, different value is an error."""

    _first: tuple[argparse.Namespace, Any] | None = None

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        first = self._first
        if option_string and first is not None and first[0] is namespace and first[1] != values:
            parser.error(
                f"argument {option_string}: given twice, with {first[1]} and {values}; it takes one"
            )
        self._first = namespace, values
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """A command's parser; its sub-commands have the same type.

    An unknown option is reported with the usage of its own command, not of the parent command.
    With `once`, an option that takes one value cannot be given two.
    """

    once = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**({"formatter_class": Help} | settings))
        if self.once:
            self.register("action", None, Once)
            self.register("action", "store", Once)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; exit with 2 if anything is left over."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            known = [text for action in self._actions for text in action.option_strings]
            hint = _nearest(left[0].partition("=")[0], known)
            self.error(f"unrecognized arguments: {' '.join(left)}{hint}")
        return found, left

    def error(self, message: str) -> NoReturn:
        """Print usage and message, suggesting the nearest valid choice; exit with 2."""
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        hint = _nearest(choice[1], re.findall(r"[^', ]+", choice[2])) if choice else ""
        super().error(printable(message + hint))


def _nearest(text: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
