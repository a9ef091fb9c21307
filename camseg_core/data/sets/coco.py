"""Sets in COCO's format: polygons and run-length masks, one JSON file per split."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from camseg_core.data.class_names import ClassNames
from camseg_core.data.drawing import (
    CocoSegmentation,
    Drawing,
    Size,
    first_file,
    not_of,
    read_json,
    segmentation_problem,
    size_of,
    tool_of,
)
from camseg_core.data.file_set import IMAGES, FileSet, Found, Pair
from camseg_core.data.folders import (
    files_in,
    folder_of,
    frame_name,
    head_of,
    more,
    no_split,
    subfolders,
    visible,
)
from camseg_core.data.mapping import MAPPING
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind, by_split, split_folder, split_of
from camseg_core.errors import DataError

_PREFIX = "instances_"
_BESIDE = "_annotations.coco.json"

_ELSEWHERE = re.compile("([A-Za-z]:)?/|[A-Za-z0-9+.-]+://")
"""Begins the path or address that an image had where it was annotated; its name may be here."""


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
        names = ClassNames.read(own.mapping, folder_of(root) / MAPPING)
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
        found = reader.found(folders, folder_of(root), len(files) == 1 or path.name == _BESIDE)
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
        self.categories: dict[int | str, str] = {}
        where = f"{path} (categories)"
        for entry in self._entries("categories", "id", "name"):
            key, name = entry["id"], str(entry["name"])
            if self.categories.setdefault(key, name) != name:
                self.problems.append(
                    f"{where} gives the id {key} to {self.categories[key]!r} and {name!r}: "
                    "annotations of both cannot be told apart; export again, all together"
                )
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
            odd = [] if lacking else [each for each in fields if not _is_key(entry[each])]
            where = f"{self._path}: {kind}[{number}]"
            if lacking:
                self.problems.append(f"{where} has no {lacking[0]!r}")
            elif odd:
                self.problems.append(
                    f"{where}: {odd[0]} must be a whole number or a text, got {entry[odd[0]]!r}: "
                    "export it again as COCO"
                )
            else:
                found.append(entry)
        return found

    def found(self, folders: Sequence[Path], root: Path, alone: bool) -> Found:
        """Return images in the folders with their annotations; `alone`: this is the only split."""
        images: dict[int | str, tuple[str, Size]] = {}
        for entry in self._entries("images", "id", "file_name"):
            key, name = entry["id"], str(entry["file_name"]).replace("\\", "/")
            if key in images:
                self.problems.append(
                    f"{self._path} gives the id {key} to {images[key][0]} and {name}, as merged "
                    "exports do: export again, all together"
                )
                continue
            try:
                images[key] = name, size_of(entry, "height", "width")
            except ValueError as error:
                self.problems.append(f"{self._path}: image {name}: {error}")
        areas: dict[int | str, list[tuple[int, CocoSegmentation]]] = {key: [] for key in images}
        for entry in self._entries("annotations", "image_id", "category_id"):
            self._add(entry, images, areas)
        pairs, empty, absent = [], [], []
        places: dict[Path, str] = {}
        bases: dict[Path, bool] = {}
        for key, (name, size) in images.items():
            if _ELSEWHERE.match(name):
                name = name.rpartition("/")[2]
            image = first_file(each / name for each in folders)
            if image is None:
                absent.append(name)
                continue
            if image in places:
                self.problems.append(
                    f"{self._path} lists {image} twice, as {places[image]} and {name}: keep one, "
                    "with the annotations of both"
                )
            places[image] = name
            base = next((each for each in folders if each in image.parents), root)
            # the root, or folders beside a flat export, may hold other pictures
            deep = base not in (root, image.parent)
            bases[base if deep else image.parent] = deep or bases.get(base, False)
            if not areas[key]:
                empty.append(image)
            else:
                frame = frame_name(Path(name))
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
            self.problems += _unlisted(self._path, bases, known)
        return Found(pairs, problems=tuple(self.problems), left_out=tuple(left_out))

    def _add(
        self,
        entry: dict[str, Any],
        images: dict[int | str, tuple[str, Size]],
        areas: dict[int | str, list[tuple[int, CocoSegmentation]]],
    ) -> None:
        key, category = entry["image_id"], entry["category_id"]
        where = f"{self._path}: annotation {entry.get('id', '')}"
        if key not in images:
            self.problems.append(f"{where} is of image {key}, which the file does not list")
            return
        name, size = images[key]
        where = f"{where} of {name} ({self.categories.get(category, category)})"
        if category not in self._ids:
            self.problems.append(f"{where} has the category {category}, which is not in the file")
            return
        stored = entry.get("segmentation")
        problem = segmentation_problem(stored, size)
        if problem:
            self.problems.append(f"{where} {problem}")
        id = self._ids[category]
        if not problem and id is not None:
            areas[key].append((id, CocoSegmentation(stored)))


def _is_key(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _unlisted(path: Path, folders: Mapping[Path, bool], known: set[Path]) -> list[str]:
    """Return a line on images that the only annotation file does not list.

    `folders` says of each folder whether those below count, too.
    """
    there = (
        each
        for folder, deep in sorted(folders.items())
        for each in visible(files_in(folder, deep), *IMAGES)
    )
    unlisted = [each for each in there if each not in known]
    if not unlisted:
        return []
    return [
        f"missing label of image {unlisted[0]}{more(unlisted)}: {path} does not list it: "
        "annotate and export again, or move it out of the folder"
    ]


def _files(root: Path) -> dict[str, Path]:
    """Return the files of annotations by split.

    Raises:
        DataError: they are of several exports.
    """
    if root.is_file():
        return {ALL: root}
    there = visible(files_in(root / "annotations"), ".json")
    instances = [path for path in there if path.name.startswith(_PREFIX)]
    beside = {name: root / name / _BESIDE for name in subfolders(root)}
    exports = [
        {path.stem.removeprefix(_PREFIX): path for path in instances or there},
        {name: path for name, path in beside.items() if path.is_file()},
        *({ALL: root / name} for name in (_BESIDE, "result.json") if (root / name).is_file()),
    ]
    found = [each for each in exports if each]
    if len(found) > 1:  # others may have such names too
        found = [each for each in found if any(map(_looks_right, each.values()))] or found[:1]
    if len(found) > 1:
        first, second = (next(iter(each.values())) for each in found[:2])
        raise DataError(
            f"{first} and {second} are of two exports: keep one of them in {root}, or merge them"
        )
    return found[0] if found else {}


def _folders(root: Path, path: Path, split: str) -> list[Path]:
    """Return the folders that may hold the images, the most likely first."""
    base = folder_of(root)
    own = path.stem.removeprefix(_PREFIX)
    places = []
    for folder in (base / "images", base):
        of_split = split_folder(folder, split)
        places += [folder / own, *([of_split] if of_split else []), folder]
    return [*places, path.parent]


def _looks_right(path: Path) -> bool:
    """Return whether the first bytes look like COCO, without reading a large file."""
    head = head_of(path)
    return any(each in head for each in (b'"categories"', b'"images"')) and b'"shapes"' not in head
