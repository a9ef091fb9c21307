"""What the benchmarks that write into a document share: how they end, the sections between markers, and what the figures are of."""

import argparse
import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.errors import CamSegError, ConfigError

COLUMNS = 120
"""Width of a document's lines."""


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: its `table` in Markdown, the paragraphs below it in the document, and all figures for JSON.

    `failures` say what is not as it must be, if anything.
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
    arguments: argparse.Namespace, name: str, measure: Callable[[argparse.Namespace], Outcome]
) -> None:
    """Measure, print the table, write it into the document's section `name` and print JSON where asked to; an error is one line.

    Exits with 1 after an error, and where the outcome has failures: each is a line on stderr.
    """
    try:
        outcome = measure(arguments)
        print(f"\n{outcome.table}")
        if arguments.write:
            write_section(arguments.write, name, "\n\n".join([outcome.table, *outcome.below]))
    except CamSegError as error:
        sys.exit(str(error))
    for failure in outcome.failures:
        sys.stderr.write(f"failed: {failure}\n")
    if arguments.json:
        print(json.dumps(outcome.figures))
    if outcome.failures:
        sys.exit(1)


def write_section(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->` in the document.

    Lines longer than `COLUMNS` are wrapped, except in tables.

    Raises:
        ConfigError: the document lacks these markers.
    """
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    content = document.read_text(encoding="utf-8")
    before, begin, rest = content.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ConfigError(f"{document} has no section between {opening} and {closing}")
    text = "\n".join(map(_wrapped, text.splitlines()))
    document.write_text(f"{before}{opening}\n{text}\n{closing}{after}", encoding="utf-8")


def _wrapped(line: str) -> str:
    """A line of Markdown in lines of at most `COLUMNS`; an indented command goes on after backslashes."""
    if len(line) <= COLUMNS or line.startswith(("|", "!")):
        return line
    command = line.startswith("    ")
    parts = textwrap.wrap(
        line.strip(), COLUMNS - 10 * command, break_long_words=False, break_on_hyphens=False
    )
    return "    " + " \\\n        ".join(parts) if command else "\n".join(parts)


def picture(arguments: argparse.Namespace, text: str) -> str:
    """The picture `--plot` as Markdown, seen from the document that is written (or from here); `text` says what it shows."""
    return f"![{text}]({os.path.relpath(arguments.plot, arguments.write.parent if arguments.write else '.')})"


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}"


def current_commit(*paths: str) -> str:
    """The checked-out commit, and whether anything under `paths` of the repository differs from it; "unknown" where git cannot tell."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--", *paths) else ""
        )
    except (
        OSError,
        subprocess.CalledProcessError,
    ):  # an export without git; what was measured is not to be lost for that
        return "unknown"
