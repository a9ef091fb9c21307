"""Masks as files in Cityscapes' label ids, as its evaluation and its server take them."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.labels import LABEL_ID_OF_TRAIN_ID

ENDING = "_labelIds.png"

_TO_LABEL_ID = np.zeros(256, np.uint8)  # 0 is unlabeled
_TO_LABEL_ID[list(LABEL_ID_OF_TRAIN_ID)] = list(LABEL_ID_OF_TRAIN_ID.values())


def write_mask(folder: Path, name: str, mask: npt.NDArray[np.uint8]) -> Path:
    """Write train ids `(H, W)` as `NAME_labelIds.png`, 0 where there is no class; a name with / in it gets folders.

    Of Cityscapes' frames the names begin with city, sequence and number, by which its evaluation finds them.

    Raises:
        DataError: the file cannot be written.
    """
    path = folder / f"{name}{ENDING}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", _TO_LABEL_ID[mask])[1].tobytes())
    except OSError as error:
        raise DataError(
            f"cannot write the mask {path}: {error.strerror}; choose a folder that can be written"
        ) from error
    return path
