"""CamVid, 480×360, 11 classes: `<root>/<split>/images/*` with `<root>/<split>/labels/*.png` of the same stem (ids 0–10, 11 void)."""

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from camseg_core.data.image_file import read_rgb, read_unchanged
from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.labels import CAMVID_11_TRAIN_IDS, UNLABELLED

logger = logging.getLogger(__name__)

_VOID = len(CAMVID_11_TRAIN_IDS)
_TO_TRAIN_ID = np.array([*CAMVID_11_TRAIN_IDS, UNLABELLED], np.uint8)
_IMAGES = (".jpg", ".jpeg", ".png")


class CamVid:
    """One split of CamVid as a sequence of `Sample`s in file-name order (which is time order within a drive).

    Files are read when a sample is asked for. A label without an image is left out, with a warning.

    Raises:
        DataError: the split or its images are missing, or an image has no label; and when a sample is read, a file cannot be
            read, sizes differ, or a label is in colours or holds an id above 11. The message is one line and names the file, or
            both where two disagree.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        folder = Path(root) / split
        self._images = _images(folder)
        self._labels = [_label_of(image) for image in self._images]
        missing = [image for image, label in zip(self._images, self._labels, strict=True) if not label.is_file()]
        if missing:
            raise DataError(
                f"missing label {_label_of(missing[0])} of image {missing[0]}{_more(missing)}: every image needs one of its name"
            )
        unused = sorted({path for path in (folder / "labels").glob("*.png") if not path.name.startswith(".")} - set(self._labels))
        if unused:
            logger.warning("label without an image, left out: %s%s", unused[0], _more(unused))
        self._first_read: tuple[Path, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._images[index], self._labels[index]
        image, label = read_rgb(image_path), read_unchanged(label_path)
        if label.ndim != 2:
            raise DataError(
                f"{label_path} has {label.shape[2]} channels, as a picture in colours has: "
                f"expected one channel that holds class ids, 0 to {_VOID - 1} and {_VOID} for void"
            )
        size = image.shape[:2]
        _must_agree(label_path, label.shape, image_path, size, "an image and its label must have the same size")
        self._first_read = self._first_read or (image_path, size)
        _must_agree(image_path, size, *self._first_read, "all frames of a split must have the same size")
        if label.max() > _VOID:
            ids = [str(i) for i in np.unique(label) if i > _VOID]
            named = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            raise DataError(f"{label_path} holds class ids {named}: CamVid with 11 classes has 0 to {_VOID - 1}, and {_VOID} for void")
        return Sample(image, _TO_TRAIN_ID[label], image_path.stem)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _images(folder: Path) -> list[Path]:
    """The image files of a split, by name."""
    expected = f"expected CamVid as ROOT/{folder.name}/images and ROOT/{folder.name}/labels"
    if not folder.is_dir():
        root = folder.parent
        inside = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else None
        there = "which is not a folder" if inside is None else f"which has {', '.join(inside[:9]) or 'no folders'}"
        raise DataError(f"no split {folder.name!r} in {root}, {there}: {expected}")
    found = [path for path in (folder / "images").glob("*") if path.suffix.lower() in _IMAGES and not path.name.startswith(".")]
    images = sorted((path for path in found if not path.is_dir()), key=lambda path: (path.stem, path.name))
    if not images:
        raise DataError(f"no images ({', '.join(suffix[1:] for suffix in _IMAGES)}) in {folder / 'images'}: {expected}")
    for one, other in pairwise(images):
        if one.stem == other.stem:
            raise DataError(f"{one} and {other} have the same name but for the ending, and only one label: remove one of them")
    return images


def _label_of(image: Path) -> Path:
    return image.parent.parent / "labels" / f"{image.stem}.png"


def _more(paths: Sequence[Path]) -> str:
    return f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""


def _must_agree(path: Path, size: tuple[int, ...], other: Path, other_size: tuple[int, ...], rule: str) -> None:
    if size != other_size:
        raise DataError(f"{path} is {size[1]}x{size[0]}, but {other} is {other_size[1]}x{other_size[0]}: {rule}")
