"""Sets of masks in Pascal VOC's layout, as CVAT and labelme2voc export them."""

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from camseg_core.data.class_names import ClassNames
from camseg_core.data.file_set import FileSet, Found
from camseg_core.data.find_files import find_files, image_endings
from camseg_core.data.folders import composed, files_in, more, no_split, read_list, visible
from camseg_core.data.image_files import Ids, Raw, read_label
from camseg_core.data.label_decoders import Color, ColorLabels, IdLabels, LabelDecoder
from camseg_core.data.mapping import MAPPING, meaning, read_mapping
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind, by_split, split_of
from camseg_core.errors import DataError
from camseg_core.labels import UNLABELLED, UNLABELLED_COLOR, Label, color_table, plain_name

_MAP, _NAMES = "labelmap.txt", "class_names.txt"
_MASKS = ("SegmentationClassPNG", "SegmentationClass")
_IMAGES = ("JPEGImages", "images")
_LISTS = Path("ImageSets/Segmentation")


class MaskLabels:
    """Decodes masks in the colours of a label map; masks of one channel hold its line numbers."""

    def __init__(self, classes: Sequence[tuple[Color, int]], source: str) -> None:
        border = voc_color(255)  # of objects, in Pascal VOC's own masks
        self._colors = ColorLabels({border: UNLABELLED, **dict(classes)}, source)
        numbers = {i: id for i, (_, id) in enumerate(classes)} | {255: UNLABELLED}
        self._numbers = IdLabels(numbers, source, f"0 to {len(classes) - 1}, and 255 for no class")

    def __call__(self, raw: Raw, path: Path) -> Ids:
        return self._numbers(raw, path) if raw.ndim == 2 else self._colors(raw, path)


