"""Pairs the images of a bag with their labels, by their stamps."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_ros.bag.storage import SECOND_NS

NO_LABEL = -1


@dataclass(frozen=True)
class Pairs:
    """The labels of a bag's images.

    Attributes:
        label: by the number of the image, the number of its label or `NO_LABEL`.
        by_order: number of images that share their stamp with others, as do their labels, so that
            their order decides.
        unclear: number of images left without a label, as other images share their stamp, and
            there are more labels or fewer.
        example: the first such stamp, and the numbers of images and labels that have it.
        first_ns: the stamp of the first label, in ns; None without labels.
        labels: number of labels.
    """

    label: "array[int]"
    by_order: int = 0
    unclear: int = 0
    example: str = ""
    first_ns: int | None = None
    labels: int = 0

    def of(self, image: int) -> int:
        """Return the number of the label of an image, or `NO_LABEL`."""
        return self.label[image] if image < len(self.label) else NO_LABEL


def pair(images: Sequence[int], labels: Sequence[int], tolerance_ns: int) -> Pairs:
    """Pair images and labels with their stamps in ns, each with one other at most.

    An image has the label that is nearest to it if no other image is nearer to that label, and
    they are at most `tolerance_ns` apart. Images that share a stamp have the labels that share one
    in order if they are as many, else none.
    """
    if not len(images) or not len(labels):
        none = array("q", [NO_LABEL] * len(images))
        return Pairs(none, first_ns=next(iter(labels), None), labels=len(labels))
    image_ns, group, images_of = np.unique(
        np.asarray(images, np.int64), return_inverse=True, return_counts=True
    )
    ordered = np.argsort(np.asarray(labels, np.int64), kind="stable")
    label_ns, first, labels_of = np.unique(
        np.asarray(labels, np.int64)[ordered], return_index=True, return_counts=True
    )
    near = _nearest(image_ns, label_ns)
    mutual = (np.abs(label_ns[near] - image_ns) <= tolerance_ns) & (
        _nearest(label_ns, image_ns)[near] == np.arange(len(image_ns))
    )
    clear = mutual & (images_of == labels_of[near])
    rank = np.empty(len(images), np.int64)  # of an image among those with its stamp
    rank[np.argsort(group, kind="stable")] = np.concatenate([np.arange(n) for n in images_of])
    place = first[near[group]] + np.where(clear[group], rank, 0)
    found = np.where(clear[group], ordered[place], NO_LABEL)
    unclear = np.flatnonzero(mutual & ~clear)
    example = ""
    if len(unclear):
        some = unclear[0]
        example = (
            f"{counted(images_of[some], 'image')} and {counted(labels_of[near[some]], 'label')} "
            f"are stamped {seconds(image_ns[some])}"
        )
    return Pairs(
        array("q", found.tolist()),
        int(images_of[clear & (images_of > 1)].sum()),
        int(images_of[unclear].sum()),
        example,
        int(labels[0]),
        len(labels),
    )


def _nearest(of: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the index in the sorted `among` of the value nearest to each value."""
    after = np.searchsorted(among, of).clip(max=len(among) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(among[after] - of) < np.abs(among[before] - of), after, before)


def seconds(ns: int) -> str:
    """Format a time in ns for a message."""
    return f"{ns / SECOND_NS:.3f} s"


def counted(number: int, what: str) -> str:
    """Return a number of things as text."""
    return f"{number} {what}{'s' if number != 1 else ''}"
