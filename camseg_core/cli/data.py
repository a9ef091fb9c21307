"""`camseg data`: list the kinds of data sets, and check one."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from camseg_core.cli.console import print_lines
from camseg_core.cli.options import add_dataset_options, at_least, own_labels_of, packages_for
from camseg_core.data.check import (
    Finding,
    Problem,
    SplitCheck,
    check_split,
    with_shared_frames,
)
from camseg_core.data.contact_sheet import ContactSheet
from camseg_core.data.file_set import Pair, joined_labels
from camseg_core.data.image_files import write_image
from camseg_core.data.sets import SETS, kind_of
from camseg_core.data.sets.kind import SetKind
from camseg_core.errors import ConfigError, DataError, absent
from camseg_core.groups import distinguished
from camseg_core.long_runs import writable_file

FINDINGS_SHOWN = 3
"""Findings of each kind in the text; `--json` has all."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands and their options."""
    parser.description = "List the kinds of labelled data sets, or check one."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the kinds of data sets and their layouts")
    listing.set_defaults(run=_list)
    check = commands.add_parser("check", help="report everything that is wrong with a data set")
    check.description = (
        "Read every file of a data set; report what it contains and what is wrong: images without "
        "label, labels without image, files that cannot be read, sizes that differ, ids or colours "
        "that the set does not have, frames in two splits. Writes a contact sheet of images and "
        "labels. The exit code is 1 if something is wrong."
    )
    check.add_argument("data", type=Path, metavar="ROOT", help="the data set's root")
    check.add_argument(
        "--split",
        action="append",
        help="split to check; repeatable (default: all with labels)",
    )
    add_dataset_options(check)
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    check.add_argument(
        "--sheet",
        type=Path,
        default=Path("out/data/contact-sheet.png"),
        metavar="PICTURE",
        help="where to write the contact sheet; ends in .png or .jpg",
    )
    check.add_argument(
        "--sheet-frames",
        type=at_least(1),
        default=8,
        metavar="N",
        help="frames of each split on the sheet",
    )
    check.set_defaults(run=_check, kept="no contact sheet was written")


def _list(options: argparse.Namespace) -> None:
    lines = []
    for name, kind in SETS.items():
        named = ", ".join(kind.named_splits)
        splits = f"splits {named}" if named else "splits as found"
        lines.append(f"{name}: {kind.title}; {len(kind.labels)} classes, {splits}")
        lines += [f"    {line}" for line in kind.layout]
    print_lines(*lines, "Paths start at ROOT.")


def _check(options: argparse.Namespace) -> None:
    with packages_for("a data check", "evaluate"):
        from camseg_core.long_runs import shown_progress
    own, root = own_labels_of(options), options.data
    if not root.exists():
        raise DataError(f"there must be a data set in {absent(root)}; name its folder or list file")
    writable_file(options.sheet, "--sheet")
    if options.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--sheet must end in .png or .jpg, got {options.sheet}")
    splits: Sequence[str] = options.split or ()
    with packages_for("a mapping of labels", "evaluate"):
        name = kind_of(options.dataset, root, own, splits[0] if splits else None)
    kind = SETS[name]
    splits = splits or kind.splits(root, own) or (kind.default_split(root, own),)
    sheet, checks = ContactSheet(options.sheet_frames), []
    for split in splits:
        try:
            with packages_for("a mapping of labels", "evaluate"):
                files = kind.files(root, split, own)
        except DataError as error:
            checks.append(SplitCheck(split, findings=(Finding(Problem.SPLIT, root, str(error)),)))
            continue
        count = sum(len(each.pairs) for each in files)
        read = (path for each in files for pair in each.pairs for path in (pair.image, pair.label))
        writable_file(options.sheet, "--sheet", read)

        def progress(pairs: Iterable[Pair], count: int = count) -> Iterator[Pair]:
            return shown_progress(pairs, count, "check")

        sheet.begin(split, distinguished(*joined_labels(files)), count)
        checks.append(check_split(split, files, progress, sheet.add))
    checks, outside = with_shared_frames(checks), []
    if not options.split:
        found = kind.left_out(root, own).items()
        outside = [Finding(Problem.LEFT_OUT, folder, text) for folder, text in found]
    written = _write(sheet, options.sheet)
    if options.json:
        content = _content(root, name, kind, checks, outside, written)
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    else:
        print_lines(*_text(root, name, kind, checks, outside, written))
    if outside or any(check.findings for check in checks):
        sys.exit(1)


