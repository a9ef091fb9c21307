"""A set of your own as a text file: `IMAGE LABEL` a line, as paths from the file's folder."""

import shlex
from collections import Counter
from pathlib import Path

from camseg_core.data.file_set import FileSet, Found, Pair, no_split
from camseg_core.data.mapping import MAPPING, meaning
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind
from camseg_core.errors import DataError


class ListFile(SetKind):
    """ROOT is the file, whose split is `all`, or a folder with a `SPLIT.txt` for every split.

    A path with spaces is quoted; `#` starts a comment.
    """

    title = "a list of images and labels"
    layout = (
        "a text file (ROOT itself, or SPLIT.txt in it) with IMAGE LABEL a line, "
        "paths from its folder",
        f"labels hold Cityscapes train ids, or what {MAPPING} beside it (or --mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        path = root / f"{split}.txt" if root.is_dir() else root
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
        counts = Counter(pair.image for pair in pairs)
        twice = (
            f"{path} lists {image} {count} times: list it once"
            for image, count in counts.items()
            if count > 1
        )
        labels, decode, stretch, groups = meaning(own.mapping, path.parent / MAPPING)
        found, rule = Found(pairs, problems=tuple(twice)), f"{path} lists it"
        return FileSet.of(found, labels, decode, rule=rule, stretch=stretch, groups=groups)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if not root.is_dir():
            return (ALL,)
        return tuple(name for name in ("train", "val", "test") if (root / f"{name}.txt").is_file())

    def detect(self, root: Path) -> bool:
        """Only a file: a folder may hold text files for another reason."""
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
                f"{path}, line {number} has {len(words)} words: expected IMAGE LABEL; "
                "quote a path with spaces"
            )
        image, label = (path.parent / word for word in words)
        pairs.append(Pair(image, label, Path(words[0]).with_suffix("").as_posix().lstrip("./")))
    return pairs
