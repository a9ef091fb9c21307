"""CamVid, 480×360, 11 classes: `<root>/<split>/images/*` with `<root>/<split>/labels/*.png` of the same stem (ids 0–10, 11 void)."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.labels import CAMVID_11_TRAIN_IDS, UNLABELLED

_VOID = len(CAMVID_11_TRAIN_IDS)
_TO_TRAIN_ID = np.array([*CAMVID_11_TRAIN_IDS, UNLABELLED], np.uint8)


class CamVid:
    """One split of CamVid as a sequence of `Sample`s in file-name order (which is time order within a drive).

    Raises:
        DataError: the folder has no images, an image has no label, a file cannot be read, sizes differ, or a label
            holds an id above 11; the message names the file.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        folder = Path(root) / split
        self._images = sorted(path for path in (folder / "images").glob("*") if path.suffix.lower() in {".jpg", ".png"})
        if not self._images:
            raise DataError(f"no images in {folder / 'images'}: expected CamVid as <root>/{split}/images and <root>/{split}/labels")
        self._labels = [folder / "labels" / f"{path.stem}.png" for path in self._images]
        for path in self._labels:
            if not path.is_file():
                raise DataError(f"missing label {path}: every image needs a label of the same name")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._images[index], self._labels[index]
        image, label = cv2.imread(str(image_path), cv2.IMREAD_COLOR_RGB), cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        if image is None or label is None:
            raise DataError(f"cannot read {image_path if image is None else label_path}: not an image or damaged")
        if label.shape != image.shape[:2]:
            raise DataError(f"{label_path} is {label.shape}, but {image_path.name} is {image.shape[:2]}: image and label differ in size")
        if label.max() > _VOID:
            raise DataError(f"{label_path} holds class id {label.max()}: CamVid with 11 classes has ids 0 to {_VOID}")
        return Sample(np.asarray(image, np.uint8), _TO_TRAIN_ID[label], image_path.stem)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
