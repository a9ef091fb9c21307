"""Labelled frames as class indices for training: in memory if they fit, else read each time."""

import functools
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from camseg_core.data import Sample, Samples
from camseg_core.errors import DataError
from camseg_core.groups import Group, frame_table, group_members
from camseg_core.labels import Label, color_table

logger = logging.getLogger(__name__)

HELD_BYTES = 2 * 2**30
"""Largest size of frames held in memory; every process holds its own copy."""


class Part(NamedTuple):
    """One of the sets in `frames`; its samples are drawn in proportion to `weight`."""

    name: str
    frames: "Frames"
    weight: float = 1.0


class Frames(ABC):
    """Labelled frames by number: image `(3, H, W)` and class indices `(H, W)`, both uint8.

    A class index below K is a label's place in the model's K `labels`. Of the G `groups`, labels
    for one of several classes, the first is K and the last K + G - 1. 255 is unlabelled.
    """

    labels: tuple[Label, ...]
    groups: tuple[Group, ...]

    @staticmethod
    def load(
        samples: Samples | Sequence[Sample],
        labels: tuple[Label, ...],
        groups: tuple[Group, ...] = (),
        held_bytes: int = HELD_BYTES,
    ) -> "Frames":
        """Load all `samples`.

        Pixels of classes that are not in `labels`, and of groups of samples that are not in
        `groups` (see `joint_groups`), become unlabelled. Frames of one size that take at most
        `held_bytes` are held in memory; others are read each time.

        Raises:
            DataError: there are no samples, or one cannot be read (if not held: when it is read).
        """
        if len(samples) == 0:
            raise DataError("the data set must have frames to train on, got none")
        if len(samples) * _bytes_of(samples[0]) <= held_bytes:
            held = HeldFrames.of(samples, labels, groups)
            if held is not None:
                return held
        logger.info(
            "%d frames are read as needed: they differ in size, or take more than %.1f GB",
            len(samples),
            held_bytes / 1e9,
        )
        return ReadFrames(samples, labels, groups)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image and class indices of a frame.

        Raises:
            DataError: one of its files cannot be read; the message names it.
        """

    @abstractmethod
    def every(self, n: int) -> "Frames":
        """Return every n-th frame."""

    @abstractmethod
    def chosen(self, numbers: Sequence[int]) -> "Frames":
        """Return the frames with these numbers, at least one."""

    def labelled_every(self, n: int) -> "Frames":
        """Return every n-th of the frames with a pixel of a class or group.

        Raises:
            DataError: there is none.
        """
        classes = len(self.labels) + len(self.groups)
        labelled = np.flatnonzero(self.pixels_by_frame()[:, :classes].any(1))
        if not labelled.size:
            raise DataError(f"one of the {len(self)} frames must have a labelled pixel, got none")
        return self.every(n) if len(labelled) == len(self) else self.chosen(labelled[::n].tolist())

    @abstractmethod
    def pixels_by_frame(self) -> npt.NDArray[np.int64]:
        """Count each frame's pixels by class index, `(N, 256)`; reads all that are not held."""

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Return a hash of names, images and labels; frames that are not held are all read."""

    @abstractmethod
    def sizes(self) -> set[tuple[int, int]]:
        """Return the sizes (height, width) that occur; frames that are not held are all read."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[index] for index in range(len(self)))

    def pixel_counts(self) -> npt.NDArray[np.int64]:
        """Count pixels by class index, `(256,)`; frames that are not held are all read."""
        return np.asarray(self.pixels_by_frame().sum(0), np.int64)

    def parts(self) -> tuple[Part, ...]:
        """Return the sets that these frames are from, in the order of their frames."""
        return (Part("", self),)

    def size(self) -> tuple[int, int]:
        """Return height and width of the first frame."""
        height, width = self[0][1].shape
        return height, width

    def members(self) -> Tensor:
        """Return which classes belong to each group, `(G, K)` bool."""
        return torch.from_numpy(group_members(self.labels, self.groups))

    def class_weights(self, classes: int) -> Tensor:
        """Return weights `(classes + G,)` float32 that favour rare classes, then those of groups.

        They are the inverse square root of each class's share of the pixels, scaled to mean 1, at
        most 4. The pixels of a group count for its classes, in proportion to the pixels of each
        that are labelled by themselves; the weight of a group is the mean of its pixels' weights.
        """
        counts = torch.from_numpy(self.pixel_counts()).double()
        alone, grouped = counts[:classes], counts[classes : classes + len(self.groups)]
        members = self.members().double().reshape(len(self.groups), classes)
        shares = members * alone.clamp_min(1.0)
        shares /= shares.sum(1, keepdim=True)
        total = alone + grouped @ shares
        weights = (total / total.sum().clamp_min(1)).clamp_min(1e-4).rsqrt()
        weights = (weights / weights.mean()).clamp_max(4.0)
        return torch.cat([weights, shares @ weights]).float()


