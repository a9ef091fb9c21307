"""Labels that annotation tools store as areas instead of pictures, and their JSON files."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from unicodedata import normalize

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError, memory_for
from camseg_core.labels import UNLABELLED

Ids = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Size = tuple[int, int]
Point = tuple[float, float]

_FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")

_MARGIN = 1.0
"""Pixels that a point may lie outside of the image: tools round differently."""


class Area(Protocol):
    """Pixels of one class."""

    def mask(self, size: Size) -> Mask:
        """Return the mask `(H, W)` in an image of this size.

        Raises:
            DataError: the data are damaged.
        """


@dataclass(frozen=True)
class Drawing:
    """A label as areas, each with its id in labels; `shape` is the image's height and width."""

    shape: Size
    areas: tuple[tuple[int, Area], ...]

    def label(self, path: Path) -> Ids:
        """Draw the areas in their order, later ones on top; pixels outside of all are unlabelled.

        Raises:
            DataError: an area of the file `path` is damaged.
        """
        with memory_for(path):
            label = np.full(self.shape, UNLABELLED, np.uint8)
            for id, area in self.areas:
                try:
                    label[area.mask(self.shape)] = id
                except DataError as error:
                    raise DataError(f"{path}: {error}") from error
        return label


@dataclass(frozen=True)
class Polygon:
    """A polygon of (x, y) points, border included."""

    points: tuple[Point, ...]

    def mask(self, size: Size) -> Mask:
        found = np.zeros(size, np.uint8)
        corners = np.floor(self.points).astype(np.int32)  # the pixels in which they lie
        cv2.fillPoly(found, [corners], 1)
        return found.astype(np.bool_)


@dataclass(frozen=True)
class Circle:
    """A disc; center is (x, y)."""

    center: Point
    radius: float

    def mask(self, size: Size) -> Mask:
        y, x = np.ogrid[: size[0], : size[1]]
        square = (x - self.center[0]) ** 2 + (y - self.center[1]) ** 2
        return np.asarray(square <= self.radius**2)


@dataclass(frozen=True)
class CocoSegmentation:
    """Polygons as flat lists of x, y pairs, or a run-length mask, as COCO stores them."""

    stored: Any

    def mask(self, size: Size) -> Mask:
        # imported here because only sets in this format need the package
        from pycocotools import mask as coco

        try:
            runs = self.stored
            if isinstance(runs, list):
                runs = coco.merge(coco.frPyObjects(runs, *size))
            elif isinstance(runs["counts"], list):
                runs = coco.frPyObjects(runs, *size)
            return np.asarray(coco.decode(runs)).astype(np.bool_)
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"a segmentation is damaged: {error}; export it again") from error


def outside(points: Sequence[Point], size: Size) -> str:
    """Return how far a polygon reaches beyond an image of (height, width); empty if it does not."""
    xs, ys = zip(*points, strict=True)
    low, high = min(*xs, *ys), max(max(xs) - size[1], max(ys) - size[0])
    if low >= -_MARGIN and high <= _MARGIN:
        return ""
    return (
        f"lies outside the image: x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g} in "
        f"{size[1]}x{size[0]}; was the image resized after it was annotated?"
    )


def segmentation_problem(stored: Any, size: Size) -> str:
    """Return what is wrong with a stored `CocoSegmentation`; empty if it can be drawn."""
    if not stored:
        return "has no segmentation, as boxes and points have: draw a polygon or mask, or delete it"
    if isinstance(stored, dict):
        return _run_problem(stored, size)
    if not isinstance(stored, list):
        return "has a segmentation that is neither polygons nor a run-length mask"
    for polygon in stored:
        numbers = polygon if isinstance(polygon, list) else []
        if len(numbers) < 6 or len(numbers) % 2 or not all(map(is_number, numbers)):
            return "has a polygon that is not a list of at least three x, y: draw it again"
        beyond = outside(list(zip(numbers[::2], numbers[1::2], strict=True)), size)
        if beyond:
            return f"has a polygon that {beyond}"
    return ""


def _run_problem(stored: dict[str, Any], size: Size) -> str:
    counts = stored.get("counts")
    if stored.get("size") != list(size):
        return (
            f"has a mask of size {stored.get('size')} (height, width) in an image of {list(size)}: "
            "was the image resized after it was annotated?"
        )
    if isinstance(counts, str):
        counts = _run_lengths(counts)
        if counts is None:
            return "has a damaged run-length mask: export it again"
    if not isinstance(counts, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in counts
    ):
        return "has run-length counts that are neither a text nor a list of whole numbers"
    if sum(counts) != size[0] * size[1]:
        return f"has a mask of {sum(counts)} pixels in an image of {size[0] * size[1]}"
    return ""


def _run_lengths(text: str) -> list[int] | None:
    """Return the run lengths of COCO's compressed form; None if it cannot be one.

    As numbers of 5 bits a character, from "0" on, the sixth says that another follows. From the
    fourth on they are differences to the one before the last. pycocotools does not notice a text
    that was cut off, and leaves the rest of the mask undefined.
    """
    found: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
        value = shift = 0
    return None if shift else found


def points_of(value: Any) -> tuple[Point, ...]:
    """Return the (x, y) of a JSON list of pairs.

    Raises:
        ValueError: it is something else, or holds what is no number, see `is_number`.
    """
    if not isinstance(value, list):
        raise ValueError(f"{_short(value)} must be a list of points")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(is_number, pair)):
            raise ValueError(f"{_short(pair)} must be a point [x, y]")
    return tuple((float(x), float(y)) for x, y in value)


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a coordinate may be: finite, not beyond 1e9."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -1e9 < value < 1e9


def size_of(entry: dict[str, Any], height: str, width: str) -> Size:
    """Return height and width from these fields.

    Raises:
        ValueError: a field is missing or not a positive integer.
    """
    for name in (height, width):
        value = entry.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 16:
            raise ValueError(f"{name} must be the image's {name} in pixels, got {_short(value)}")
    return entry[height], entry[width]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: it cannot be read, is empty, damaged, or holds something else.
    """
    try:
        with memory_for(path):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}; export it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, got {_short(content)}; export it again")
    return content


def first_file(candidates: Iterable[Path]) -> Path | None:
    """Return the first of the paths that is a file; names that no file can have are none.

    Letters with accents may be in either form of Unicode, as macOS stores another.
    """
    for path in candidates:
        for form in dict.fromkeys((str(path), *(normalize(each, str(path)) for each in _FORMS))):
            if os.path.isfile(form):
                return Path(form)
    return None


def tool_of(content: dict[str, Any]) -> str:
    """Return the tool whose annotations a JSON file holds: `coco`, `labelme`, or another name."""
    if isinstance(content.get("shapes"), list):
        return "labelme"
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        return "coco"
    if isinstance(content.get("items"), list):
        return "Datumaro"
    if "_via_img_metadata" in content:
        return "VGG Image Annotator"
    return "an unknown tool"


def not_of(tool: str, path: Path, content: dict[str, Any]) -> str:
    """Return an error message for a JSON file that is not an export of `tool`."""
    found = tool_of(content)
    remedy = f"use --dataset {found}" if found in ("coco", "labelme") else f"export it as {tool}"
    return f"{path} must be an export of {tool}, got one of {found}: {remedy}, or move it away"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
