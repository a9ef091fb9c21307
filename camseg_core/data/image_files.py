"""Read and write image files, and decode those that hold labels to Cityscapes train ids.

Damaged files are refused, because a decoder would fill their gaps silently.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError, is_out_of_memory
from camseg_core.labels import UNLABELLED

Raw = npt.NDArray[np.uint8 | np.uint16]
Ids = npt.NDArray[np.uint8]

Color = tuple[int, int, int]

_SHOWN = 5
"""At most this many unexpected values are named in an error."""

_UNKNOWN = 254
"""Marks a colour without a meaning in the table; no train id is that high."""

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB `(H, W, 3)`.

    Raises:
        DataError: see `read_unchanged`.
    """
    return np.asarray(cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def read_unchanged(path: Path) -> npt.NDArray[np.uint8 | np.uint16]:
    """Read a picture as stored: `(H, W)` for one channel, else `(H, W, C)`; bit depth of the file.

    Raises:
        DataError: the file cannot be opened, is empty, cut off, damaged, or not an image; the
            message names it.
    """
    return _decode(path, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, flags: int) -> npt.NDArray[np.uint8 | np.uint16]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise DataError(f"{path} is empty (0 bytes): copy it again")
    if _is_cut_off(content):
        raise DataError(f"{path} is cut off: its end is missing; copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        if is_out_of_memory(error):
            raise DataError(
                f"the memory does not suffice for {path}: scale it down, or free some memory"
            ) from error
        if "CV_IO_MAX_IMAGE" in str(error):
            raise DataError(
                f"{path} has more pixels than OpenCV reads: scale it down, or set "
                "OPENCV_IO_MAX_IMAGE_PIXELS"
            ) from error
        image = None
    if image is None:
        raise DataError(
            f"cannot read {path}: it is damaged or not an image; "
            "copy it again, or move it out of the folder"
        )
    return np.asarray(image)


def write_image(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write RGB `(H, W, 3)` or ids `(H, W)` in the format of the path's suffix; make its folder.

    Raises:
        DataError: the file cannot be written.
    """
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    content = cv2.imencode(path.suffix, stored)[1].tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # OpenCV cannot write to names that are not UTF-8
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; name a folder that can be written"
        ) from error


def _is_cut_off(content: bytes) -> bool:
    """Whether the end is missing, which OpenCV does not report: libjpeg fills the rest with grey.

    A JPEG is whole if the end marker follows its last scan: the marker cannot occur in a scan, and
    a thumbnail in the header ends before it.
    """
    if content.startswith(_JPEG):
        return content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
    return content.startswith(_PNG) and _PNG_END not in content


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
