"""Shared by benchmarks that write into a document: output, sections between markers, provenance."""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.weights import DEFAULT_MODEL

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
    arguments: argparse.Namespace, name: str, measure: Callable[[argparse.Namespace], Outcome]
) -> None:
    """Measure, print the table, write it into the document's section `name`, and print JSON.

    An error, or each failure of the outcome, is one line on stderr; the exit code is then 1.
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


def documented(script: str, options: str, document: Path | None) -> str:
    """Return a benchmark's command as an indented line, which writes into the document if any."""
    written = f" --write {document}" if document else ""
    return f"    python benchmarks/{script}.py {options}".rstrip() + written


def provenance(
    arguments: argparse.Namespace, script: str, options: str, paths: Sequence[str], note: str = ""
) -> list[str]:
    """The command that was run, and after `note` the machine and the commit of `paths`."""
    command = documented(script, options, arguments.write)
    return [command, f"{note}{machine()}; commit {current_commit(*paths)}."]


def camvid_parser(description: str, required: bool = True) -> argparse.ArgumentParser:
    """A parser with `--data` for CamVid, `--model`, and those of `add_document_options`."""
    parser = argparse.ArgumentParser(description=description)
    help_text = "CamVid root with val/images and val/labels"
    parser.add_argument("--data", type=Path, required=required, help=help_text)
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


def current_commit(*paths: str) -> str:
    """The commit, with a note if anything under `paths` differs; "unknown" without git."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--", *paths) else ""
        )
    except (OSError, subprocess.CalledProcessError):  # an export without git
        return "unknown"
