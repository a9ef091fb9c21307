"""Finds image and label files that belong together by their names."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from camseg_core.data.file_set import IMAGES, NOT_READ_HINT, Found, Pair
from camseg_core.data.folders import composed, files_in, more, visible
from camseg_core.errors import DataError

NOT_READ = (".avif", ".bmp", ".gif", ".heic", ".heif", ".tif", ".tiff", ".webp")
"""Endings of images in formats that are not looked for."""


def image_endings(suffix: str) -> list[str]:
    """Return how image names end that have a `suffix` before the ending of their format."""
    return [f"{suffix}{ending}" for ending in IMAGES]


def find_files(
    folders: Iterable[tuple[Path, Path]],
    expected: str,
    endings: Sequence[str] = IMAGES,
    label_ending: str = ".png",
    deep: bool = False,
    name: Callable[[Path], str] = lambda stem: stem.name,
) -> Found:
    """Find images and their labels in pairs of folders, sorted by folder and name.

    The label of `IMAGES/PLACE/NAME<ending>` is `LABELS/PLACE/NAME<label_ending>`; letters with
    accents are the same in either form of Unicode.

    Args:
        folders: pairs of an image folder and a label folder.
        expected: the expected layout, for the error.
        endings: endings of image names.
        label_ending: ending of label names.
        deep: look in the folders below, too.
        name: names a frame by its image's path without the ending.

    Raises:
        DataError: there are no images.
    """
    pairs, label_files, problems, folders = list[Pair](), list[Path](), list[str](), [*folders]
    not_read: dict[Path, Path] = {}
    alone: list[Path] = []
    unread_endings = [f"{each.rpartition('.')[0]}{kind}" for each in endings for kind in NOT_READ]
    for images, labels in folders:
        there = _by_place(images, endings, deep)
        labels_there = _by_place(labels, [label_ending], deep)  # they may end in .PNG
        for place, found in there.items():
            for image, stem in found:
                usual = labels / f"{stem}{label_ending}"
                label = labels_there[place][0][0] if place in labels_there else usual
                pairs.append(Pair(image, label, name(images / stem)))
        label_files += [found[0][0] for found in labels_there.values()]
        problems += [*_repeated(there, "label"), *_repeated(labels_there, "image")]
        for place, ((image, _), *_) in _by_place(images, unread_endings, deep).items():
            if place in labels_there and place not in there:
                not_read[labels_there[place][0][0]] = image
            elif place not in there:
                alone.append(image)
    if not pairs:
        kinds = ", ".join(ending.removeprefix(".") for ending in endings)
        unread = [*not_read.values(), *alone]
        note = f" (there is {unread[0].name}, {NOT_READ_HINT})" if unread else ""
        raise DataError(f"no images ({kinds}) in {folders[0][0]}{note}: {expected}")
    left_out = [f"left out: {each}{more(alone)}, {NOT_READ_HINT}" for each in alone[:1]]
    return Found(pairs, label_files, tuple(problems), tuple(left_out), not_read)


def joined(parts: Sequence[Found]) -> Found:
    """Return the files of several searches as those of one."""
    return Found(
        [pair for each in parts for pair in each.pairs],
        [path for each in parts for path in each.label_files],
        tuple(text for each in parts for text in each.problems),
        tuple(text for each in parts for text in each.left_out),
        {label: image for each in parts for label, image in each.not_read.items()},
    )


def _by_place(
    folder: Path, endings: Sequence[str], deep: bool
) -> Mapping[str, Sequence[tuple[Path, str]]]:
    """Return files and their paths from the folder without the ending, by that path in NFC."""
    found = defaultdict[str, list[tuple[Path, str]]](list)
    for path in visible(files_in(folder, deep), *endings):
        ending = next(each for each in endings if path.name.lower().endswith(each.lower()))
        place = path.relative_to(folder).as_posix()[: -len(ending)]
        found[composed(place)].append((path, place))
    return found


def _repeated(found: Mapping[str, Sequence[tuple[Path, str]]], other: str) -> list[str]:
    """Return a line for each two files of one place, which have only one `other`."""
    return [
        f"{one} and {two} have the same name except for the ending, and only one {other}: "
        "remove one of them"
        for files in found.values()
        for (one, _), (two, _) in pairwise(files)
    ]
