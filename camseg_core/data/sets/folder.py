"""A set of your own as folders: a label is a PNG with the name of its image."""

from pathlib import Path

from camseg_core.data.file_set import FileSet, find_files, no_split, subfolders
from camseg_core.data.mapping import MAPPING, meaning
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind

_SPLITS = ("train", "val", "test")


class Folder(SetKind):
    """`ROOT/images` and `ROOT/labels`, or two roots; folders below may group the frames.

    Splits are folders above (`SPLIT/images`) or below (`images/SPLIT`); else the split is `all`.
    """

    title = "a folder of images and labels"
    layout = (
        "images/NAME.jpg (or .png), labels/NAME.png, with the split, if any, above or below these",
        "or, with --labels FOLDER, images and labels in two roots, with the split in each",
        f"labels hold Cityscapes train ids, or what {MAPPING} (or --mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        images, label_files = _places(root, split, own.root)
        for folder in (images, label_files):
            if not folder.is_dir():
                raise no_split(split, root, f"{folder} is missing; {self.expected}")
        found = find_files(
            [(images, label_files)],
            self.expected,
            pattern="**/*",
            name=lambda stem: stem.relative_to(images).as_posix(),
        )
        labels, decode, stretch, groups = meaning(own.mapping, root / MAPPING)
        return FileSet.of(found, labels, decode, stretch=stretch, groups=groups)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        if own.root is not None:
            in_both = {*subfolders(root)} & {*subfolders(own.root)}
            return tuple(name for name in _SPLITS if name in in_both) or (ALL,)
        above = [name for name in subfolders(root) if (root / name / "images").is_dir()]
        below = [name for name in subfolders(root / "images") if name in _SPLITS]
        return tuple(above or below) or (ALL,)

    def detect(self, root: Path) -> bool:
        """Only with a mapping: a wrong guess of what labels mean would give wrong scores."""
        return (root / MAPPING).is_file()


def _places(root: Path, split: str, labels: Path | None) -> tuple[Path, Path]:
    if labels is not None:
        return (root, labels) if split == ALL else (root / split, labels / split)
    if split == ALL:
        return root / "images", root / "labels"
    if (root / "images" / split).is_dir():
        return root / "images" / split, root / "labels" / split
    return root / split / "images", root / split / "labels"
