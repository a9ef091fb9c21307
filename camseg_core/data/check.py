"""Check a labelled data set: report all problems, count classes, and draw a contact sheet."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, spread_numbers
from camseg_core.data.file_set import (
    SIZES_OF_A_PAIR,
    SIZES_OF_A_SPLIT,
    FileSet,
    Pair,
    require_same_size,
)
from camseg_core.data.image_files import IdLabels, read_rgb, turned
from camseg_core.data.image_header import several_pictures
from camseg_core.errors import DataError, absent
from camseg_core.groups import distinguished
from camseg_core.labels import UNLABELLED_COLOR, Label, color_table

Picture = npt.NDArray[np.uint8]

_WIDTH = 320
"""Width in pixels of a picture; a frame takes two, side by side."""

_GAP, _LINE, _COLUMNS = 8, 18, 2
_INK, _PAPER, _OPACITY = (40, 40, 40), 255, 0.6
_SHEET = _COLUMNS * (2 * _WIDTH + 2 * _GAP) + 2 * _GAP


class Problem(Enum):
    """Kinds of findings."""

    SPLIT = "split"
    IMAGE_WITHOUT_LABEL = "image without label"
    LABEL_WITHOUT_IMAGE = "label without image"
    UNREADABLE = "unreadable file"
    SIZE = "size"
    CONTENT = "content of a label"
    ORIENTATION = "orientation tag"
    NOTHING_LABELLED = "nothing labelled"
    MEANING = "meaning of the labels"
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
    class or group, 0..1.
    """

    split: str
    frames: int = 0
    read: int = 0
    findings: tuple[Finding, ...] = ()
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    classes: tuple[ClassShare, ...] = ()
    labelled: float = 0.0


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
    labels = distinguished(files[0].labels, files[0].groups)
    reader = _Reader([label.id for label in labels])
    for each in files:
        for problem in each.found.problems:
            folder = (each.pairs or each.without_label)[0].image.parent
            reader.report(Problem.SPLIT, folder, problem)
        for text in each.found.left_out:
            reader.report(Problem.LEFT_OUT, each.pairs[0].image.parent, text)
        for pair in each.without_label:
            text = f"missing label {absent(pair.label)} of image {pair.image}"
            reader.report(Problem.IMAGE_WITHOUT_LABEL, pair.image, text)
        for path in each.without_image:
            reader.report(Problem.LABEL_WITHOUT_IMAGE, path, f"label without an image: {path}")
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
        reader.report(Problem.NOTHING_LABELLED, files[0].pairs[0].label.parent, text)
    elif reader.read_frames:
        for path in reader.empty:
            text = f"no pixel of {path} has a class: label it, or leave it out"
            reader.report(Problem.NOTHING_LABELLED, path, text)
        if text := _doubtful(files, np.flatnonzero(reader.pixels).tolist()):
            reader.report(Problem.MEANING, files[0].pairs[0].label.parent, text)
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
    )


def _doubtful(files: Sequence[FileSet], ids: Sequence[int]) -> str:
    """Return why labels with these train ids may mean something else; empty without a doubt."""
    assumed = (isinstance(each.decode, IdLabels) and each.decode.assumed for each in files)
    if len(ids) > 2 or not all(assumed):
        return ""  # a mapping states the meaning
    names = {label.id: label.name for label in files[0].labels}
    read = " and ".join(f"{each} as {names.get(each, 'unlabelled')}" for each in ids)
    return (
        f"the labels hold only {' and '.join(map(str, ids))}, as masks of one object do, and are "
        f"read as Cityscapes train ids: {read}; say in a mapping.yaml what they mean"
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
        self._first: tuple[Path, tuple[int, ...]] | None = None

    def report(self, problem: Problem, path: Path, error: DataError | str) -> None:
        self.findings.append(Finding(problem, path, str(error)))

    def read(self, files: FileSet, pair: Pair) -> Sample | None:
        """Return the frame, or None after reporting each problem of image and label."""
        image, raw, label = None, None, None
        try:
            image = read_rgb(pair.image)
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
            if note := turned(path):
                self.report(Problem.ORIENTATION, path, note)
            if several_pictures(path.read_bytes()):
                text = f"{path} holds several pictures: only the first is read"
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


class ContactSheet:
    """Collects frames that are evenly spread over each split, `per_split` of them."""

    def __init__(self, per_split: int) -> None:
        self._per_split = per_split
        self._tiles: list[Picture] = []
        self._labels: dict[Label, None] = {}
        self._split, self._wanted = "", frozenset[int]()

    def begin(self, split: str, labels: Sequence[Label], count: int) -> None:
        """Start a split with `count` frames."""
        self._split, self._wanted = split, frozenset(spread_numbers(count, self._per_split))
        self._labels |= dict.fromkeys(labels)

    def add(self, number: int, sample: Sample) -> None:
        """Keep the frame if it is to be shown."""
        if number in self._wanted:
            title = f"{self._split}: {sample.name}"
            self._tiles.append(_tile(sample, title, tuple(self._labels)))

    def picture(self) -> Picture | None:
        """Return the sheet, RGB; None if there is no frame."""
        if not self._tiles:
            return None
        rows = [self._tiles[i : i + _COLUMNS] for i in range(0, len(self._tiles), _COLUMNS)]
        legend = [(label.name, label.color) for label in self._labels]
        return np.concatenate(
            [*(_row(row) for row in rows), _legend([*legend, ("not labelled", UNLABELLED_COLOR)])]
        )


def _tile(sample: Sample, title: str, labels: Sequence[Label]) -> Picture:
    """Draw image and labelled image with the title below; pixels without a class are darkened."""
    height = max(1, round(sample.label.shape[0] * _WIDTH / sample.label.shape[1]))
    size = (_WIDTH, height)
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    ids = cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST)
    colors = color_table(labels)[ids]
    tile = np.full((height + _LINE + _GAP, 2 * _WIDTH + 2 * _GAP, 3), _PAPER, np.uint8)
    tile[:height, _GAP : _GAP + _WIDTH] = image
    tile[:height, _GAP + _WIDTH : _GAP + 2 * _WIDTH] = cv2.addWeighted(
        colors, _OPACITY, image, 1 - _OPACITY, 0
    )
    _write(tile, title, (_GAP, height + _LINE - 5))
    return tile


def _row(tiles: Sequence[Picture]) -> Picture:
    row = np.full((_GAP + max(len(tile) for tile in tiles), _SHEET, 3), _PAPER, np.uint8)
    x = _GAP
    for tile in tiles:
        row[_GAP : _GAP + len(tile), x : x + tile.shape[1]] = tile
        x += tile.shape[1]
    return row


def _legend(entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Picture:
    cell = min(_SHEET, max(260, 40 + 7 * max(len(text) for text, _ in entries)))
    columns = _SHEET // cell
    lines = -(-len(entries) // columns)
    legend = np.full((2 * _GAP + lines * (_LINE + 4), _SHEET, 3), _PAPER, np.uint8)
    for i, (text, color) in enumerate(entries):
        x, y = 2 * _GAP + (i % columns) * cell, _GAP + (i // columns) * (_LINE + 4)
        legend[y : y + 14, x : x + 14] = color
        _write(legend, text, (x + 20, y + 12))
    return legend


def _write(picture: Picture, text: str, at: tuple[int, int]) -> None:
    ascii_text = text.encode("ascii", "backslashreplace").decode()  # the font has no more
    cv2.putText(picture, ascii_text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