class VocMasks(SetKind):
    """Masks in Pascal VOC's layout: CVAT's "Segmentation mask 1.1", or labelme2voc's.

    A split is a list of names; without lists, it is `all`.
    """

    title = "masks in Pascal VOC's layout"
    layout = (
        "SegmentationClass/NAME.png, JPEGImages/NAME.jpg (or .png), "
        f"{_LISTS.as_posix()}/SPLIT.txt with names",
        f"{_MAP} with NAME:RED,GREEN,BLUE:: a line, or {_NAMES} with a name a line, in the colours "
        "of Pascal VOC",
        f"classes by name: Cityscapes', or what names: in {MAPPING} (or --mapping FILE) says; "
        "or ids: or colors: there",
    )
    takes_own_labels = True

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        base = own.root or root
        there = [base / each for each in _MASKS if (base / each).is_dir()]
        if not there:
            raise no_split(split, root, self.expected)
        filled = [each for each in there if visible(files_in(each, deep=True), ".png")]
        if len(filled) > 1:
            raise _two_exports(*filled)
        masks = (filled or there)[0]
        images = next((root / each for each in _IMAGES if (root / each).is_dir()), None)
        if images is None and own.root is None:
            raise DataError(
                f"no images in {root}: export with images ('Save images' in CVAT), or copy them "
                f"to {root / _IMAGES[0]}"
            )
        read = read_mapping(own.mapping, root / MAPPING).mapping
        image_end, mask_end = (read.image_suffix, read.label_suffix) if read else ("", "")
        found = find_files(
            [(images or root, masks)],
            self.expected,
            endings=image_endings(image_end),
            label_ending=f"{mask_end}.png",
            deep=True,
            name=lambda stem: stem.relative_to(images or root).as_posix(),
        )
        found = _of_split(found, base, split, masks)
        rule = "every image needs the mask of its name: annotate it, or move it out of the folder"
        if read is not None and (read.ids or read.colors):
            return meaning(own.mapping, root / MAPPING).files(found, rule=rule)
        names = ClassNames.read(own.mapping, root / MAPPING, suffixes=True)
        classes, problems = _classes(base, names)
        found = found._replace(problems=(*found.problems, *problems))
        decode: LabelDecoder = MaskLabels(
            [(color, _id(names, name)) for name, color in classes], str(_map(base))
        )
        return names.files(found, [name for name, _ in classes], decode, rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return tuple(_lists(own.root or root)) or (ALL,)

    def detect(self, root: Path) -> bool:
        return any((root / each).is_dir() for each in _MASKS)


def _id(names: ClassNames, name: str) -> int:
    """Return the id of a name; unlabelled if it has no meaning, which `_classes` reports."""
    id = names.id_of(name)
    return UNLABELLED if id is None else id


def _lists(root: Path) -> dict[str, Path]:
    folder = root / _LISTS
    return by_split({path.stem: path for path in visible(files_in(folder), ".txt")})


def _of_split(found: Found, root: Path, split: str, masks: Path) -> Found:
    """Return the pairs that the split's list names; all if there are no lists."""
    lists = _lists(root)
    path = lists.get(split_of(split))
    if path is None and split == ALL:
        return found
    if path is None:
        there = (
            f"found {', '.join(lists)} in {root / _LISTS}" if lists else f"there is only {ALL!r}"
        )
        raise no_split(split, root, there)
    wanted = _names(path)
    by_name = {composed(pair.name): pair for pair in found.pairs}
    absent = [name for name in wanted if name not in by_name]
    if absent:
        raise DataError(
            f"{path} lists {absent[0]}{more(absent)}, which has no image: "
            "export with images, or copy it to JPEGImages"
        )
    chosen = {*wanted}
    pairs = [pair for pair in found.pairs if composed(pair.name) in chosen]
    if not pairs:
        raise DataError(f"{path} lists nothing: annotate images, and export again")
    everywhere = {name for each in lists.values() for name in _names(each)}
    others = [pair for pair in found.pairs if composed(pair.name) not in everywhere]
    left_out = [f"left out: {pair.image}{more(others)}, which no list names" for pair in others[:1]]
    kept = [
        each
        for each in found.label_files
        if composed(each.relative_to(masks).with_suffix("").as_posix()) in chosen
    ]
    return found._replace(pairs=pairs, label_files=kept, left_out=(*found.left_out, *left_out))


def _names(path: Path) -> list[str]:
    """Return the names of frames in a list, whose folders and accents another system may write."""
    return [*dict.fromkeys(composed(line.replace("\\", "/")) for line in read_list(path))]


def _map(root: Path) -> Path:
    """Return the file with the meaning of the masks' values, by default that of CVAT.

    Raises:
        DataError: there are those of two tools.
    """
    there = [root / name for name in (_MAP, _NAMES) if (root / name).is_file()]
    if len(there) > 1:
        raise _two_exports(*there)
    return there[0] if there else root / _MAP


def _two_exports(one: Path, other: Path) -> DataError:
    return DataError(
        f"{one} and {other} are of two exports: move one of these to a folder of its own"
    )


def _classes(root: Path, names: ClassNames) -> tuple[list[tuple[str, Color]], list[str]]:
    """Return names of classes and their colours, in order, and a line for each unknown name."""
    path = _map(root)
    if not path.is_file():
        raise DataError(
            f"{path}, which says what the colours mean, is missing: write NAME:RED,GREEN,BLUE:: a "
            f"line, or list ids: or colors: in {MAPPING}"
        )
    lines = [line for line in read_list(path) if not line.startswith("#")]
    if path.name == _NAMES:
        classes = [(line, voc_color(number)) for number, line in enumerate(lines)]
    else:
        classes = [_entry(line, path) for line in lines]
    if not classes:
        raise DataError(f"{path} lists no class: export again")
    owner: dict[Color, str] = {}
    for name, color in classes:
        if owner.setdefault(color, name) != name:
            raise DataError(
                f"{path} gives {owner[color]} and {name} the colour {color}: give each its own"
            )
    return classes, [
        names.unknown(name, str(path))
        for name in dict.fromkeys(name for name, _ in classes)
        if names.id_of(name) is None
    ]


def _entry(line: str, path: Path) -> tuple[str, Color]:
    name, _, rest = line.partition(":")
    words = rest.split(":")[0].split(",")
    values = [int(word) for word in words if word.strip().isdecimal() and int(word) < 256]
    if not name or len(values) != 3 or len(words) != 3:
        raise DataError(
            f"{path}: {line!r} must be a class and its red, green and blue, 0 to 255, "
            "as in road:128,64,128::"
        )
    return name.strip(), (values[0], values[1], values[2])


def voc_color(number: int) -> Color:
    """Return the RGB that Pascal VOC gives a class by its number, 0 to 255."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


def write_voc_zip(path: Path, masks: Path, names: Sequence[str], labels: Sequence[Label]) -> None:
    """Write a zip of masks that CVAT imports as "Segmentation mask 1.1", in the classes' colours.

    `masks` has a PNG of ids for each of the names. Pixels without a class are
    `background` (or `void`, if that is a class), black.
    A class whose colour is black or another's has one of Pascal VOC's instead.
    """
    labels = _told_apart(labels)
    colors = color_table(labels)
    nothing = "background"
    if nothing in (plain_name(label.name) for label in labels):
        nothing = "void"
    entries = ["# label:color_rgb:parts:actions", f"{nothing}:0,0,0::"]
    entries += [f"{label.name}:{','.join(map(str, label.color))}::" for label in labels]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        files = {
            "labelmap.txt": "\n".join(entries) + "\n",
            "ImageSets/Segmentation/default.txt": "".join(f"{name}\n" for name in names),
        }
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        for name in names:
            mask = read_label(masks / f"{name}.png")
            content = cv2.imencode(".png", colors[mask][..., ::-1])[1].tobytes()
            archive.writestr(zipfile.ZipInfo(f"SegmentationClass/{name}.png"), content)


def _told_apart(labels: Sequence[Label]) -> list[Label]:
    """Return the classes with colours that differ from each other and from black."""
    used: set[Color] = {UNLABELLED_COLOR}
    mine = {each.color for each in labels}
    found = []
    for label in labels:
        free = (voc_color(number) for number in range(1, 255))
        color = label.color
        if color in used:
            color = next(each for each in free if each not in used | mine)
        used.add(color)
        found.append(replace(label, color=color))
    return found
