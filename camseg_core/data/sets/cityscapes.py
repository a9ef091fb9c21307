"""Cityscapes (arXiv 1604.01685): `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` with `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`."""

from pathlib import Path

from camseg_core.data.file_set import FileSet, Pair, match, visible, what_is_there
from camseg_core.data.label_files import IdLabels
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES, TRAIN_ID_OF_LABEL_ID

TITLE = "Cityscapes"

SPLITS = ("train", "val")
"""With labels; those of `test` are withheld."""

IMAGES, LABELS = "leftImg8bit", "gtFine"


def scan(root: Path, split: str) -> FileSet:
    """The files of a split.

    Raises:
        DataError: the split or its images are missing.
    """
    images, labels = root / IMAGES / split, root / LABELS / split
    expected = f"expected Cityscapes as ROOT/{IMAGES}/{split}/CITY/*_leftImg8bit.png and ROOT/{LABELS}/{split}/CITY/*_gtFine_labelIds.png"
    if not images.is_dir():
        raise DataError(
            f"no split {split!r} in {root / IMAGES}, {what_is_there(root / IMAGES)}: {expected}"
        )
    pairs, without_label, without_image = match_trees(
        images, "_leftImg8bit.png", labels, "_gtFine_labelIds.png"
    )
    if not pairs and not without_label:
        raise DataError(f"no images in {images}: {expected}")
    return FileSet(
        *(pairs, without_label, without_image, CITYSCAPES, label_ids(TITLE)),
        rule="every image needs its *_gtFine_labelIds.png",
        withheld="no image of this split has a label (those of Cityscapes' test are withheld by its makers): choose train or val",
    )


def splits(root: Path) -> tuple[str, ...]:
    """The splits with labels that are there."""
    return tuple(split for split in SPLITS if (root / IMAGES / split).is_dir())


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return (root / IMAGES).is_dir()


LABEL_IDS = f"0 to {max(TRAIN_ID_OF_LABEL_ID)} (files of train ids, in which 255 is void, are others: give *_labelIds.png)"


def label_ids(whose: str) -> IdLabels:
    """Reads labels that hold Cityscapes' 34 ids; `whose` they are is for messages."""
    return IdLabels(TRAIN_ID_OF_LABEL_ID, whose, LABEL_IDS)


def match_trees(
    images: Path, image_ending: str, labels: Path, label_ending: str
) -> tuple[tuple[Pair, ...], tuple[Pair, ...], tuple[Path, ...]]:
    """Images `SEQUENCE/NAME<image_ending>` and labels `SEQUENCE/NAME<label_ending>` in two folders, as `match` gives them."""

    def stem(image: Path) -> str:
        return image.name[: -len(image_ending)]

    return match(
        visible(images.glob(f"*/*{image_ending}"), image_ending.lower()),
        lambda image: labels / image.parent.name / f"{stem(image)}{label_ending}",
        visible(labels.glob(f"*/*{label_ending}"), label_ending.lower()),
        stem,
    )
