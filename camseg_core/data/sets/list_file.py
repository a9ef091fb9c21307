"""Sets whose images and labels a text file lists."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from camseg_core.data.file_set import FileSet, Found, Pair
from camseg_core.data.folders import frame_name, no_split
from camseg_core.data.label_table import LABEL_TABLE
from camseg_core.data.mapping import MAPPING, meaning
from camseg_core.data.sets.kind import ALL, NONE, SPLITS, OwnLabels, SetKind
from camseg_core.errors import DataError


class ListFile(SetKind):
    """A text file of `IMAGE LABEL` a line, as paths from the file's folder.

    ROOT is the file, whose split is `all`, or a folder with a `SPLIT.txt` for every split. A path
    with spaces is quoted; `#` starts a comment.
    """

    title = "a list of images and labels"
    layout = (
        "a text file (ROOT itself, or SPLIT.txt in it) with IMAGE LABEL a line, "
        "paths from its folder",
        f"labels hold Cityscapes train ids, the ids of {LABEL_TABLE} beside it, or what {MAPPING} "
        "(or --mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        path = root / f"{split}.txt" if root.is_dir() else root
        meant = meaning(own.mapping, path.parent / MAPPING)
        if not path.is_file():
            raise no_split(split, root, f"{path} is missing; expected IMAGE LABEL a line in it")
        if path == root and split != ALL:
            raise DataError(
                f"no split {split!r} in {root}: a list has one split, {ALL!r}; "
                "for several, name a folder with a SPLIT.txt for each"
            )
        pairs = _read(path)
        if not pairs:
            raise DataError(f"{path} lists nothing: expected IMAGE LABEL a line")
        found = Found(pairs, problems=tuple(_repeated(path, pairs)))
        return meant.files(found, rule=f"{path} lists it")

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if not root.is_dir():
            return (ALL,)
        return tuple(name for name in SPLITS if (root / f"{name}.txt").is_file())

    def detect(self, root: Path) -> bool:
        """Return whether it is a list, or a folder with the list of a split; listed files exist."""
        if root.is_file():
            return root.suffix.lower() in (".txt", ".lst") or _lists_files(root)
        return any(_lists_files(root / f"{name}.txt") for name in self.splits(root, NONE))


def _lists_files(path: Path) -> bool:
    """Return whether the text file begins with an image and a label that exist."""
    try:
        first = next(iter(_read(path)), None)
    except DataError:
        return False
    return first is not None and first.image.is_file() and first.label.is_file()


def _repeated(path: Path, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield a line for each image that is listed repeatedly, and each label of two images."""
    images, of = Counter(_plain(pair.image) for pair in pairs), dict[str, Path]()
    for image, count in images.items():
        if count > 1:
            yield f"{path} lists {image} {count} times: list it once"
    for pair in pairs:
        other = of.setdefault(_plain(pair.label), pair.image)
        if _plain(other) != _plain(pair.image):
            yield (
                f"{path} gives {other} and {pair.image} the same label {pair.label}: list for each "
                "image its own"
            )


def _plain(path: Path) -> str:
    """Return a path without `..`, so that two ways to write it are equal."""
    return os.path.normpath(path)


def _read(path: Path) -> list[Pair]:
    pairs = []
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16, or no text at all
            raise ValueError("it is not text in UTF-8")
        lines = text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            # Windows separates folders with backslashes; before a blank, they quote it
            words = shlex.split(re.sub(r"\\(?! )", "/", line), comments=True)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; expected IMAGE LABEL") from error
        if not words:
            continue
        if len(words) != 2:
            raise DataError(
                f"{path}, line {number} has {len(words)} words: expected IMAGE LABEL; "
                "quote a path with spaces"
            )
        if not all(Path(word).name for word in words):
            raise DataError(f"{path}, line {number} names no file: expected IMAGE LABEL")
        image, label = (path.parent / word for word in words)
        pairs.append(Pair(image, label, frame_name(Path(words[0]))))
    return pairs
