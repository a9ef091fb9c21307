"""Sets annotated with labelme: one JSON file of polygons per image."""

import base64
import binascii
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camseg_core.data.class_names import ClassNames
from camseg_core.data.drawing import (
    Area,
    Circle,
    Drawing,
    Mask,
    Point,
    Polygon,
    Size,
    first_file,
    not_of,
    outside,
    points_of,
    read_json,
    size_of,
    tool_of,
)
from camseg_core.data.file_set import IMAGES, FileSet, Found, Pair
from camseg_core.data.folders import (
    files_in,
    head_of,
    more,
    no_split,
    read_list,
    real_path,
    subfolders,
    visible,
)
from camseg_core.data.mapping import MAPPING
from camseg_core.data.sets.kind import ALL, SPLITS, OwnLabels, SetKind, split_folder, split_names
from camseg_core.errors import DataError

_CLASSES = "labels.txt"


@dataclass(frozen=True)
class Patch:
    """A mask whose upper left corner is at (x, y)."""

    corner: tuple[int, int]
    pixels: bytes
    size: Size

    def mask(self, size: Size) -> Mask:
        found = np.zeros(size, np.bool_)
        patch = np.frombuffer(self.pixels, np.bool_).reshape(self.size)
        x, y = self.corner
        found[y : y + self.size[0], x : x + self.size[1]] = patch[: size[0] - y, : size[1] - x]
        return found


