"""Check a labelled data set: report all problems, count classes, and draw a contact sheet."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.bit_depth import white_of
from camseg_core.data import Sample
from camseg_core.data.file_set import (
    SIZES_OF_A_PAIR,
    SIZES_OF_A_SPLIT,
    FileSet,
    Pair,
    joined_labels,
    require_same_size,
)
from camseg_core.data.image_files import read_rgb_and_brightest, too_dark, turned
from camseg_core.data.image_header import several_pictures
from camseg_core.data.label_decoders import IdLabels
from camseg_core.data.sets.kind import SPLITS
from camseg_core.errors import DataError, absent
from camseg_core.groups import distinguished
from camseg_core.labels import Label


class Problem(Enum):
    """Kinds of findings."""

    SPLIT = "split"
    IMAGE_WITHOUT_LABEL = "image without label"
    LABEL_WITHOUT_IMAGE = "label without image"
    UNREADABLE = "unreadable file"
    SIZE = "size"
    CONTENT = "content of a label"
    ORIENTATION = "orientation tag"
    RANGE = "range of values"
    NOTHING_LABELLED = "nothing labelled"
    MEANING = "meaning of the labels"
    SHARED = "frame in two splits"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Finding:
    """A problem: its kind, the file or folder, and one line that describes it."""

    problem: Problem
    path: Path
    text: str


@dataclass(frozen=True)
class ClassShare:
    """The share of a class or group in the labelled pixels, 0..1, and how many frames show it."""

    label: Label
    share: float
    frames: int


@dataclass(frozen=True)
class SplitCheck:
    """The result for one split.

    `frames` is the number of images, `read` the number of frames without a problem. `sizes` counts
    frames by (width, height). `classes` lists groups last. `labelled` is the share of pixels with a
    class or group, 0..1. `images` are the image files by digest of their content; those of a single
    colour by path, as they are alike by nature.
    """

    split: str
    frames: int = 0
    read: int = 0
    findings: tuple[Finding, ...] = ()
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    classes: tuple[ClassShare, ...] = ()
    labelled: float = 0.0
    images: Mapping[str, Path] = field(default_factory=dict)


def with_shared_frames(checks: Sequence[SplitCheck]) -> list[SplitCheck]:
    """Return the results with a finding for each image that an earlier split has, too.

    Only `SPLITS` count: others may be made of them, as Pascal VOC's `trainval` is.
    """
    before: dict[str, tuple[str, Path]] = {}
    found = []
    for check in checks:
        findings = list(check.findings)
        for digest, path in check.images.items() if check.split in SPLITS else ():
            split, first = before.setdefault(digest, (check.split, path))
            if split != check.split:
                where = "" if first == path else f", as {first}"
                text = (
                    f"{path} is in {split}, too{where}: keep it in one split, or scores on {split} "
                    f"and {check.split} are not independent"
                )
                findings.append(Finding(Problem.SHARED, path, text))
        found.append(replace(check, findings=tuple(findings)))
    return found


def check_split(
    split: str,
    files: Sequence[FileSet],
    progress: Callable[[Iterable[Pair]], Iterable[Pair]] = lambda pairs: pairs,
    on_sample: Callable[[int, Sample], None] = lambda number, sample: None,
) -> SplitCheck:
    """Read every file of a split and report everything that is wrong.

    Args:
        split: its name.
        files: its files, from `SetKind.files`.
        progress: wraps the iteration over the pairs, to show progress.
        on_sample: called with the index of a pair and its frame, if the frame has no problem.
    """
    labels = distinguished(*joined_labels(files))
    reader = _Reader([label.id for label in labels])
    for each in files:
        for problem in each.found.problems:
            reader.report(Problem.SPLIT, _folder(each), problem)
        for text in each.found.left_out:
            reader.report(Problem.LEFT_OUT, _folder(each), text)
        for pair in each.without_label:
            text = f"missing label {absent(pair.label)} of image {pair.image}"
            reader.report(Problem.IMAGE_WITHOUT_LABEL, pair.image, text)
        for path in each.without_image:
            text = f"label without an image: {path}{each.note_on(path)}"
            reader.report(Problem.LABEL_WITHOUT_IMAGE, path, text)
    owners = [each for each in files for _ in each.pairs]
    pairs = progress(pair for each in files for pair in each.pairs)
    for number, (owner, pair) in enumerate(zip(owners, pairs, strict=True)):
        sample = reader.read(owner, pair)
        if sample is not None:
            on_sample(number, sample)
    known = reader.pixels[reader.ids]
    if reader.read_frames and not known.any():
        text = (
            f"no pixel of the {reader.read_frames} frames has a class: sets whose test labels are "
            "withheld may contain placeholders"
        )
        reader.report(Problem.NOTHING_LABELLED, _folder(files[0]), text)
    elif reader.read_frames:
        for path in reader.empty:
            text = f"no pixel of {path} has a class: label it, or leave it out"
            reader.report(Problem.NOTHING_LABELLED, path, text)
        if text := _doubtful(files, np.flatnonzero(reader.pixels).tolist()):
            reader.report(Problem.MEANING, _folder(files[0]), text)
    brightest, path = reader.brightest
    if (white := white_of(brightest)) is not None:
        reader.report(Problem.RANGE, path, f"{path}, the brightest: {too_dark(white)}")
    total = max(1, int(known.sum()))
    return SplitCheck(
        split,
        frames=sum(len(each.pairs) + len(each.without_label) for each in files),
        read=reader.read_frames,
        findings=tuple(reader.findings),
        sizes=dict(sorted(reader.sizes.items())),
        classes=tuple(
            ClassShare(label, float(pixels / total), int(reader.frames_with[label.id]))
            for label, pixels in zip(labels, known, strict=True)
        ),
        labelled=float(known.sum() / max(1, reader.pixels.sum())),
        images=reader.images,
    )


def _folder(files: FileSet) -> Path:
    """Return the folder of a split's images."""
    return (files.found.pairs[0].image if files.found.pairs else Path()).parent


