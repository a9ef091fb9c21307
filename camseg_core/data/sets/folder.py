"""A set of one's own as folders: `ROOT/images` and `ROOT/labels`, or two roots; a label is a PNG of its image's name.

Splits are folders between: `ROOT/SPLIT/images` and `ROOT/SPLIT/labels`, or `ROOT/images/SPLIT` and `ROOT/labels/SPLIT`; without, the
split is `all`. Folders below may group the frames, in both alike. Labels hold Cityscapes train ids, or what `ROOT/mapping.yaml` says.
"""

from pathlib import Path

from camseg_core.data.file_set import (
    IMAGES,
    FileSet,
    doubles,
    folders,
    match,
    visible,
    what_is_there,
)
from camseg_core.data.sets.mapping import labels_and_decoder
from camseg_core.errors import DataError

TITLE = "a folder of images and labels"

ALL = "all"

MAPPING = "mapping.yaml"


def scan(
    root: Path, split: str, labels: Path | None = None, mapping: Path | None = None
) -> FileSet:
    """The files of a split. `labels` is the root of the labels if they do not lie beside the images, `mapping` says what they hold.

    Raises:
        DataError: the folders or the images are missing.
        ConfigError: the mapping cannot be used.
    """
    image_folder, label_folder = _places(root, split, labels)
    expected = "expected ROOT/images and ROOT/labels, with the split, if any, above or below these"
    if labels is not None:
        expected = "expected two folders with files of the same names, with the split, if any, a folder in each"
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise DataError(
                f"no split {split!r} in {root}, {what_is_there(root)}: {expected}; {folder} is missing"
            )
    images = visible(image_folder.rglob("*"), *IMAGES)
    if not images:
        raise DataError(
            f"no images ({', '.join(suffix[1:] for suffix in IMAGES)}) in {image_folder}"
        )
    pairs, without_label, without_image = match(
        images,
        lambda image: label_folder / image.relative_to(image_folder).with_suffix(".png"),
        visible(label_folder.rglob("*"), ".png"),
        lambda image: image.relative_to(image_folder).with_suffix("").as_posix(),
    )
    return FileSet(
        *(pairs, without_label, without_image, *labels_and_decoder(mapping, root / MAPPING)),
        problems=doubles(images),
    )


def splits(root: Path, labels: Path | None = None) -> tuple[str, ...]:
    """The splits that are there."""
    if labels is not None:
        return tuple(
            name
            for name in folders(root)
            if name in ("train", "val", "test") and name in folders(labels)
        ) or (ALL,)
    above = [name for name in folders(root) if (root / name / "images").is_dir()]
    below = [name for name in folders(root / "images") if name in ("train", "val", "test")]
    return tuple(above or below) or (ALL,)


def detect(root: Path) -> bool:
    """Whether `root` is laid out so, and says what its labels mean: guessed wrongly, scores would be quietly wrong."""
    return (root / MAPPING).is_file()


def _places(root: Path, split: str, labels: Path | None) -> tuple[Path, Path]:
    if labels is not None:
        return (root, labels) if split == ALL else (root / split, labels / split)
    if split == ALL:
        return root / "images", root / "labels"
    if (root / "images" / split).is_dir():
        return root / "images" / split, root / "labels" / split
    return root / split / "images", root / split / "labels"
