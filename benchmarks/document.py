"""Shared by benchmarks that write into a document: output, sections between markers, provenance."""

import argparse
import functools
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.long_runs import atomic_write
from camseg_core.weights import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
"""The repository."""

COLUMNS = 120
"""Width of a document's lines."""


@dataclass(frozen=True)
class Outcome:
    """The result of a benchmark.

    Attributes:
        table: Markdown.
        below: paragraphs that follow the table in the document.
        figures: everything, for JSON.
        failures: one text for each requirement that was not met.
    """

    table: str
    below: list[str]
    figures: Any
    failures: Sequence[str] = ()


def add_document_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `conclude` reads."""
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DOCUMENT",
        help="replace the section of this document, between its markers",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the figures as JSON on the last line"
    )


def conclude(
    parser: argparse.ArgumentParser,
    name: str,
    measure: Callable[[argparse.Namespace], Outcome],
    code: Sequence[str] = ("camseg_core", "benchmarks"),
    given: Sequence[str] | None = None,
) -> None:
    """Measure, print table and JSON, and write the table into the document's section `name`.

    An error, or each failure of the outcome, is one line on stderr; the exit code is then 1.
    Before the work, the document is checked, and command and commit are noted for `provenance`:
    what is committed during the work did not run.

    Args:
        parser: of the command line, with the options of `add_document_options`.
        name: of the section; with `_` for `-`, of the script.
        measure: does the work with the parsed options.
        code: the folders that decide the result.
        given: the command line, for tests.
    """
    arguments = parser.parse_args(given)
    try:
        if arguments.write:
            _section(arguments.write, name)
        arguments.command = command_of(name, parser, arguments)
        arguments.commit = current_commit(*code)
        outcome = measure(arguments)
        print(f"\n{outcome.table}")
        for failure in outcome.failures:
            sys.stderr.write(f"failed: {failure}\n")
        if arguments.json:
            print(json.dumps(outcome.figures))
        if arguments.write:
            write_section(arguments.write, name, "\n\n".join([outcome.table, *outcome.below]))
    except CamSegError as error:
        sys.exit(str(error))
    if outcome.failures:
        sys.exit(1)


def write_or_print(sections: Mapping[str, str], document: Path | None) -> None:
    """Replace these sections of a document, or print them without one."""
    for name, text in sections.items():
        if document:
            write_section(document, name, text)
        else:
            print(f"## {name}\n\n{text}\n")


def write_section(document: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- name: begin -->` and `<!-- name: end -->` in the document.

    Lines longer than `COLUMNS` are wrapped, except in tables.

    Raises:
        ConfigError: the document cannot be used or lacks these markers, or its section has a table
            and `text` has none.
    """
    before, section, after = _section(document, name)
    if _has_table(section) and not _has_table(text):
        raise ConfigError(
            f"the section {name} of {document} must keep a table, but there is no result to make "
            "one of; if it is to go, remove it there first"
        )
    text = "\n".join(map(_wrapped, text.splitlines()))
    with atomic_write(document) as temporary:
        temporary.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")


def _section(document: Path, name: str) -> tuple[str, str, str]:
    """Return what is before, in and after a section; its markers are with what is around it."""
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    try:
        content = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--write must name a document, got {document}: {error}") from error
    before, begin, rest = content.partition(opening)
    section, end, after = rest.partition(closing)
    if not begin or not end:
        raise ConfigError(f"{document} has no section between {opening} and {closing}")
    return before + opening, section, closing + after


def _has_table(text: str) -> bool:
    return any(line.startswith("| ---") for line in text.splitlines())


def _wrapped(line: str) -> str:
    """Wrap a line of Markdown at `COLUMNS`; an indented command continues after backslashes."""
    if len(line) <= COLUMNS or line.startswith(("|", "!")):
        return line
    command = line.startswith("    ")
    parts = textwrap.wrap(
        line.strip(), COLUMNS - 10 * command, break_long_words=False, break_on_hyphens=False
    )
    return "    " + " \\\n        ".join(parts) if command else "\n".join(parts)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table in Markdown."""
    lines: list[Sequence[object]] = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


WORKING = ("help", "json", "list", "only", "run", "results", "workers")
"""Options that do not decide a result, and are no part of the command under it."""


def command_of(name: str, parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """Return the command that was run: the script of the section `name`, and what is not default.

    The placeholder of an option, such as `<data>`, stands for its value, and for a path elsewhere.
    """
    words = ["python", f"benchmarks/{name.replace('-', '_')}.py"]
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        if action.dest in WORKING or value in (None, action.default):
            continue
        flag = action.option_strings[-1]
        if isinstance(action.metavar, str) and action.metavar.startswith("<"):
            words += [flag, action.metavar]
        elif isinstance(action, argparse._AppendAction):
            words += [word for each in value for word in (flag, _shown(each, action.dest))]
        elif action.nargs == 0:
            words.append(flag)
        else:
            values = value if isinstance(value, list) else [value]
            words += [flag, *(_shown(each, action.dest) for each in values)]
    return " ".join(words)


def _shown(value: object, name: str) -> str:
    if isinstance(value, tuple):  # a size
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    if os.path.isabs(text):
        if not Path(text).is_relative_to(ROOT):
            return f"<{name}>"
        text = str(Path(text).relative_to(ROOT))
    return shlex.quote(text)


def provenance(arguments: argparse.Namespace, note: str = "", on: str = "") -> list[str]:
    """The command that was run, as an indented line, and after `note` the machine and the commit.

    Those that `conclude` noted before the work; `on` replaces the machine in words.
    """
    return [f"    {arguments.command}", f"{note}{on or machine()}; commit {arguments.commit}."]


def camvid_parser(description: str, required: bool = True) -> argparse.ArgumentParser:
    """A parser with `--data` for CamVid, `--model`, and those of `add_document_options`."""
    parser = argparse.ArgumentParser(description=description)
    help_text = "CamVid root with val/images and val/labels"
    parser.add_argument(
        "--data", type=Path, required=required, metavar="<CamVid root>", help=help_text
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    add_document_options(parser)
    return parser


def log_training() -> None:
    """Show what a training logs."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("camseg_core").setLevel(logging.INFO)


def pyplot(font_size: int = 13) -> Any:
    """Import matplotlib.pyplot without a display, in the documents' style."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"font.size": font_size, "axes.spines.top": False, "axes.spines.right": False}
    )
    return plt


def picture(arguments: argparse.Namespace, text: str) -> str:
    """The image `--plot` as Markdown, relative to the document; `text` is its description."""
    folder = arguments.write.parent if arguments.write else "."
    return f"![{text}]({os.path.relpath(arguments.plot, folder)})"


def machine() -> str:
    """The machine in words, such as "2 cores, x86_64"."""
    return f"{os.cpu_count()} cores, {platform.machine()}"


def machine_and_torch() -> str:
    """The machine in words, and torch's version."""
    import torch

    return f"{machine()}, torch {torch.__version__.partition('+')[0]}"


@functools.cache
def current_commit(*paths: str) -> str:
    """The commit, with a note if anything under `paths` differs; "unknown" without git.

    Asked first at the start of the work: later answers are the same, as the code that runs is.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--", *paths) else ""
        )
    except (OSError, subprocess.CalledProcessError):  # an export without git
        return "unknown"
