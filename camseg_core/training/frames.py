"""A labelled data set held in memory, served as augmented batches of class indices."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.labels import UNLABELLED, Label


@dataclass(frozen=True)
class Frames:
    """Frames of one size as uint8 tensors: `images` (N, 3, H, W) and class `indices` (N, H, W), 255 where unlabelled; and their names."""

    images: Tensor
    indices: Tensor
    names: list[str]

    @staticmethod
    def load(samples: Iterable[Sample], labels: tuple[Label, ...]) -> "Frames":
        """Hold all `samples`; a class index is the place of a label in `labels`, and a class that is not among them is unlabelled.

        Raises:
            DataError: no samples, or one whose size differs from the first's.
        """
        to_index = np.full(256, UNLABELLED, np.uint8)
        to_index[[label.id for label in labels]] = np.arange(len(labels))
        images: list[Tensor] = []
        indices: list[Tensor] = []
        names: list[str] = []
        for sample in samples:
            if images and images[0].shape[1:] != sample.image.shape[:2]:
                raise DataError(f"{sample.name} is {sample.image.shape[:2]}, {names[0]} is {tuple(images[0].shape[1:])}: sizes must agree")
            images.append(torch.from_numpy(sample.image).permute(2, 0, 1))
            indices.append(torch.from_numpy(to_index[sample.label]))
            names.append(sample.name)
        if not images:
            raise DataError("the data set is empty: there is nothing to train on")
        return Frames(torch.stack(images), torch.stack(indices), names)

    def __len__(self) -> int:
        return len(self.names)

    def every(self, n: int) -> "Frames":
        """Every n-th frame."""
        return Frames(self.images[::n], self.indices[::n], self.names[::n])

    def class_weights(self, classes: int) -> Tensor:
        """Weights `(classes,)` that raise rare classes: inverse square root of the pixel share, mean 1, at most 4."""
        counts = torch.from_numpy(np.bincount(self.indices.numpy().ravel(), minlength=256)[:classes]).double()
        weights = (counts / counts.sum()).clamp_min(1e-4).rsqrt()
        return (weights / weights.mean()).clamp_max(4.0).float()


def train_id_table(labels: tuple[Label, ...]) -> Tensor:
    """The train id by class index, `(256,)` uint8: 255 for 255 and whatever is no place in `labels`."""
    table = torch.full((256,), UNLABELLED, dtype=torch.uint8)
    table[: len(labels)] = torch.tensor([label.id for label in labels], dtype=torch.uint8)
    return table


def fill_unlabelled(indices: Tensor) -> Tensor:
    """Class indices `(B, H, W)` with every 255 replaced by the nearest labelled pixel's class, so that an encoder sees only classes.

    A frame without any label becomes class 0 throughout.
    """
    filled = indices.clone()
    for frame in filled:
        array = frame.numpy()
        unknown = (array == UNLABELLED).astype(np.uint8)
        if unknown.all():
            array[:] = 0
        elif unknown.any():
            _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
            table = np.zeros(int(nearest.max()) + 1, array.dtype)
            known = unknown == 0
            table[nearest[known]] = array[known]
            array[:] = table[nearest]
    return filled
