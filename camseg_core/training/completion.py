"""Completion of masks: the mask encoder needs exactly one class for every pixel."""

import cv2
import numpy as np
from torch import Tensor

from camseg_core.labels import UNLABELLED
from camseg_core.training.loading import seed_of


def has_groups(indices: Tensor, classes: int) -> bool:
    """Return whether class indices (see `Frames`) hold a group."""
    return bool(((indices >= classes) & (indices != UNLABELLED)).any())


def complete_at_random(indices: Tensor, members: Tensor, numbers: range, seed: int) -> Tensor:
    """Give each connected region of a group one of its classes, drawn by the sample's number.

    `indices` are class indices `(B, H, W)` on the CPU, and `members` the classes of each group,
    `(G, K)`. 255 stays.
    """
    completed = indices.clone()
    classes = members.shape[1]
    for frame, number in zip(completed, numbers, strict=True):
        array = frame.numpy()
        drawn = np.random.default_rng(seed_of(seed, "completion", number))
        for label in np.unique(array).tolist():
            if classes <= label < UNLABELLED:
                where = array == label
                count, regions = cv2.connectedComponents(where.astype(np.uint8), connectivity=4)
                choices = np.flatnonzero(members[label - classes].numpy())
                array[where] = drawn.choice(choices, count)[regions[where]]
    return completed


def complete_by_model(indices: Tensor, logits: Tensor, members: Tensor) -> Tensor:
    """Give each pixel of a group the most probable of the group's classes.

    `indices` are class indices `(B, H, W)`, `logits` the model's `(B, K, H, W)`, and `members` the
    classes of each group, `(G, K)`. 255 stays.
    """
    classes = members.shape[1]
    completed = indices.clone()
    for frame, image in zip(completed.flatten(1), logits.flatten(2), strict=True):
        for label in frame.unique().tolist():
            if classes <= label < UNLABELLED:
                choices = members[label - classes].nonzero().squeeze(1)
                pixels = (frame == label).nonzero().squeeze(1)
                # a row a pixel: an argmax over the first axis takes thirty times as long
                rows = image[choices].index_select(1, pixels).T.contiguous()  # (N, choices)
                frame[pixels] = choices[rows.argmax(1)].to(frame.dtype)
    return completed


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
