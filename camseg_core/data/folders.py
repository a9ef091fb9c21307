"""What folders of data sets hold: files, folders below, and lists of names."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from camseg_core.errors import DataError, camseg_command


def real_path(path: Path) -> Path:
    """Return a path without links; unlike `Path.resolve`, also of a loop of links."""
    return Path(os.path.realpath(path))


def files_in(folder: Path, deep: bool = False) -> Iterator[Path]:
    """Yield what is in a folder; if `deep`, the files in it and in the visible folders below.

    Links to folders are followed. Nothing is yielded of what is no folder.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _below(folder, deep, ()) if folder.is_dir() else ()


def _below(folder: Path, deep: bool, above: tuple[Path, ...]) -> Iterator[Path]:
    real = real_path(folder)
    if real in above:  # a link to a folder that holds it
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    for entry in entries:
        if deep and entry.is_dir():
            if not entry.name.startswith("."):
                yield from _below(entry, deep, (*above, real))
        else:
            yield entry


def refuse_bag(path: Path) -> None:
    """Raise `DataError` if the path is a file of rosbag2 or a folder with one."""
    files = files_in(path) if path.is_dir() else [path]
    if any(each.suffix in (".mcap", ".db3") for each in files):
        raise DataError(
            f"{path} is a bag: use {camseg_command()} bag evaluate, or take its images out with "
            f"{camseg_command()} bag images"
        )


def folder_of(root: Path) -> Path:
    """Return the folder of a set whose root may be its only file."""
    return root if root.is_dir() else root.parent


def head_of(path: Path) -> bytes:
    """Return the first 64 KiB of a file, to recognise large ones; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(1 << 16)
    except OSError:
        return b""


def composed(name: str) -> str:
    """Return a name of files with letters with accents in one form of Unicode (NFC)."""
    return unicodedata.normalize("NFC", name)


def frame_name(path: Path) -> str:
    """Return the name of a frame by its image's path in a set; it stays below a folder."""
    parts = path.with_suffix("").parts
    return "/".join(each for each in parts if each not in (path.anchor, "..", "."))


def visible(paths: Iterable[Path], *endings: str) -> list[Path]:
    """Return the visible files with one of these endings, ignoring case, sorted."""
    lower = tuple(ending.lower() for ending in endings)
    found = [
        path
        for path in paths
        if path.name.lower().endswith(lower) and not path.name.startswith(".") and not path.is_dir()
    ]
    return sorted(found, key=lambda path: (path.parent, path.stem, path.name))


def subfolders(root: Path) -> list[str]:
    """Return the sorted names of the visible folders in `root`; none if it is not a folder."""
    if not root.is_dir():
        return []
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def no_split(split: str, root: Path, expected: str) -> DataError:
    """Return the error for a split that `root` lacks; it lists what is there instead."""
    there = "which is not a folder"
    if root.is_dir():
        there = f"which has {', '.join(subfolders(root)[:9]) or 'no folders'}"
    return DataError(f"no split {split!r} in {root}, {there}: {expected}")


def read_list(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without empty ones and a byte order mark.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def more(things: Sequence[object]) -> str:
    """Return " (and N more)" for a message that names the first of `things`; empty for one."""
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""