class LabelMe(SetKind):
    """labelme: `NAME.json` beside its image, or in a folder of its own.

    A split is a folder. Later shapes lie on top of earlier ones; pixels without a shape have no
    class.
    """

    title = "annotations of labelme"
    layout = (
        "NAME.json with NAME.jpg (or .png) beside it or where imagePath says; folders by split",
        f"classes by name: Cityscapes', or what names: in {MAPPING} (or --mapping FILE) says; "
        f"{_CLASSES}, if there is one, lists them",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        names = ClassNames.read(own.mapping, root / MAPPING)
        base = own.root or root
        folder = base if split == ALL else split_folder(base, split) or base / split
        files = visible(files_in(folder, deep=True), ".json")
        if not files:
            raise no_split(split, root, f"no JSON files in {folder}; {self.expected}")
        images = folder if own.root is None else root / folder.relative_to(base)
        reader = _Reader(folder, images, names)
        everywhere = visible(files_in(base, deep=True), ".json")
        found = reader.found(files, [path for path in everywhere if folder not in path.parents])
        # the class names that labelme was started with
        listed = read_list(base / _CLASSES) if (base / _CLASSES).is_file() else []
        # without a list, classes that only occur in other splits would be missing
        used = {*reader.used, *listed} if listed or names.listed else ()
        rule = "annotate it with labelme, or move it out of the folder"
        return names.files(found, used, rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        there = {*split_names(own.root or root)}
        if there & {*SPLITS}:  # an image folder that lacks annotations is wrong
            there |= {*split_names(root)}
        return tuple(name for name in SPLITS if name in there) or (ALL,)

    def outside(self, root: Path, own: OwnLabels) -> list[Path]:
        """Return annotations outside the folders of the splits."""
        base, splits = own.root or root, self.splits(root, own)
        if splits == (ALL,):
            return []
        inside = {split_folder(base, split) for split in splits}
        there = visible(files_in(base, deep=True), ".json")
        return [path for path in there if not inside & {*path.parents} and _looks_right(path)]

    def detect(self, root: Path) -> bool:
        """Return whether a JSON file, at most two folders deep, looks like labelme's."""
        return any(map(_looks_right, _json_files(root, 2)))


def _json_files(folder: Path, deeper: int) -> Iterator[Path]:
    yield from visible(files_in(folder), ".json")
    for name in subfolders(folder) if deeper else []:
        yield from _json_files(folder / name, deeper - 1)


def _looks_right(path: Path) -> bool:
    """Return whether the first bytes look like labelme, without reading a large file."""
    head = head_of(path)
    return any(key in head for key in (b'"shapes"', b'"imagePath"', b'"imageData"'))


class _Reader:
    """Reads JSON files in a folder; collects class names and a line for each problem."""

    def __init__(self, folder: Path, images: Path, names: ClassNames) -> None:
        self._folder, self._images, self._names = folder, images, names
        self._there = visible(files_in(images, deep=True), *IMAGES)
        self._named = Counter(path.name for path in self._there)
        self.used: set[str] = set()
        self._problems: list[str] = []
        self._empty: set[Path] = set()

    def found(self, files: Sequence[Path], others: Sequence[Path]) -> Found:
        """Return the images of these files with their annotations; `others` are of other splits."""
        pairs: list[Pair] = []
        empty: list[Path] = []
        for path in files:
            try:
                self._read(path, pairs, empty)
            except DataError as error:
                self._problems.append(str(error))
        of: dict[Path, Path] = {}
        for pair in pairs:
            other = of.setdefault(real_path(pair.image), pair.label)
            if other != pair.label:
                self._problems.append(
                    f"{other} and {pair.label} are both of {pair.image}: remove one, or mend its "
                    "imagePath"
                )
        of_file = {pair.label: pair.image for pair in pairs}
        known = {real_path(path) for path in (*(pair.image for pair in pairs), *self._empty)}
        for path in self._there:
            if real_path(path) not in known:
                name = path.relative_to(self._images).with_suffix("").as_posix()
                pairs.append(self._unannotated(path, self._folder / f"{name}.json", name, of_file))
        for path in self._beside(pairs, others):
            if real_path(path) not in known:
                label = self._folder / f"{path.stem}.json"
                pairs.append(self._unannotated(path, label, path.stem, of_file))
        if not pairs:
            raise DataError(
                next(iter(self._problems), None)
                or f"no annotated image in {self._images}: {len(empty)} of {len(files)} JSON files "
                "have no shapes, and the others no image where imagePath says"
            )
        left_out = [
            f"left out: {path}{more(empty)} has no shapes: annotate the image" for path in empty[:1]
        ]
        pairs.sort(key=lambda pair: (pair.image.parent, pair.image.name))
        annotated = [path for path in files if path not in empty]
        return Found(pairs, annotated, tuple(self._problems), tuple(left_out))

    def _unannotated(
        self, image: Path, label: Path, name: str, of_file: Mapping[Path, Path]
    ) -> Pair:
        """Return the pair of an image without annotation, and report a file of another's name."""
        if other := of_file.get(label):
            self._problems.append(
                f"{label} is of {other}, so that {image} has no annotation: give one of the images "
                "another name, or remove it"
            )
        return Pair(image, label, name)

    def _beside(self, pairs: Sequence[Pair], others: Sequence[Path]) -> list[Path]:
        """Return images in other folders that hold images of this split, without other splits'."""
        folders = {each.image.parent for each in pairs if self._images not in each.image.parents}
        if not folders:
            return []
        named = set()
        for path in others:
            with suppress(DataError):  # reported where it belongs
                stated = str(read_json(path).get("imagePath") or path.stem).replace("\\", "/")
                named.add(real_path(path.parent / stated))
                named |= {folder / Path(stated).name for folder in folders}
        there = visible((each for folder in folders for each in files_in(folder)), *IMAGES)
        return [each for each in there if not {each, real_path(each)} & named]

    def _read(self, path: Path, pairs: list[Pair], empty: list[Path]) -> None:
        content = read_json(path)
        if tool_of(content) != "labelme":
            raise DataError(not_of("labelme", path, content))
        image = self._image(path, content)
        if image is None:
            return
        if not content["shapes"]:
            empty.append(path)
            self._empty.add(image)
            return
        try:
            size = size_of(content, "imageHeight", "imageWidth")
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        areas = []
        for number, shape in enumerate(content["shapes"], start=1):
            try:
                label, area = _area(shape, size)
            except ValueError as error:
                self._problems.append(f"{path}: shape {number} {error}")
                continue
            self.used.add(label)
            id = self._names.id_of(label)
            if id is None:
                self._problems.append(self._names.unknown(label, str(path)))
            else:
                areas.append((id, area))
        name = path.relative_to(self._folder).with_suffix("").as_posix()
        pairs.append(Pair(image, path, name, Drawing(size, tuple(areas))))

    def _image(self, path: Path, content: dict[str, Any]) -> Path | None:
        """Return the image of a JSON file: at its `imagePath`, or of the same name beside it.

        Failing that, it is the only image of that name in any folder.
        """
        stated = Path(str(content.get("imagePath") or path.stem).replace("\\", "/"))
        place = self._images / path.parent.relative_to(self._folder)
        candidates = [
            path.parent / stated,
            place / stated.name,
            *(place / f"{path.stem}{ending}" for ending in IMAGES),
        ]
        if self._named[stated.name] == 1:
            candidates += [each for each in self._there if each.name == stated.name]
        found = first_file(candidates)
        plain = None if found is None else Path(os.path.normpath(found))
        # without `..`, unless that leaves a folder by a link
        return plain if found and plain and plain.exists() and plain.samefile(found) else found


def _area(shape: Any, size: Size) -> tuple[str, Area]:
    """Return class name and area of a shape.

    Raises:
        ValueError: it has no area, lies outside the image, or is damaged.
    """
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise ValueError("has no label: give it one")
    points = points_of(shape.get("points"))
    kind = shape.get("shape_type") or "polygon"
    needed = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}.get(kind)
    if needed is None:
        raise ValueError(f"({label}) is a {kind}, which has no area: draw a polygon, or delete it")
    if len(points) < needed:
        raise ValueError(f"({label}) must have {needed} points, got {len(points)}: draw it again")
    beyond = outside(points, size)
    if beyond:
        raise ValueError(f"({label}) {beyond}")
    if kind == "circle":
        (x, y), radius = points[0], math.dist(points[0], points[1])
        beyond = outside([(x - radius, y - radius), (x + radius, y + radius)], size)
        if beyond:
            raise ValueError(f"({label}) is a circle that {beyond}")
        return label, Circle(points[0], radius)
    if kind == "mask":
        return label, _patch(shape.get("mask"), points)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return label, Polygon(points)


def _patch(stored: Any, points: Sequence[Point]) -> Patch:
    try:
        content = base64.b64decode(str(stored), validate=True)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (binascii.Error, cv2.error):
        picture = None
    if picture is None:
        raise ValueError("has a mask that is not a PNG in base64: draw it again")
    (x0, y0), (x1, y1) = ((max(0, round(x)), max(0, round(y))) for x, y in points[:2])
    height, width = picture.shape[:2]
    if (abs(y1 - y0) + 1, abs(x1 - x0) + 1) != (height, width):
        raise ValueError(
            f"has a mask of {width}x{height} between ({x0}, {y0}) and ({x1}, {y1}): draw it again"
        )
    return Patch((min(x0, x1), min(y0, y1)), (picture > 0).tobytes(), (height, width))
