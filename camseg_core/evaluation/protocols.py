"""Evaluation protocols: the frame size, classes and counts by which masks are scored."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample
from camseg_core.data.file_set import Pair
from camseg_core.data.image_files import write_image
from camseg_core.errors import DataError
from camseg_core.labels import (
    CITYSCAPES,
    CITYSCAPES_CATEGORIES,
    LABEL_ID_OF_TRAIN_ID,
    PUBLISHED_PALETTE,
    UNLABELLED,
    Label,
)

PUBLISHED_SIZE = 768
"""Side in pixels of the square that the published model sees and is scored at."""

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Protocol:
    """How masks are scored.

    `labels` are the classes, or None for the data set's own. `prepare` returns the frame to segment
    and compare. `categories` are groups of train ids that are also scored as one class each. Pixels
    whose mask has no class are wrong, or, with `drops_no_class`, not counted. `definition` explains
    the protocol in reports.
    """

    name: str
    definition: str
    labels: tuple[Label, ...] | None = None
    prepare: Callable[[Sample], Sample] = lambda sample: sample
    categories: tuple[tuple[str, tuple[int, ...]], ...] = ()
    drops_no_class: bool = False


def as_published(sample: Sample) -> Sample:
    """Return the frame as in the published evaluation (arXiv 2503.15617): 768×768.

    The image is resized bilinearly, and so is the label, drawn as a picture in the published
    palette; each pixel's class is then that of the nearest palette colour. Colours mixed at the
    border of two classes may be nearest to a third class: that is part of the protocol.
    """
    size = (PUBLISHED_SIZE, PUBLISHED_SIZE)
    picture = cv2.resize(_drawn(sample.label), size, interpolation=cv2.INTER_LINEAR)
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_LINEAR)
    return Sample(
        np.asarray(image, np.uint8), nearest_class(np.asarray(picture, np.uint8)), sample.name
    )


def _drawn(label: Ids) -> Ids:
    """Draw train ids `(H, W)` in the published palette, RGB `(H, W, 3)`; others as unlabelled."""
    table = np.full((256, 3), PUBLISHED_PALETTE[0], np.uint8)
    table[: len(CITYSCAPES)] = PUBLISHED_PALETTE[1:]
    return table[label]


def nearest_class(picture: Ids) -> Ids:
    """Return train ids `(H, W)` by the nearest colour of the published palette, 255 for unlabelled.

    Distances are L2 over colours in 0..1, the palette rounded to four decimals, and the first of
    equally near colours wins: as published, and as `model.kl_autoencoder` does in torch.

    Args:
        picture: RGB `(H, W, 3)`.
    """
    palette = np.round(np.array(PUBLISHED_PALETTE, np.float32) / 255, 4)
    red, green, blue = (picture[..., i].astype(np.int32) for i in range(3))
    # colours are few and repeat
    packed, inverse = np.unique((red << 16) | (green << 8) | blue, return_inverse=True)
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.float32)
    distances = np.square(colors[:, None] / 255 - palette[None]).sum(2)
    index = distances.argmin(1)
    train_ids = np.where(index == 0, UNLABELLED, index - 1).astype(np.uint8)
    return train_ids[inverse.reshape(-1)].reshape(picture.shape[:2])


OWN_SIZE = Protocol(
    "own-size",
    "Every frame at its own size, on the classes that the data set distinguishes; pixels of "
    "other classes are not counted, and a mask that gives none of these classes is wrong.",
)

CITYSCAPES_PROTOCOL = Protocol(
    "cityscapes",
    "As Cityscapes' own evaluation (cityscapesScripts, pixel-level semantic labelling): every "
    "frame at its own size, the 19 classes, IoU of all frames' pixels together, and IoU of the "
    "seven categories, in which a class may be taken for another of its category. Ignored "
    "labels are not counted. A class or category that occurs neither in labels nor in masks "
    "has no score and is left out of the mean. Scores that weigh instances (iIoU) are not "
    "computed.",
    labels=CITYSCAPES,
    categories=tuple(CITYSCAPES_CATEGORIES.items()),
)

PUBLISHED = Protocol(
    "camseg",
    "As published with CAM-Seg (arXiv 2503.15617): image and label are resized to "
    f"{PUBLISHED_SIZE}×{PUBLISHED_SIZE}, the label bilinearly as a colour image in the published "
    "palette, whose nearest colour then gives the class; counts over unlabelled and 19 "
    "classes, of which the row and the column of unlabelled are dropped. The score is AP, the "
    "mean of TP / (TP + FP): a precision, not an IoU.",
    labels=CITYSCAPES,
    prepare=as_published,
    drops_no_class=True,
)

PROTOCOLS = {each.name: each for each in (OWN_SIZE, CITYSCAPES_PROTOCOL, PUBLISHED)}
"""By their name in `camseg evaluate --protocol`."""

ENDING = "_labelIds.png"

_TO_LABEL_ID = np.zeros(256, np.uint8)  # 0 is unlabelled
_TO_LABEL_ID[list(LABEL_ID_OF_TRAIN_ID)] = list(LABEL_ID_OF_TRAIN_ID.values())


def check_mask_names(pairs: Sequence[Pair], folder: Path) -> None:
    """Check that the masks of these frames, from `write_mask`, get files and folders of their own.

    Raises:
        DataError: two frames have one name, or a mask would lie among the frames or their labels;
            the message names the files.
    """
    owner: dict[str, Path] = {}
    read = {os.path.realpath(path.parent) for pair in pairs for path in (pair.image, pair.label)}
    for pair in pairs:
        beside = (folder / pair.name).parent
        if os.path.realpath(beside) in read:
            raise DataError(
                f"--write-masks {folder} must not put masks among the files of the data set in "
                f"{beside}, whose part they would become: name another folder"
            )
        # some file systems ignore case
        other = owner.setdefault(pair.name.casefold(), pair.image)
        if other != pair.image:
            raise DataError(
                f"--write-masks needs frames of different names, but {other} and {pair.image} are "
                f"both {pair.name}: evaluate one split at a time, or rename one"
            )


def write_mask(folder: Path, name: str, mask: npt.NDArray[np.uint8]) -> Path:
    """Write train ids `(H, W)` as `NAME_labelIds.png`, the format of Cityscapes' evaluation server.

    Pixels without a class are 0. A name with `/` gets folders. Cityscapes' evaluation finds files
    by the names of its frames, which begin with city, sequence and number.

    Raises:
        DataError: the file cannot be written, or would not be in the folder.
    """
    path = folder / f"{name}{ENDING}"
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise DataError(f"a mask must be written into {folder}, got the name {name}: rename it")
    write_image(path, _TO_LABEL_ID[mask])
    return path
