"""What label files hold, ids or colours, to Cityscapes train ids."""

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
"""So many unexpected values are named in a message."""

_UNKNOWN = 254
"""Stands for a value without a meaning in the tables below; no train id is that high."""


class LabelDecoder(Protocol):
    """What a label file holds, as `read_unchanged` gives it, to train ids `(H, W)`; `path` is for the message.

    Raises DataError of one line where the file is of another kind, or holds a value without a meaning.
    """

    def __call__(self, raw: Raw, path: Path) -> Ids: ...


class IdLabels:
    """Labels in one channel of class ids.

    `train_ids` is the train id by id in the file; `whose` and `ids` are for messages: whose ids they are, and which there are.
    """

    def __init__(
        self, train_ids: Mapping[int, int], whose: str, ids: str, others: int | None = None
    ) -> None:
        """Ids that are not in `train_ids` become `others`, or are refused where that is None."""
        self._train_ids, self._whose, self._ids, self._others = dict(train_ids), whose, ids, others

    def __call__(self, raw: Raw, path: Path) -> Ids:
        if raw.ndim != 2:
            raise DataError(
                f"{path} has {raw.shape[2]} channels, as a picture in colours has: expected one channel that holds class ids, {self._ids}"
            )
        return self._decode(raw, path)

    def _decode(self, raw: Raw, path: Path) -> Ids:
        if self._others is None:
            seen = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
            unknown = [str(each) for each in seen if int(each) not in self._train_ids]
            if unknown:
                raise DataError(
                    f"{path} holds class ids {_few(unknown)}: {self._whose} has {self._ids}"
                )
        return self._table[raw]

    @cached_property
    def _table(self) -> Ids:
        """The train id by id in the file, for all that 16 bits can hold."""
        table = np.full(1 << 16, UNLABELLED if self._others is None else self._others, np.uint8)
        table[list(self._train_ids)] = list(self._train_ids.values())
        return table


class RedIdLabels(IdLabels):
    """Labels in the red channel of a colour PNG; the other two are of no concern here, such as the numbers of instances."""

    def __call__(self, raw: Raw, path: Path) -> Ids:
        if raw.ndim != 3 or raw.dtype != np.uint8:
            raise DataError(
                f"{path} is no picture in 8-bit colours: expected class ids in its red channel, {self._ids}"
            )
        return self._decode(raw[..., 2], path)  # OpenCV has blue first


class ColorLabels:
    """Labels in the colours of their classes: `train_ids` is the train id by RGB; `whose` colours they are is for messages."""

    def __init__(
        self, train_ids: Mapping[Color, int], whose: str, others: int | None = None
    ) -> None:
        """Colours that are not in `train_ids` become `others`, or are refused where that is None."""
        self._train_ids, self._whose, self._others = dict(train_ids), whose, others

    def __call__(self, raw: Raw, path: Path) -> Ids:
        if raw.ndim != 3 or raw.dtype != np.uint8:
            raise DataError(
                f"{path} is no picture in 8-bit colours: expected the colours of {self._whose}"
            )
        blue, green, red = (raw[..., i].astype(np.uint32) for i in range(3))
        packed = (red << 16) | (green << 8) | blue
        label: Ids = self._table[packed]
        unknown = label == _UNKNOWN
        if unknown.any():
            colors, counts = np.unique(packed[unknown], return_counts=True)
            named = [f"{tuple(_rgb(int(color)))}" for color in colors[np.argsort(-counts)]]
            raise DataError(
                f"{path} holds the colours {_few(named)} in {counts.sum()} pixels: {self._whose} has no such class"
            )
        return label

    @cached_property
    def _table(self) -> Ids:
        """The train id by packed colour: 16 MB, but as fast as a label can be read."""
        table = np.full(1 << 24, _UNKNOWN if self._others is None else self._others, np.uint8)
        for (red, green, blue), train_id in self._train_ids.items():
            table[(red << 16) | (green << 8) | blue] = train_id
        return table


def _rgb(packed: int) -> Color:
    return packed >> 16, packed >> 8 & 255, packed & 255


def _few(values: list[str]) -> str:
    return ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