def _write(sheet: ContactSheet, path: Path) -> Path | None:
    """Write the sheet; None without a frame to show."""
    picture = sheet.picture()
    if picture is None:
        return None
    write_image(path, picture)
    return path


def _content(
    root: Path,
    name: str,
    kind: SetKind,
    checks: Sequence[SplitCheck],
    outside: Sequence[Finding],
    sheet: Path | None,
) -> dict[str, Any]:
    return {
        "root": str(root),
        "kind": name,
        "title": kind.title,
        "ok": not outside and not any(check.findings for check in checks),
        "contact_sheet": None if sheet is None else str(sheet),
        "splits": [
            {
                "split": check.split,
                "frames": check.frames,
                "read": check.read,
                "sizes": {
                    f"{width}x{height}": count for (width, height), count in check.sizes.items()
                },
                "labelled": round(check.labelled, 6),
                "classes": [
                    {
                        "id": each.label.id,
                        "name": each.label.name,
                        "share": round(each.share, 6),
                        "frames": each.frames,
                    }
                    for each in check.classes
                ],
                "findings": _findings(check.findings),
            }
            for check in checks
        ],
        "findings": _findings(outside),
    }


def _findings(found: Sequence[Finding]) -> list[dict[str, str]]:
    return [
        {"problem": each.problem.value, "path": str(each.path), "text": each.text} for each in found
    ]


def _text(
    root: Path,
    name: str,
    kind: SetKind,
    checks: Sequence[SplitCheck],
    outside: Sequence[Finding],
    sheet: Path | None,
) -> list[str]:
    lines = [f"{root}: {kind.title} (--dataset {name})"]
    for check in checks:
        sizes = ", ".join(
            f"{width}x{height}" + (f" ({count})" if len(check.sizes) > 1 else "")
            for (width, height), count in check.sizes.items()
        )
        labelled = f", {100 * check.labelled:.1f} % of the pixels labelled" if check.read else ""
        lines.append(
            f"{check.split}: {_frames(check.frames)}{f', {sizes}' if sizes else ''}{labelled}"
        )
        width = max([14, *(len(each.label.name) for each in check.classes if each.frames)])
        lines += [
            f"  {each.label.name:<{width}} {100 * each.share:6.2f} %  in {_frames(each.frames)}"
            for each in check.classes
            if each.frames
        ]
        absent = [each.label.name for each in check.classes if not each.frames]
        lines += [f"  in no frame: {', '.join(absent)}"] if check.read and absent else []
        lines += [f"  {line}" for line in _finding_lines(check.findings)]
    lines += _finding_lines(outside)
    wrong = len(outside) + sum(len(check.findings) for check in checks)
    lines.append(f"contact sheet: {sheet}" if sheet else "no contact sheet: no frame could be read")
    lines.append("nothing is wrong" if not wrong else f"{wrong} finding{'' if wrong == 1 else 's'}")
    return lines


def _finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the first `FINDINGS_SHOWN` of each kind, and how many more there are."""
    for problem in Problem:
        found = [finding for finding in findings if finding.problem is problem]
        yield from (f"{problem.value}: {finding.text}" for finding in found[:FINDINGS_SHOWN])
        if len(found) > FINDINGS_SHOWN:
            yield f"{problem.value}: and {len(found) - FINDINGS_SHOWN} more, see --json"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
