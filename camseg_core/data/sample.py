"""What every data set yields."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sample:
    """One labelled frame.

    `image` is RGB `(H, W, 3)` uint8; `label` is Cityscapes train ids `(H, W)` uint8 with 255 for unlabelled;
    `name` identifies the frame within its data set.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    name: str
