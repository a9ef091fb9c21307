"""A look through a whole labelled data set: everything that is wrong with it at once, and what it holds."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.file_set import (
    SIZES_OF_A_PAIR,
    SIZES_OF_A_SPLIT,
    FileSet,
    Pair,
    require_same_size,
)
from camseg_core.data.image_file import read_rgb, read_unchanged
from camseg_core.data.label_files import Ids
from camseg_core.data.sample import Sample
from camseg_core.errors import DataError
from camseg_core.labels import Label, color_table


class Problem(Enum):
    """Kinds of findings."""

    SPLIT = "split"
    IMAGE_WITHOUT_LABEL = "image without label"
    LABEL_WITHOUT_IMAGE = "label without image"
    UNREADABLE = "unreadable file"
    SIZE = "size"
    CONTENT = "content of a label"
    NOTHING_LABELLED = "nothing labelled"


@dataclass(frozen=True)
class Finding:
    """Something wrong: of which kind, the file or folder, and a line that says what."""

    problem: Problem
    path: Path
    text: str


@dataclass(frozen=True)
class ClassShare:
    """Of a class: its share of the labelled pixels, 0..1, and in how many frames it is."""

    label: Label
    share: float
    frames: int


@dataclass(frozen=True)
class SplitCheck:
    """What was found in a split. `frames` counts the images; `sizes` counts the frames of each (width, height) that could be read.

    `labelled` is the share of pixels that have a class; 0 where no frame could be read.
    """

    split: str
    frames: int
    read: int
    findings: tuple[Finding, ...]
    sizes: dict[tuple[int, int], int]
    classes: tuple[ClassShare, ...]
    labelled: float


@dataclass
class _Tally:
    findings: list[Finding] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray[tuple[int], np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    frames_with: np.ndarray[tuple[int], np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    read: int = 0
    first: tuple[Path, tuple[int, ...]] | None = None

    def found(self, problem: Problem, path: Path, error: DataError | str) -> None:
        self.findings.append(Finding(problem, path, str(error)))


def _as_they_come(pairs: Iterable[Pair]) -> Iterable[Pair]:
    return pairs


def check_split(
    split: str,
    files: Sequence[FileSet],
    progress: Callable[[Iterable[Pair]], Iterable[Pair]] = _as_they_come,
    seen: Callable[[int, Sample], None] | None = None,
) -> SplitCheck:
    """Read every file of a split and tell all that is wrong with it.

    Args:
        split: its name.
        files: its files, as `SetKind.files` finds them.
        progress: called with the pairs of image and label, yields the same ones while it shows how far they are.
        seen: called with the number of a frame among the pairs and the frame, if it could be read.
    """
    tally = _Tally()
    for each in files:
        for problem in each.problems:
            tally.found(Problem.SPLIT, (each.pairs or each.without_label)[0].image.parent, problem)
        for pair in each.without_label:
            tally.found(
                Problem.IMAGE_WITHOUT_LABEL,
                pair.image,
                f"missing label {pair.label} of image {pair.image}",
            )
        for path in each.without_image:
            tally.found(Problem.LABEL_WITHOUT_IMAGE, path, f"label without an image: {path}")
    owners = [each for each in files for _ in each.pairs]
    for number, (owner, pair) in enumerate(
        zip(owners, progress(pair for each in files for pair in each.pairs), strict=True)
    ):
        sample = _read(owner, pair, tally)
        if sample is not None and seen is not None:
            seen(number, sample)
    labels = files[0].labels
    known = tally.pixels[[label.id for label in labels]]
    if tally.read and not known.any():
        text = f"no pixel of the {tally.read} frames has a class: in sets whose test labels are withheld, files may stand in for them"
        tally.found(Problem.NOTHING_LABELLED, files[0].pairs[0].label.parent, text)
    total = max(1, int(known.sum()))
    return SplitCheck(
        split,
        frames=sum(len(each.pairs) + len(each.without_label) for each in files),
        read=tally.read,
        findings=tuple(tally.findings),
        sizes=dict(sorted(tally.sizes.items())),
        classes=tuple(
            ClassShare(label, float(pixels / total), int(tally.frames_with[label.id]))
            for label, pixels in zip(labels, known, strict=True)
        ),
        labelled=float(known.sum() / max(1, tally.pixels.sum())),
    )


def _read(files: FileSet, pair: Pair, tally: _Tally) -> Sample | None:
    """The frame, if nothing is wrong with it; all that is, is told. One bad file does not hide what is wrong with the other."""
    image, raw, label = None, None, None
    try:
        image = read_rgb(pair.image)
    except DataError as error:
        tally.found(Problem.UNREADABLE, pair.image, error)
    try:
        raw = read_unchanged(pair.label)
    except DataError as error:
        tally.found(Problem.UNREADABLE, pair.label, error)
    if raw is not None:
        try:
            label = files.decode(raw, pair.label)
        except DataError as error:
            tally.found(Problem.CONTENT, pair.label, error)
    if image is None or raw is None:
        return None
    size = image.shape[:2]
    tally.sizes[size[1], size[0]] += 1
    tally.first = tally.first or (pair.image, size)
    try:
        require_same_size(pair.label, raw.shape[:2], pair.image, size, SIZES_OF_A_PAIR)
        if files.same_size:
            require_same_size(pair.image, size, *tally.first, SIZES_OF_A_SPLIT)
    except DataError as error:
        tally.found(Problem.SIZE, pair.image, error)
        return None
    if label is None:
        return None
    _count(label, tally)
    return Sample(image, label, pair.name)


def _count(label: Ids, tally: _Tally) -> None:
    counts = np.bincount(label.ravel(), minlength=256)
    tally.pixels += counts
    tally.frames_with += counts > 0
    tally.read += 1


Picture = npt.NDArray[np.uint8]

_TILE = 320
"""Width of a picture in pixels; a frame is two of them side by side."""

_GAP, _LINE = 8, 18
_COLUMNS = 2
_INK, _PAPER = (40, 40, 40), 255
_OPACITY = 0.6
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


@dataclass(frozen=True)
class Shown:
    """A frame small enough to be kept: its title, and the image and the label over it, RGB."""

    title: str
    image: Picture
    labelled: Picture


def shown(sample: Sample, title: str, labels: Sequence[Label]) -> Shown:
    """The frame at the size of the sheet; what has none of the `labels` keeps the camera's colours, darkened."""
    height, width = sample.label.shape
    size = (_TILE, max(1, round(height * _TILE / width)))
    image = np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    ids = np.asarray(cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    colors = color_table(labels)[ids]  # black where there is none of them
    return Shown(
        title,
        image,
        np.asarray(cv2.addWeighted(colors, _OPACITY, image, 1 - _OPACITY, 0), np.uint8),
    )


def contact_sheet(
    frames: Sequence[Shown], legend: Sequence[tuple[str, tuple[int, int, int]]]
) -> Picture:
    """The frames, image and labelled image beside each other with the title below, and the names and colours of the legend, RGB."""
    tiles = [_tile(frame) for frame in frames]
    rows = [tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS)]
    width = _COLUMNS * (2 * _TILE + 2 * _GAP) + 2 * _GAP
    strips = [_strip(row, width) for row in rows]
    return np.concatenate([*strips, _legend(legend, width)])


