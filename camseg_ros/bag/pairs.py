"""Pairs the images of a bag with their labels, by their stamps."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_ros.bag.storage import SECOND_NS

NO_LABEL = -1
NO_IMAGE = -1

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """The labels of a bag's images.

    Attributes:
        label: by the number of the image, the number of its label or `NO_LABEL`.
        by_order: number of images, of those to count, that share their stamp with others, as do
            their labels, so that their order decides.
        unclear: number of images, of those to count, left without a label, as other images share
            their stamp, and there are more labels or fewer.
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


def pair(
    images: Sequence[int],
    labels: Sequence[int],
    tolerance_ns: int,
    named: Mapping[int, int] | None = None,
    inside: Sequence[int] | None = None,
) -> Pairs:
    """Pair images and labels with their stamps in ns, each with one other at most.

    An image has the label that is nearest to it if no other image is nearer to that label, and
    they are at most `tolerance_ns` apart. Images that share a stamp have the labels that share one
    in order if they are as many, else none.

    Args:
        images: the images' stamps in ns.
        labels: the labels' stamps in ns.
        tolerance_ns: how far apart the stamps of a pair may be.
        named: by label, the only image that it may belong to, or `NO_IMAGE`.
        inside: the images to count in `by_order` and `unclear`; None for all.
    """
    image_ns, label_ns = np.asarray(images, np.int64), np.asarray(labels, np.int64)
    named = named or {}
    found = np.full(len(image_ns), NO_LABEL)
    for number, image in named.items():
        free = 0 <= image < len(found) and found[image] == NO_LABEL
        if free and abs(image_ns[image] - label_ns[number]) <= tolerance_ns:
            found[image] = number
    first_ns = int(labels[0]) if len(labels) else None
    others = np.setdiff1d(np.arange(len(label_ns)), [*named])  # which only their stamps pair
    if not len(image_ns) or not len(others):
        return Pairs(array("q", found.tolist()), first_ns=first_ns, labels=len(labels))
    by_stamp = _by_stamp(image_ns, label_ns[others], tolerance_ns)
    left = found == NO_LABEL
    paired = left & (by_stamp.label != NO_LABEL)
    found[paired] = others[by_stamp.label[paired]]
    if inside is not None:
        left &= np.isin(np.arange(len(found)), inside)
    unclear = np.flatnonzero(by_stamp.unclear & left)
    return Pairs(
        array("q", found.tolist()),
        int((by_stamp.by_order & left).sum()),
        len(unclear),
        by_stamp.example(unclear[0]) if len(unclear) else "",
        first_ns,
        len(labels),
    )


@dataclass(frozen=True, eq=False)
class _ByStamp:
    """Images paired by their stamps alone.

    `label` is the number of each image's label; `by_order` and `unclear` whether it is one of those
    that `Pairs` counts. `stamp_ns`, `images` and `labels` are its stamp and how many have it.
    """

    label: Numbers
    by_order: npt.NDArray[np.bool_]
    unclear: npt.NDArray[np.bool_]
    stamp_ns: Numbers
    images: Numbers
    labels: Numbers

    def example(self, image: int) -> str:
        """Say how many images and labels share the stamp of this one."""
        return (
            f"{counted(self.images[image], 'image')} and {counted(self.labels[image], 'label')} "
            f"are stamped {seconds(self.stamp_ns[image])}"
        )


def _by_stamp(images: Numbers, labels: Numbers, tolerance_ns: int) -> _ByStamp:
    """Pair images with labels, at least one of each; see `pair`."""
    image_ns, group, images_of = np.unique(images, return_inverse=True, return_counts=True)
    ordered = np.argsort(labels, kind="stable")
    label_ns, first, labels_of = np.unique(labels[ordered], return_index=True, return_counts=True)
    near = _nearest(image_ns, label_ns)
    mutual = (np.abs(label_ns[near] - image_ns) <= tolerance_ns) & (
        _nearest(label_ns, image_ns)[near] == np.arange(len(image_ns))
    )
    clear = mutual & (images_of == labels_of[near])
    rank = np.empty(len(images), np.int64)  # of an image among those with its stamp
    rank[np.argsort(group, kind="stable")] = np.concatenate([np.arange(n) for n in images_of])
    place = first[near[group]] + np.where(clear[group], rank, 0)
    return _ByStamp(
        np.where(clear[group], ordered[place], NO_LABEL),
        (clear & (images_of > 1))[group],
        (mutual & ~clear)[group],
        images,
        images_of[group],
        labels_of[near[group]],
    )


def _nearest(of: Numbers, among: Numbers) -> npt.NDArray[np.intp]:
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
