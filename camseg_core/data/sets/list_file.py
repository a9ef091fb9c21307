"""A set of one's own as a text file: an image and its label a line, as paths from the file's own folder.

A path with spaces stands in quotes; what follows a # is a comment. ROOT is the file, whose split is `all`, or a folder with a file
`SPLIT.txt` for every split. Labels hold Cityscapes train ids, or what `mapping.yaml` beside the file says.
"""

import shlex
from collections import Counter
from pathlib import Path

from camseg_core.data.file_set import FileSet, Pair, what_is_there
from camseg_core.data.sets.folder import MAPPING
from camseg_core.data.sets.mapping import labels_and_decoder
from camseg_core.errors import DataError

TITLE = "a list of images and labels"

ALL = "all"


def scan(root: Path, split: str, mapping: Path | None = None) -> FileSet:
    """The files of a split; `mapping` says what the labels hold.

    Raises:
        DataError: the list cannot be read, is empty, or has a line that is not two paths.
        ConfigError: the mapping cannot be used.
    """
    path = root / f"{split}.txt" if root.is_dir() else root
    if not path.is_file():
        raise DataError(
            f"no split {split!r} in {root}, {what_is_there(root)}: {path} is missing; expected lines of IMAGE LABEL in it"
        )
    if path == root and split != ALL:
        raise DataError(
            f"no split {split!r} in {root}: a list is one split, {ALL!r}; for several, name a folder with a SPLIT.txt for each"
        )
    pairs = _read(path)
    if not pairs:
        raise DataError(f"{path} lists nothing: expected lines of IMAGE LABEL")
    return FileSet(
        tuple(pair for pair in pairs if pair.label.is_file()),
        tuple(pair for pair in pairs if not pair.label.is_file()),
        (),
        *labels_and_decoder(mapping, path.parent / MAPPING),
        rule=f"{path} lists it",
        problems=_twice(pairs, path),
    )


def splits(root: Path) -> tuple[str, ...]:
    """The splits that are there."""
    if not root.is_dir():
        return (ALL,)
    return tuple(split for split in ("train", "val", "test") if (root / f"{split}.txt").is_file())


def detect(root: Path) -> bool:
    """Whether `root` is such a file; a folder may hold lists for another reason."""
    return root.is_file() and root.suffix.lower() in (".txt", ".lst")


def _read(path: Path) -> list[Pair]:
    pairs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; expected IMAGE LABEL") from error
        if not words:
            continue
        if len(words) != 2:
            raise DataError(
                f"{path}, line {number} has {len(words)} words: expected IMAGE LABEL; put a path with spaces in quotes"
            )
        image, label = (path.parent / word for word in words)
        pairs.append(Pair(image, label, Path(words[0]).with_suffix("").as_posix().lstrip("./")))
    return pairs


def _twice(pairs: list[Pair], path: Path) -> tuple[str, ...]:
    counts = Counter(pair.image for pair in pairs)
    return tuple(
        f"{path} lists {image} {count} times" for image, count in counts.items() if count > 1
    )
