"""Masks in which every pixel has one class, as the mask encoder needs them."""

import cv2
import numpy as np
from torch import Tensor

from camseg_core.labels import UNLABELLED


def fill_unlabelled(indices: Tensor) -> Tensor:
    """Replace every 255 in class indices `(B, H, W)` by the class of the nearest labelled pixel.

    An encoder then only sees classes. A frame without any label becomes class 0 throughout.
    """
    filled = indices.clone()
    for frame in filled:
        array = frame.numpy()
        unknown = (array == UNLABELLED).astype(np.uint8)
        if unknown.all():
            array[:] = 0
        elif unknown.any():
            _, nearest = cv2.distanceTransformWithLabels(
                unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
            )
            table = np.zeros(int(nearest.max()) + 1, array.dtype)
            known = unknown == 0
            table[nearest[known]] = array[known]
            array[:] = table[nearest]
    return filled