class HeldFrames(Frames):
    """Frames of one size in memory: `images` (N, 3, H, W), class `indices` (N, H, W), `names`."""

    def __init__(
        self,
        images: Tensor,
        indices: Tensor,
        names: list[str],
        labels: tuple[Label, ...],
        groups: tuple[Group, ...] = (),
    ) -> None:
        self.images, self.indices, self.names = images, indices, names
        self.labels, self.groups = labels, groups

    @staticmethod
    def of(
        samples: Samples | Sequence[Sample],
        labels: tuple[Label, ...],
        groups: tuple[Group, ...] = (),
    ) -> "HeldFrames | None":
        """Load `samples`, at least one; None if two of them differ in size."""
        images, indices = (
            torch.empty((len(samples), *plane.shape), dtype=torch.uint8)
            for plane in _tensors(samples[0], labels, groups)
        )
        names: list[str] = []
        for place, sample in enumerate(samples):
            image, index = _tensors(sample, labels, groups)
            if image.shape != images.shape[1:]:
                return None
            images[place], indices[place] = image, index
            names.append(sample.name)
        return HeldFrames(images, indices, names, labels, groups)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.indices[index]

    def every(self, n: int) -> "HeldFrames":
        kept = self.images[::n], self.indices[::n], self.names[::n]
        return HeldFrames(*kept, self.labels, self.groups)

    def chosen(self, numbers: Sequence[int]) -> "HeldFrames":
        places = [*numbers]
        names = [self.names[place] for place in places]
        images, indices = self.images[places], self.indices[places]
        return HeldFrames(images, indices, names, self.labels, self.groups)

    def pixels_by_frame(self) -> npt.NDArray[np.int64]:
        # one at a time: bincount takes eight bytes a pixel for itself
        return np.stack([np.bincount(each.ravel(), minlength=256) for each in self.indices.numpy()])

    def fingerprint(self) -> bytes:
        names = "\n".join(self.names).encode(errors="surrogateescape")
        digest = hashlib.blake2b(names, digest_size=16)
        for tensor in (self.images, self.indices):
            digest.update(tensor.contiguous().numpy().data)
        return digest.digest()

    def sizes(self) -> set[tuple[int, int]]:
        return {self.size()}


class ReadFrames(Frames):
    """Frames of any size, read from `samples` each time; `numbers` selects some of them."""

    def __init__(
        self,
        samples: Samples | Sequence[Sample],
        labels: tuple[Label, ...],
        groups: tuple[Group, ...] = (),
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._samples, self.labels, self.groups = samples, labels, groups
        self._numbers = range(len(samples)) if numbers is None else numbers
        self._read: tuple[npt.NDArray[np.int64], bytes, set[tuple[int, int]]] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return _tensors(self._samples[self._numbers[index]], self.labels, self.groups)

    def every(self, n: int) -> "ReadFrames":
        return ReadFrames(self._samples, self.labels, self.groups, self._numbers[::n])

    def chosen(self, numbers: Sequence[int]) -> "ReadFrames":
        places = [self._numbers[number] for number in numbers]
        return ReadFrames(self._samples, self.labels, self.groups, places)

    def pixels_by_frame(self) -> npt.NDArray[np.int64]:
        return self._read_all()[0]

    def fingerprint(self) -> bytes:
        return self._read_all()[1]

    def sizes(self) -> set[tuple[int, int]]:
        return self._read_all()[2]

    def _read_all(self) -> tuple[npt.NDArray[np.int64], bytes, set[tuple[int, int]]]:
        """Return `pixels_by_frame`, fingerprint and sizes; the first call reads every frame."""
        if self._read is None:
            logger.info("reading %d frames once, to count and fingerprint their pixels", len(self))
            # decoding and hashing release the GIL
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
                found = list(threads.map(self._read_one, range(len(self))))
            counts, digests, sizes = zip(*found, strict=True)
            digest = hashlib.blake2b(b"".join(digests), digest_size=16).digest()
            self._read = np.stack(counts), digest, {*sizes}
        return self._read

    def _read_one(self, index: int) -> tuple[npt.NDArray[np.int64], bytes, tuple[int, int]]:
        sample = self._samples[self._numbers[index]]
        image, indices = _tensors(sample, self.labels, self.groups)
        digest = hashlib.blake2b(sample.name.encode(errors="surrogateescape"), digest_size=16)
        for tensor in (image, indices):
            digest.update(tensor.numpy().data)
        counts = np.bincount(indices.numpy().ravel(), minlength=256)
        return counts, digest.digest(), (indices.shape[0], indices.shape[1])


def _bytes_of(sample: Sample) -> int:
    return sample.image.nbytes + sample.label.nbytes


_table = functools.lru_cache(frame_table)


def _tensors(
    sample: Sample, labels: tuple[Label, ...], groups: tuple[Group, ...]
) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(sample.image).permute(2, 0, 1).contiguous()
    return image, torch.from_numpy(_table(labels, groups, sample.groups)[sample.label])


def validation_picture(
    images: Sequence[Tensor],
    truths: Sequence[Tensor],
    predictions: Sequence[Tensor],
    labels: Sequence[Label],
) -> npt.NDArray[np.uint8]:
    """Draw a row for each image: the image, the truth and the prediction in colours.

    Images are RGB `(3, H, W)`, truths and predictions class indices `(H, W)`, all uint8; indices
    without a class in `labels` are black. Returns RGB `(N * H, 3 * W, 3)`, sized as the first.
    """
    table = color_table([replace(label, id=index) for index, label in enumerate(labels)])
    colors = [table[as_first(indices).numpy()] for indices in (truths, predictions)]
    rgb = as_first(images).permute(0, 2, 3, 1).numpy()
    rows = np.concatenate([rgb, *colors], axis=2)  # (N, H, 3W, 3)
    return rows.reshape(-1, *rows.shape[2:])


def as_first(planes: Sequence[Tensor]) -> Tensor:
    """Stack `(…, H, W)` uint8 tensors as `(N, …, h, w)` of the first's size, by nearest pixels."""
    size = planes[0].shape[-2:]

    def scaled(plane: Tensor) -> Tensor:
        if plane.shape[-2:] == size:
            return plane
        maps = plane.reshape(1, -1, *plane.shape[-2:]).float()
        found = F.interpolate(maps, size, mode="nearest-exact").to(plane.dtype)
        return found.reshape(*plane.shape[:-2], *size)

    return torch.stack([scaled(plane) for plane in planes])
