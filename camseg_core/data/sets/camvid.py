"""CamVid (Brostow et al. 2009): 11 classes as SegNet's authors prepared it, and all 32 as colours.

The 32 classes are those first published, with frames of 960×720.
"""

import re
from collections import Counter
from pathlib import Path

from camseg_core.data.file_set import IMAGES, FileSet
from camseg_core.data.find_files import find_files
from camseg_core.data.folders import files_in, no_split, read_list, subfolders, visible
from camseg_core.data.label_decoders import Color, ColorLabels, IdLabels
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind
from camseg_core.errors import DataError
from camseg_core.groups import Group
from camseg_core.labels import (
    CAMVID_11_ALSO,
    CAMVID_11_TRAIN_IDS,
    CAMVID_32,
    CAMVID_32_TRAIN_IDS,
    TRAIN_ID,
    UNLABELLED,
    cityscapes_labels,
)

_VOID = len(CAMVID_11_TRAIN_IDS)

_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
"""Begins the name of a frame: one of CamVid's four drives."""

_GROUPS = tuple(
    Group.of(TRAIN_ID[name], cityscapes_labels([TRAIN_ID[each] for each in (name, *others)]))
    for name, others in CAMVID_11_ALSO.items()
)


class CamVid11(SetKind):
    """11 classes; frames in the order of their names, which is the order of time within a drive.

    Some stand for several of Cityscapes' classes, see `CAMVID_11_ALSO`. For models without the
    others, they are the classes that they are named after.
    """

    title = "CamVid with 11 classes"
    labels = cityscapes_labels(CAMVID_11_TRAIN_IDS)
    named_splits = ("train", "val")
    layout = (
        "SPLIT/images/NAME.jpg (or .png), SPLIT/labels/NAME.png",
        "or SPLIT/NAME.png, SPLITannot/NAME.png",
        f"ids 0 to {_VOID - 1}, {_VOID} for void; frames of other names need --dataset camvid",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        if not (root / split).is_dir():
            raise no_split(split, root, self.expected)
        images, labels = root / split / "images", root / split / "labels"
        hint = "; if these are Cityscapes train ids, give --dataset folder"
        if not images.is_dir() and (root / f"{split}annot").is_dir():
            images, labels, hint = root / split, root / f"{split}annot", ""
        train_ids = {**dict(enumerate(CAMVID_11_TRAIN_IDS)), _VOID: UNLABELLED}
        decode = IdLabels(
            train_ids,
            self.title,
            f"0 to {_VOID - 1}, and {_VOID} for void",
            assumed=True,
            if_train_ids=hint,
        )
        found = find_files([(images, labels)], self.expected)
        return FileSet(found, self.labels, decode, groups=_GROUPS, same_size=True)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        names = subfolders(root)
        return tuple(
            name for name in names if (root / name / "images").is_dir() or f"{name}annot" in names
        )

    def detect(self, root: Path) -> bool:
        """Return whether all frames in `SPLIT/images`, or beside a `SPLITannot`, are CamVid's.

        Sets of any classes have such folders.
        """
        there = subfolders(root)
        annotated = [root / name for name in there if f"{name}annot" in there]
        folders = annotated or [root / name / "images" for name in there]
        images = visible((path for folder in folders for path in files_in(folder)), *IMAGES)
        return bool(images) and all(_FRAME.match(path.name) for path in images)


_IMAGES, _LABELS, _ENDING = "701_StillsRaw_full", "LabeledApproved_full", "_L.png"

_TRAIN_ID = {
    name: UNLABELLED if target is None else TRAIN_ID[target] for name, _, target in CAMVID_32
}


class CamVid32(SetKind):
    """32 classes; folders by split, or the original two with a list of names for each split."""

    title = "CamVid with 32 classes"
    labels = cityscapes_labels(CAMVID_32_TRAIN_IDS)
    layout = (
        f"SPLIT/NAME.png, SPLIT_labels/NAME{_ENDING}",
        f"or {_IMAGES}/NAME.png, {_LABELS}/NAME{_ENDING}, and SPLIT.txt with the names of each "
        "split (without: all)",
        "labels in CamVid's colours, or those of label_colors.txt or class_dict.csv",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        images, labels = root / split, root / f"{split}_labels"
        names: list[str] | None = None
        if not labels.is_dir() and (root / _IMAGES).is_dir():
            images, labels = root / _IMAGES, root / _LABELS
            names = None if split == ALL else _listed(root / f"{split}.txt", split)
        if not images.is_dir():
            raise no_split(split, root, self.expected)
        found = find_files([(images, labels)], self.expected, label_ending=_ENDING)
        if names is not None:
            by_name = {pair.name: pair for pair in found.pairs}
            absent = [name for name in names if name not in by_name]
            if absent:
                raise DataError(
                    f"{root / f'{split}.txt'} lists {absent[0]}, which has no image in {images}"
                )
            # other labels are of other splits
            repeated = tuple(
                f"{root / f'{split}.txt'} lists {name} {count} times: list it once"
                for name, count in Counter(names).items()
                if count > 1
            )
            listed = [by_name[name] for name in dict.fromkeys(names)]
            problems = (*found.problems, *repeated)
            found = found._replace(pairs=listed, label_files=(), problems=problems)
        rule = f"every image needs the label of its name with {_ENDING}"
        return FileSet(found, self.labels, ColorLabels(_colors(root), self.title), rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        there = subfolders(root)
        if _IMAGES in there:
            listed = (name for name in ("train", "val", "test") if (root / f"{name}.txt").is_file())
            return tuple(listed) or (ALL,)
        return tuple(name for name in there if f"{name}_labels" in there)

    def detect(self, root: Path) -> bool:
        there = subfolders(root)
        return (root / _LABELS).is_dir() or any(f"{name}_labels" in there for name in there)


def _listed(path: Path, split: str) -> list[str]:
    """The names of a split's frames, one a line; folders and endings are dropped."""
    try:
        lines = read_list(path)
    except DataError as error:
        raise DataError(
            f"no split {split!r}: {error}; list the names of its frames there, one a line, or "
            f"choose {ALL!r}"
        ) from error
    return [Path(line.replace("\\", "/")).stem for line in lines]


def _colors(root: Path) -> dict[Color, int]:
    """Train id by colour, from the root's own list of classes if it has one."""
    for name in ("label_colors.txt", "class_dict.csv"):
        if (root / name).is_file():
            return _read_colors(root / name)
    return {color: _TRAIN_ID[name] for name, color, _ in CAMVID_32}


def _read_colors(path: Path) -> dict[Color, int]:
    """Read `R G B name` a line (label_colors.txt) or `name,r,g,b` with a head (class_dict.csv)."""
    train_ids = {name.casefold(): train_id for name, train_id in _TRAIN_ID.items()}
    colors, owner = dict[Color, int](), dict[Color, str]()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = [word for word in re.split(r"[\s,]+", line) if word]
        values = [int(word) for word in words if word.isdecimal() and int(word) < 256]
        names = [word for word in words if not word.isdecimal()]
        if not words or (number == 1 and not values):
            continue
        if len(values) != 3 or len(names) != 1:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} must be a class and its red, green and "
                "blue, 0 to 255"
            )
        if names[0].casefold() not in train_ids:
            raise DataError(
                f"{path}, line {number}: {names[0]!r} is not one of CamVid's 32 classes; "
                "for other sets: --dataset folder"
            )
        color, name = (values[0], values[1], values[2]), names[0].casefold()
        if owner.setdefault(color, name) != name:
            raise DataError(
                f"{path}, line {number}: the colour {values} is that of {owner[color]}, too: each "
                "class needs its own"
            )
        colors[color] = train_ids[name]
    return colors
