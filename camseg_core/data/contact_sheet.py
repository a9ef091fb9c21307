"""A contact sheet: images of a data set beside their labels, to look at."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, spread_numbers
from camseg_core.labels import UNLABELLED_COLOR, Label, color_table

Picture = npt.NDArray[np.uint8]


_WIDTH = 320
"""Width in pixels of a picture; a frame takes two, side by side."""


_GAP, _LINE, _COLUMNS = 8, 18, 2


_INK, _PAPER, _OPACITY = (40, 40, 40), 255, 0.6


_SHEET = _COLUMNS * (2 * _WIDTH + 2 * _GAP) + 2 * _GAP


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
