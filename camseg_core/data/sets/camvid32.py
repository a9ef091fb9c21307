"""CamVid as first published, 960×720: 32 classes as colours, in PNG files named after their image and `_L` (Brostow et al. 2009).

Two layouts are in use: the original folders, `ROOT/701_StillsRaw_full` and `ROOT/LabeledApproved_full`, all frames in one (the split `all`)
unless `ROOT/SPLIT.txt` lists the names of a split's frames; and `ROOT/SPLIT` with `ROOT/SPLIT_labels`. A list of classes and colours,
`label_colors.txt` or `class_dict.csv`, is read where there is one; without it they are CamVid's own.
"""

import re
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
from camseg_core.data.label_files import Color, ColorLabels
from camseg_core.errors import DataError
from camseg_core.labels import (
    CAMVID_32,
    CAMVID_32_TRAIN_IDS,
    TRAIN_ID,
    UNLABELLED,
    cityscapes_labels,
)

TITLE = "CamVid with 32 classes"

ALL = "all"

_IMAGES, _LABELS = "701_StillsRaw_full", "LabeledApproved_full"
_ENDING = "_L.png"

_TRAIN_ID = {
    name: UNLABELLED if target is None else TRAIN_ID[target] for name, _, target in CAMVID_32
}


def scan(root: Path, split: str) -> FileSet:
    """The files of a split.

    Raises:
        DataError: the split or its images are missing, the list of a split names what is not there, or a list of colours cannot be used.
    """
    image_folder, label_folder = root / split, root / f"{split}_labels"
    expected = f"expected CamVid as ROOT/{split} and ROOT/{split}_labels, or as ROOT/{_IMAGES} and ROOT/{_LABELS}"
    names: list[str] | None = None
    if not label_folder.is_dir() and (root / _IMAGES).is_dir():
        image_folder, label_folder = root / _IMAGES, root / _LABELS
        if split != ALL:
            names = _listed(root / f"{split}.txt", split)
    if not image_folder.is_dir():
        raise DataError(f"no split {split!r} in {root}, {what_is_there(root)}: {expected}")
    images = visible(image_folder.glob("*"), *IMAGES)
    labels_there = visible(label_folder.glob("*"), _ENDING.lower())
    if names is not None:
        by_stem = {image.stem: image for image in images}
        absent = [name for name in names if name not in by_stem]
        if absent:
            raise DataError(
                f"{root / f'{split}.txt'} lists {absent[0]}, of which there is no image in {image_folder}"
            )
        images, labels_there = (
            [by_stem[name] for name in names],
            [],
        )  # the labels of other splits lie beside
    if not images:
        raise DataError(
            f"no images ({', '.join(suffix[1:] for suffix in IMAGES)}) in {image_folder}: {expected}"
        )
    pairs, without_label, without_image = match(
        images,
        lambda image: label_folder / f"{image.stem}{_ENDING}",
        labels_there,
        lambda image: image.stem,
    )
    return FileSet(
        *(pairs, without_label, without_image, cityscapes_labels(CAMVID_32_TRAIN_IDS)),
        ColorLabels(_colors(root), TITLE),
        rule=f"every image needs one of its name and {_ENDING}",
        problems=doubles(images) if names is None else (),
    )


def splits(root: Path) -> tuple[str, ...]:
    """The splits that are there."""
    there = folders(root)
    if _IMAGES in there:
        return tuple(
            name for name in ("train", "val", "test") if (root / f"{name}.txt").is_file()
        ) or (ALL,)
    return tuple(name for name in there if f"{name}_labels" in there)


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return (root / _LABELS).is_dir() or any(
        f"{name}_labels" in folders(root) for name in folders(root)
    )


def _listed(path: Path, split: str) -> list[str]:
    """The names of a split's frames, without folder and ending, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"no split {split!r}: cannot read {path}: {error.strerror}; list the names of its frames there, one a line, or take {ALL!r}"
        ) from error
    return [Path(line.strip()).stem for line in lines if line.strip()]


def _colors(root: Path) -> dict[Color, int]:
    """The train id by colour, by the root's own list of classes where there is one."""
    for name in ("label_colors.txt", "class_dict.csv"):
        if (root / name).is_file():
            return _read_colors(root / name)
    return {color: _TRAIN_ID[name] for name, color, _ in CAMVID_32}


def _read_colors(path: Path) -> dict[Color, int]:
    """Three numbers and a name a line (label_colors.txt), or a name and three numbers (class_dict.csv, with a head)."""
    train_ids = {name.casefold(): train_id for name, train_id in _TRAIN_ID.items()}
    colors: dict[Color, int] = {}
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        words = [word for word in re.split(r"[\s,]+", line) if word]
        values = [int(word) for word in words if word.isdecimal() and int(word) < 256]
        named = [word for word in words if not word.isdecimal()]
        if not words or (number == 1 and not values):
            continue
        if len(values) != 3 or len(named) != 1:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is not a class and its red, green and blue, 0 to 255"
            )
        if named[0].casefold() not in train_ids:
            raise DataError(
                f"{path}, line {number}: {named[0]!r} is none of CamVid's 32 classes; for other sets: --dataset folder"
            )
        colors[values[0], values[1], values[2]] = train_ids[named[0].casefold()]
    return colors
