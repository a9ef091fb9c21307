"""Frames of a data set with their labels on one picture, to see at a glance whether the labels are what they should be."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.sample import Sample
from camseg_core.labels import Label, color_table

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
    return Shown(title, image, np.asarray(cv2.addWeighted(colors, _OPACITY, image, 1 - _OPACITY, 0), np.uint8))


def contact_sheet(frames: Sequence[Shown], legend: Sequence[tuple[str, tuple[int, int, int]]]) -> Picture:
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
