"""Decode label files, which hold ids or colours, to Cityscapes train ids."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError
from camseg_core.labels import UNLABELLED

Raw = npt.NDArray[np.uint8 | np.uint16]
Ids = npt.NDArray[np.uint8]

Color = tuple[int, int, int]

_SHOWN = 5
"""At most this many unexpected values are named in an error."""

_UNKNOWN = 254
"""Marks a colour without a meaning in the table; no train id is that high."""


class LabelDecoder(Protocol):
    """Turns the content of a label file, from `read_unchanged`, into train ids `(H, W)`.

    Raises:
        DataError: the file is of another kind, or holds a value without a meaning; names `path`.
    """

    def __call__(self, raw: Raw, path: Path) -> Ids: ...


class IdLabels:
    """Decodes one channel of class ids.

    Args:
        train_ids: train id by id in the file.
        source: whose ids they are, for errors.
        ids: which ids there are, for errors.
        others: train id of all ids that are not in `train_ids`; None refuses them.
    """

    def __init__(
        self, train_ids: Mapping[int, int], source: str, ids: str, others: int | None = None
    ) -> None:
        self._train_ids, self._source, self._ids = dict(train_ids), source, ids
        self._others = others

    def __call__(self, raw: Raw, path: Path) -> Ids:
        if raw.ndim != 2:
            raise DataError(
                f"{path} has {raw.shape[2]} channels, like a colour picture: "
                f"expected one channel of class ids, {self._ids}"
            )
        return self._decode(raw, path)

    def _decode(self, raw: Raw, path: Path) -> Ids:
        if self._others is None:
            seen = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
            unknown = [str(each) for each in seen if int(each) not in self._train_ids]
            if unknown:
                raise DataError(
                    f"{path} holds class ids {_few(unknown)}: {self._source} has {self._ids}"
                )
        return self._table[raw]

    @cached_property
    def _table(self) -> Ids:
        """Train id by id in the file, for every 16-bit value."""
        table = np.full(1 << 16, UNLABELLED if self._others is None else self._others, np.uint8)
        table[list(self._train_ids)] = list(self._train_ids.values())
        return table


class RedIdLabels(IdLabels):
    """Decodes class ids in the red channel of a colour PNG and ignores the other channels."""

    def __call__(self, raw: Raw, path: Path) -> Ids:
        _require_colors(raw, path, f"class ids in the red channel, {self._ids}")
        return self._decode(raw[..., 2], path)  # OpenCV stores BGR


class ColorLabels:
    """Decodes the colours of classes.

    Args:
        train_ids: train id by RGB.
        source: whose colours they are, for errors.
        others: train id of all colours that are not in `train_ids`; None refuses them.
    """

    def __init__(
        self, train_ids: Mapping[Color, int], source: str, others: int | None = None
    ) -> None:
        self._train_ids, self._source, self._others = dict(train_ids), source, others

    def __call__(self, raw: Raw, path: Path) -> Ids:
        _require_colors(raw, path, f"the colours of {self._source}")
        blue, green, red = (raw[..., i].astype(np.uint32) for i in range(3))
        packed = (red << 16) | (green << 8) | blue
        label: Ids = self._table[packed]
        unknown = label == _UNKNOWN
        if unknown.any():
            colors, counts = np.unique(packed[unknown], return_counts=True)
            named = [
                str((color >> 16, color >> 8 & 255, color & 255))
                for color in colors[np.argsort(-counts)].tolist()
            ]
            raise DataError(
                f"{path} holds the colours {_few(named)} in {counts.sum()} pixels: "
                f"{self._source} has no such class"
            )
        return label

    @cached_property
    def _table(self) -> Ids:
        """Train id by packed RGB: 16 MB for a lookup without a search."""
        table = np.full(1 << 24, _UNKNOWN if self._others is None else self._others, np.uint8)
        for (red, green, blue), train_id in self._train_ids.items():
            table[(red << 16) | (green << 8) | blue] = train_id
        return table


def _require_colors(raw: Raw, path: Path, expected: str) -> None:
    if raw.ndim != 3 or raw.dtype != np.uint8:
        raise DataError(f"{path} is not an 8-bit colour picture: expected {expected}")


def _few(values: list[str]) -> str:
    return ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
