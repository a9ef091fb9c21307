"""Sets in COCO's format: polygons and run-length masks, one JSON file per split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.data.class_names import ClassNames
from camseg_core.data.drawing import (
    Drawing,
    Mask,
    Size,
    is_number,
    not_of,
    outside,
    read_json,
    size_of,
    tool_of,
)
from camseg_core.data.file_set import (
    IMAGES,
    FileSet,
    Found,
    Pair,
    more,
    no_split,
    subfolders,
    visible,
)
from camseg_core.data.mapping import MAPPING
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind, by_split, split_of
from camseg_core.errors import DataError

_PREFIX = "instances_"
_BESIDE = "_annotations.coco.json"
_HEAD = 1 << 16


@dataclass(frozen=True)
class Segmentation:
    """A segmentation as COCO stores it: polygons as lists `x, y, x, y, …`, or a run-length mask."""

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
            raise DataError(f"a run-length mask is damaged: {error}; export it again") from error


class Coco(SetKind):
    """COCO, as CVAT ("COCO 1.0"), Label Studio and Roboflow export it.

    A split is a file of annotations. Later annotations of an image lie on top of earlier ones;
    pixels without an annotation have no class.
    """

    title = "annotations in COCO's format"
    layout = (
        "annotations/instances_SPLIT.json, images/ or images/SPLIT/ or SPLIT/ with the images",
        f"or SPLIT/{_BESIDE} with images beside it, or result.json with images/",
        f"classes by name: Cityscapes', or what names: in {MAPPING} (or --mapping FILE) says",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        import_module("pycocotools.mask")  # a missing package is an error before the work
        names = ClassNames.read(own.mapping, root / MAPPING)
        files = by_split(_files(own.root or root))
        path = files.get(split_of(split))
        if path is None:
            there = f"found annotations for {', '.join(files)}; " if files else ""
            raise no_split(split, root, f"{there}{self.expected}")
        folders = [path.parent] if path.name == _BESIDE else _folders(root, path, split)
        content = read_json(path)
        if tool_of(content) != "coco":
            raise DataError(not_of("coco", path, content))
        reader = _Reader(path, content, names)
        found = reader.found(folders, alone=len(files) == 1 or path.name == _BESIDE)
        return names.files(found, reader.categories.values())

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return tuple(by_split(_files(own.root or root)))

    def detect(self, root: Path) -> bool:
        return any(_looks_right(path) for path in _files(root).values())


class _Reader:
    """Reads the images and annotations of a file; collects a line for each problem."""

    def __init__(self, path: Path, content: dict[str, Any], names: ClassNames) -> None:
        self._path, self._names = path, names
        self._content = content
        self.problems: list[str] = []
        self.categories = {
            each["id"]: str(each["name"])
            for each in self._entries("categories", "id", "name")
            if isinstance(each["id"], int)
        }
        where = f"{path} (categories)"
        self._ids = {key: names.id_of(name) for key, name in self.categories.items()}
        self.problems += [
            names.unknown(self.categories[key], where)
            for key, id in self._ids.items()
            if id is None
        ]

    def _entries(self, kind: str, *fields: str) -> list[dict[str, Any]]:
        """Return the entries of a list that have these fields."""
        entries = self._content.get(kind)
        if not isinstance(entries, list):
            raise DataError(f"{self._path} has no list {kind!r}: export it again as COCO")
        found = []
        for number, entry in enumerate(entries):
            lacking = [
                name for name in fields if not isinstance(entry, dict) or entry.get(name) is None
            ]
            if lacking:
                self.problems.append(f"{self._path}: {kind}[{number}] has no {lacking[0]!r}")
            else:
                found.append(entry)
        return found

    def found(self, folders: Sequence[Path], alone: bool) -> Found:
        """Return images in the folders with their annotations; `alone`: this is the only split."""
        images: dict[int, tuple[str, Size]] = {}
        for entry in self._entries("images", "id", "file_name"):
            name = str(entry["file_name"]).replace("\\", "/")
            try:
                images[entry["id"]] = name, size_of(entry, "height", "width")
            except (ValueError, TypeError) as error:
                self.problems.append(f"{self._path}: image {name}: {error}")
        areas: dict[int, list[tuple[int, Segmentation]]] = {key: [] for key in images}
        for entry in self._entries("annotations", "image_id", "category_id"):
            self._add(entry, images, areas)
        pairs, empty, absent = [], [], []
        for key, (name, size) in images.items():
            image = next((each / name for each in folders if (each / name).is_file()), None)
            if image is None:
                absent.append(name)
            elif not areas[key]:
                empty.append(image)
            else:
                frame = Path(name).with_suffix("").as_posix()
                pairs.append(Pair(image, self._path, frame, Drawing(size, tuple(areas[key]))))
        if not pairs:
            searched = ", ".join(map(str, folders))
            raise DataError(
                next(iter(self.problems), None)
                or f"{self._path} has no annotated image in {searched}: "
                f"{len(absent)} of its {len(images)} images are missing, {len(empty)} have no "
                "annotation; export it with images, or copy them there"
            )
        pairs.sort(key=lambda pair: (pair.image.parent, pair.image.name))
        left_out = [
            f"left out: {self._path} has no annotation for {image}{more(empty)}: annotate it, and "
            "export again"
            for image in empty[:1]
        ] + [
            f"left out: {self._path} lists {name}{more(absent)}, which does not exist"
            for name in absent[:1]
        ]
        if alone:
            known = {pair.image for pair in pairs} | {*empty}
            self.problems += _unlisted(self._path, {pair.image.parent for pair in pairs}, known)
        return Found(pairs, problems=tuple(self.problems), left_out=tuple(left_out))

    def _add(
        self,
        entry: dict[str, Any],
        images: dict[int, tuple[str, Size]],
        areas: dict[int, list[tuple[int, Segmentation]]],
    ) -> None:
        key, category = entry["image_id"], entry["category_id"]
        where = f"{self._path}: annotation {entry.get('id', '')}"
        if not isinstance(key, int) or key not in images:
            self.problems.append(f"{where} is of image {key}, which the file does not list")
            return
        name, size = images[key]
        where = f"{where} of {name} ({self.categories.get(category, category)})"
        if category not in self._ids:
            self.problems.append(f"{where} has the category {category}, which is not in the file")
            return
        stored = entry.get("segmentation")
        problem = _problem(stored, size)
        if problem:
            self.problems.append(f"{where} {problem}")
        id = self._ids[category]
        if not problem and id is not None:
            areas[key].append((id, Segmentation(stored)))


def _problem(stored: Any, size: Size) -> str:
    """Return what is wrong with a segmentation; empty if it can be drawn."""
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
        return "" if counts.isascii() else "has a damaged run-length mask: export it again"
    if not isinstance(counts, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in counts
    ):
        return "has run-length counts that are neither a text nor a list of whole numbers"
    if sum(counts) != size[0] * size[1]:
        return f"has a mask of {sum(counts)} pixels in an image of {size[0] * size[1]}"
    return ""


def _unlisted(path: Path, folders: Iterable[Path], known: set[Path]) -> list[str]:
    """Return a line on images that the only annotation file does not list."""
    there = (each for folder in sorted(folders) for each in visible(folder.iterdir(), *IMAGES))
    unlisted = [each for each in there if each not in known]
    if not unlisted:
        return []
    return [
        f"missing label of image {unlisted[0]}{more(unlisted)}: {path} does not list it: "
        "annotate and export again, or move it out of the folder"
    ]


def _files(root: Path) -> dict[str, Path]:
    """The files of annotations by split."""
    if root.is_file():
        return {ALL: root}
    folder = root / "annotations"
    there = visible(folder.iterdir(), ".json") if folder.is_dir() else []
    instances = [path for path in there if path.name.startswith(_PREFIX)]
    found = {path.stem.removeprefix(_PREFIX): path for path in instances or there}
    if not found:
        beside = {name: root / name / _BESIDE for name in subfolders(root)}
        found = {name: path for name, path in beside.items() if path.is_file()}
    for name in (_BESIDE, "result.json"):
        if not found and (root / name).is_file():
            found = {ALL: root / name}
    return found


def _folders(root: Path, path: Path, split: str) -> list[Path]:
    """Return the folders that may hold the images, the most likely first."""
    base = root if root.is_dir() else root.parent
    own = path.stem.removeprefix(_PREFIX)
    return [base / "images" / own, base / "images", base / own, base, path.parent]


def _looks_right(path: Path) -> bool:
    """Return whether the first bytes look like COCO, without reading a large file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return any(each in head for each in (b'"categories"', b'"images"')) and b'"shapes"' not in head