def _doubtful(files: Sequence[FileSet], ids: Sequence[int]) -> str:
    """Return why labels with these train ids may mean something else; empty without a doubt."""
    decode = files[0].decode  # the same for all, as they are of one set
    if len(ids) > 2 or not isinstance(decode, IdLabels) or not decode.assumed:
        return ""  # a mapping states the meaning
    names = {label.id: label.name for label in files[0].labels}
    meant = sorted(
        (stored, names.get(id, "unlabelled")) for id in ids for stored in decode.stored(id)
    )
    held = " and ".join(str(stored) for stored, _ in meant)
    read = " and ".join(f"{stored} as {name}" for stored, name in meant)
    return (
        f"the labels hold only {held}, as masks of one object do, and are read as those of "
        f"{decode.source}: {read}; say in a mapping.yaml what they mean"
    )


class _Reader:
    """Reads frames; collects findings, sizes, counts by train id, and images without a class."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self.empty: list[Path] = []
        self.findings: list[Finding] = []
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.pixels: npt.NDArray[np.int64] = np.zeros(256, np.int64)
        self.frames_with: npt.NDArray[np.int64] = np.zeros(256, np.int64)
        self.read_frames = 0
        self.brightest = (0, Path())
        self.images: dict[str, Path] = {}
        self._first: tuple[Path, tuple[int, ...]] | None = None

    def report(self, problem: Problem, path: Path, error: DataError | str) -> None:
        self.findings.append(Finding(problem, path, str(error)))

    def read(self, files: FileSet, pair: Pair) -> Sample | None:
        """Return the frame, or None after reporting each problem of image and label."""
        image, raw, label = None, None, None
        try:
            image, brightest = read_rgb_and_brightest(pair.image)
            self.brightest = max(self.brightest, (brightest, pair.image))
        except DataError as error:
            self.report(Problem.UNREADABLE, pair.image, error)
        try:
            raw = files.read_label(pair)
        except DataError as error:
            self.report(Problem.UNREADABLE, pair.label, error)
        if raw is not None:
            try:
                label = files.train_ids(raw, pair)
            except DataError as error:
                self.report(Problem.CONTENT, pair.label, error)
        if image is None or raw is None:
            return None
        for path in (pair.image, pair.label) if pair.drawing is None else (pair.image,):
            content = path.read_bytes()
            if path == pair.image:
                plain = bool((image == image[:1, :1]).all())
                seen = os.fsencode(os.path.realpath(path)) if plain else content
                self.images[hashlib.blake2b(seen, digest_size=16).hexdigest()] = path
            if note := turned(path):
                self.report(Problem.ORIENTATION, path, note)
            if several_pictures(content):
                text = f"{path} holds several images: only the first is read"
                self.report(Problem.LEFT_OUT, path, text)
        size = image.shape[:2]
        height, width = files.size_read(size)
        self.sizes[width, height] += 1
        self._first = self._first or (pair.image, size)
        try:
            require_same_size(pair.label, raw.shape[:2], pair.image, size, SIZES_OF_A_PAIR)
            if files.same_size:
                require_same_size(pair.image, size, *self._first, SIZES_OF_A_SPLIT)
        except DataError as error:
            self.report(Problem.SIZE, pair.image, error)
            return None
        if label is None:
            return None
        sample = files.sample(pair, image, label)
        counts = np.bincount(sample.label.ravel(), minlength=256)
        self.pixels += counts
        self.frames_with += counts > 0
        if not counts[self.ids].any():
            self.empty.append(pair.image)
        self.read_frames += 1
        return sample