def _tile(frame: Shown) -> Picture:
    height = frame.image.shape[0]
    tile = np.full((height + _LINE + _GAP, 2 * _TILE + 2 * _GAP, 3), _PAPER, np.uint8)
    tile[:height, _GAP : _GAP + _TILE] = frame.image
    tile[:height, _GAP + _TILE : _GAP + 2 * _TILE] = frame.labelled
    _write(tile, frame.title, (_GAP, height + _LINE - 5))
    return tile


def _strip(tiles: Sequence[Picture], width: int) -> Picture:
    strip = np.full((_GAP + max(len(tile) for tile in tiles), width, 3), _PAPER, np.uint8)
    x = _GAP
    for tile in tiles:
        strip[_GAP : _GAP + len(tile), x : x + tile.shape[1]] = tile
        x += tile.shape[1]
    return strip


def _legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Picture:
    columns, cell = max(1, width // 260), 260
    lines = -(-len(entries) // columns)
    strip = np.full((2 * _GAP + lines * (_LINE + 4), width, 3), _PAPER, np.uint8)
    for i, (text, color) in enumerate(entries):
        x, y = 2 * _GAP + (i % columns) * cell, _GAP + (i // columns) * (_LINE + 4)
        strip[y : y + 14, x : x + 14] = color
        _write(strip, text, (x + 20, y + 12))
    return strip


def _write(picture: Picture, text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, _FONT, _SCALE, _INK, 1, cv2.LINE_AA)
