"""CamVid with 11 classes, as SegNet's authors prepared it."""

from pathlib import Path

from camseg_core.data.file_set import FileSet, find_files, no_split, subfolders
from camseg_core.data.label_files import IdLabels
from camseg_core.data.sets.kind import OwnLabels, SetKind
from camseg_core.labels import CAMVID_11_TRAIN_IDS, UNLABELLED, cityscapes_labels

_VOID = len(CAMVID_11_TRAIN_IDS)


class CamVid(SetKind):
    """Frames in the order of their names, which is the order of time within a drive."""

    title = "CamVid with 11 classes"
    labels = cityscapes_labels(CAMVID_11_TRAIN_IDS)
    named_splits = ("train", "val")
    layout = (
        "SPLIT/images/NAME.jpg (or .png), SPLIT/labels/NAME.png",
        "or SPLIT/NAME.png, SPLITannot/NAME.png",
        f"ids 0 to {_VOID - 1}, {_VOID} for void",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        if not (root / split).is_dir():
            raise no_split(split, root, self.expected)
        images, labels = root / split / "images", root / split / "labels"
        if not images.is_dir() and (root / f"{split}annot").is_dir():
            images, labels = root / split, root / f"{split}annot"
        train_ids = {**dict(enumerate(CAMVID_11_TRAIN_IDS)), _VOID: UNLABELLED}
        decode = IdLabels(train_ids, self.title, f"0 to {_VOID - 1}, and {_VOID} for void")
        found = find_files([(images, labels)], self.expected)
        return FileSet.of(found, self.labels, decode, same_size=True)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        names = subfolders(root)
        return tuple(
            name for name in names if (root / name / "images").is_dir() or f"{name}annot" in names
        )

    def detect(self, root: Path) -> bool:
        return bool(self.splits(root, OwnLabels()))
