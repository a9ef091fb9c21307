"""CamVid, 480×360, 11 classes (ids 0–10, 11 void), one label a frame, of the image's stem.

Two layouts are in use: `ROOT/SPLIT/images/*` with `ROOT/SPLIT/labels/*.png`, and SegNet's, `ROOT/SPLIT/*` with `ROOT/SPLITannot/*.png`.
"""

from pathlib import Path

from camseg_core.data.file_set import (
    IMAGES,
    FileSet,
    PairedFiles,
    doubles,
    folders,
    match,
    visible,
    what_is_there,
)
from camseg_core.data.label_files import IdLabels
from camseg_core.errors import DataError
from camseg_core.labels import CAMVID_11_TRAIN_IDS, UNLABELLED, cityscapes_labels

TITLE = "CamVid with 11 classes"

_VOID = len(CAMVID_11_TRAIN_IDS)
_DECODE = IdLabels(
    {**dict(enumerate(CAMVID_11_TRAIN_IDS)), _VOID: UNLABELLED},
    whose=TITLE,
    ids=f"0 to {_VOID - 1}, and {_VOID} for void",
)


class CamVid(PairedFiles):
    """One split of CamVid as a sequence of `Sample`s in file-name order (which is time order within a drive).

    Raises:
        DataError: as `PairedFiles` and `scan`.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        super().__init__(scan(Path(root), split))


def scan(root: Path, split: str) -> FileSet:
    """The files of a split.

    Raises:
        DataError: the split or its images are missing.
    """
    image_folder, label_folder = root / split / "images", root / split / "labels"
    if not image_folder.is_dir() and (root / f"{split}annot").is_dir():
        image_folder, label_folder = root / split, root / f"{split}annot"
    expected = f"expected CamVid as ROOT/{split}/images and ROOT/{split}/labels"
    if not (root / split).is_dir():
        raise DataError(f"no split {split!r} in {root}, {what_is_there(root)}: {expected}")
    images = visible(image_folder.glob("*"), *IMAGES)
    if not images:
        raise DataError(
            f"no images ({', '.join(suffix[1:] for suffix in IMAGES)}) in {image_folder}: {expected}"
        )
    pairs, without_label, without_image = match(
        images,
        label_of=lambda image: label_folder / f"{image.stem}.png",
        labels_there=visible(label_folder.glob("*"), ".png"),
        name_of=lambda image: image.stem,
    )
    labels = cityscapes_labels(CAMVID_11_TRAIN_IDS)
    return FileSet(
        pairs,
        without_label,
        without_image,
        labels,
        _DECODE,
        same_size=True,
        problems=doubles(images),
    )


def splits(root: Path) -> tuple[str, ...]:
    """The splits that are there."""
    names = folders(root)
    return tuple(
        name for name in names if (root / name / "images").is_dir() or f"{name}annot" in names
    )


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return bool(splits(root))
