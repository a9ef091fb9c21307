"""KITTI-STEP, the labels of KITTI's tracking sequences (arXiv 2102.11859), called SemanticKITTI by the published model's authors.

`training/image_02/SEQUENCE/*.png` with `kitti-step/panoptic_maps/SPLIT/SEQUENCE/*.png`, whose red channel holds the train id (255 void) and
whose others number instances. `panoptic_maps/` may also lie in the root, and the images in `images/SPLIT/SEQUENCE/`.
"""

from pathlib import Path

from camseg_core.data.file_set import FileSet, folders, match, visible, what_is_there
from camseg_core.data.label_files import RedIdLabels
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES, STORED_TRAIN_IDS

TITLE = "KITTI-STEP"

SPLITS = ("train", "val")

_DECODE = RedIdLabels(STORED_TRAIN_IDS, TITLE, "0 to 18, and 255 for void")


def _maps(root: Path) -> Path:
    return (
        root / "panoptic_maps"
        if (root / "panoptic_maps").is_dir()
        else root / "kitti-step" / "panoptic_maps"
    )


def _images(root: Path, split: str) -> Path:
    return (
        root / "images" / split
        if (root / "images" / split).is_dir()
        else root / "training" / "image_02"
    )


def scan(root: Path, split: str) -> FileSet:
    """The files of a split: those of the sequences of which it has labels.

    Raises:
        DataError: the split or its images are missing.
    """
    maps, images = _maps(root), _images(root, split)
    expected = (
        f"expected KITTI-STEP as ROOT/training/image_02/SEQUENCE/*.png and ROOT/kitti-step/panoptic_maps/{split}/SEQUENCE/*.png "
        "(there are no labels for test)"
    )
    sequences = folders(maps / split)
    if not sequences:
        raise DataError(f"no split {split!r} in {maps}, {what_is_there(maps)}: {expected}")
    found = visible(
        (path for sequence in sequences for path in (images / sequence).glob("*.png")), ".png"
    )
    if not found:
        raise DataError(
            f"no images of the sequences {', '.join(sequences[:9])} in {images}: {expected}"
        )
    pairs, without_label, without_image = match(
        found,
        lambda image: maps / split / image.parent.name / image.name,
        visible((maps / split).glob("*/*.png"), ".png"),
        lambda image: f"{image.parent.name}/{image.stem}",
    )
    return FileSet(
        pairs,
        without_label,
        without_image,
        CITYSCAPES,
        _DECODE,
        rule="every image needs the panoptic map of its number",
    )


def splits(root: Path) -> tuple[str, ...]:
    """The splits that are there."""
    return tuple(split for split in SPLITS if (_maps(root) / split).is_dir())


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return _maps(root).is_dir()
