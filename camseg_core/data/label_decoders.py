"""Decodes the content of label files to train ids."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.data.image_files import Ids, Raw, is_palette_png
from camseg_core.errors import DataError
from camseg_core.labels import STORED_TRAIN_IDS, UNLABELLED, Label

Color = tuple[int, int, int]


_SHOWN = 5
"""Largest number of unexpected values that an error names."""


_UNKNOWN = 254
"""Marks a colour without a meaning in the table; no train id is that high."""


class LabelDecoder(Protocol):
    """Turns the content of a label file, from `read_label`, into train ids `(H, W)`.

    Raises:
        DataError: the file is of another kind, or holds a value without a meaning; names `path`.
    """

    def __call__(self, raw: Raw, path: Path) -> Ids: ...


class IdLabels:
    """Decodes one channel of class ids.

    Args:
        train_ids: train id by id in the file.
        source: whose ids they are, for errors.
        ids: the valid ids, for errors.
        others: train id of all ids that are not in `train_ids`; None refuses them.
        assumed: whether this meaning is assumed because nothing states another.
        if_train_ids: ends the error if a file with unknown ids could hold Cityscapes train ids.
    """

    def __init__(
        self,
        train_ids: Mapping[int, int],
        source: str,
        ids: str,
        others: int | None = None,
        assumed: bool = False,
        if_train_ids: str = "",
    ) -> None:
        self._train_ids, self.source, self._ids = dict(train_ids), source, ids
        self._others, self.assumed, self._if_train_ids = others, assumed, if_train_ids

    def stored(self, train_id: int) -> list[int]:
        """Return the ids in files that stand for a train id."""
        return [each for each, found in self._train_ids.items() if found == train_id]

    def __call__(self, raw: Raw, path: Path) -> Ids:
        if raw.ndim != 2:
            if is_palette_png(path):
                raise DataError(
                    f"{path} is a PNG with a palette, whose colours are read, not its indices: "
                    f"store the class ids in a grey PNG, or list the colours in a mapping "
                    f"(expected {self._ids})"
                )
            alpha = " (with alpha)" if raw.shape[2] == 4 else ""
            raise DataError(
                f"{path} has {raw.shape[2]} channels{alpha}, like a colour image: "
                f"expected one channel of class ids, {self._ids}"
            )
        if raw.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{path} holds {raw.dtype} numbers: class ids must have 8 or 16 bits without sign; "
                "store it as PNG"
            )
        return self._decode(raw, path)

    def _decode(self, raw: Raw, path: Path) -> Ids:
        if self._others is None:
            seen = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
            unknown = [str(each) for each in seen if int(each) not in self._train_ids]
            if unknown:
                hint = self._if_train_ids if {*seen.tolist()} <= STORED_TRAIN_IDS.keys() else ""
                raise DataError(
                    f"{path} holds class ids {_few(unknown)}: {self.source} has {self._ids}{hint}"
                )
        return self._table[raw]

    @cached_property
    def _table(self) -> Ids:
        """Train id by id in the file, for every 16-bit value."""
        table = np.full(1 << 16, UNLABELLED if self._others is None else self._others, np.uint8)
        table[list(self._train_ids)] = list(self._train_ids.values())
        return table


def table_ids(
    source: str, labels: Sequence[Label], others: int | None, assumed: bool = False
) -> IdLabels:
    """Return a decoder of files that hold the ids of these classes; see `IdLabels`."""
    numbers = sorted(label.id for label in labels)
    rising = numbers == [*range(len(numbers))]
    listed = f"0 to {numbers[-1]}" if rising else ", ".join(map(str, numbers))
    ids = (
        f"{listed}, and {UNLABELLED} for unlabelled; for other ids, or colours, give --mapping FILE"
    )
    stored = {**{i: i for i in numbers}, UNLABELLED: UNLABELLED}
    return IdLabels(stored, source, ids, others, assumed)


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

    Transparent pixels, of pictures with an alpha channel, are unlabelled.
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
        if raw.shape[2] == 4:
            label[_transparent(raw[..., 3], path)] = UNLABELLED
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
        kind = "one channel" if raw.ndim != 3 else f"{8 * raw.itemsize} bits a channel"
        raise DataError(
            f"{path} is not an 8-bit colour image: expected {expected}, got {kind}; "
            "store it as a PNG in 8-bit RGB"
        )


def _transparent(alpha: Raw, path: Path) -> npt.NDArray[np.bool_]:
    """Return where a label is transparent.

    Raises:
        DataError: a pixel is neither transparent nor opaque.
    """
    partly = (alpha > 0) & (alpha < 255)
    if partly.any():
        raise DataError(
            f"{path} is half transparent in {partly.sum()} pixels: a label must be opaque, or "
            "transparent where it has no class; draw it without smoothed borders"
        )
    return alpha == 0


def _few(values: list[str]) -> str:
    return ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
