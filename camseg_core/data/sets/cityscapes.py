"""Cityscapes, and the sets that have its classes: ACDC, KITTI-STEP and CAD-EdgeTune."""

from collections.abc import Mapping
from pathlib import Path

from camseg_core.data.file_set import FileSet, Found
from camseg_core.data.find_files import find_files, joined
from camseg_core.data.folders import files_in, no_split, subfolders, visible
from camseg_core.data.frame_source import natural_key
from camseg_core.data.label_decoders import IdLabels, RedIdLabels
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind
from camseg_core.labels import CITYSCAPES, STORED_TRAIN_IDS, TRAIN_ID_OF_LABEL_ID

_WEATHERS = ("fog", "night", "rain", "snow")


class Cityscapes(SetKind):
    """Cityscapes (arXiv 1604.01685), and sets laid out like it: folders by split in two places.

    Images are in `IMAGES/SPLIT`, labels in `LABELS/SPLIT`, both a folder deeper, by city or
    sequence. A split of reference frames, such as `val_ref`, has other endings.

    Args:
        title: the set's name.
        layout: see `SetKind`.
        folders: pairs of IMAGES and LABELS, as paths from the root.
        endings: how the names of images and labels end; `{ref}` becomes `_ref` in a reference
            split.
        named_splits: the splits with labels.
    """

    def __init__(
        self,
        title: str,
        layout: tuple[str, ...],
        folders: Mapping[str, str],
        endings: tuple[str, str],
        named_splits: tuple[str, ...] = ("train", "val"),
    ) -> None:
        self.title, self.layout, self.named_splits = title, layout, named_splits
        self._folders, self._endings = folders, endings

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        ref = "_ref" if split.endswith("_ref") else ""
        ending, label_ending = (each.format(ref=ref) for each in self._endings)
        expected = self.expected
        if len(self._folders) > 1:  # only ACDC has several
            expected += "; for one weather: --dataset acdc-WEATHER"
        parts: list[Found] = []
        for images, labels in self._folders.items():
            if not (root / images / split).is_dir():
                raise no_split(split, root / images, expected)
            folders = [(root / images / split, root / labels / split)]
            parts.append(find_files(folders, expected, [ending], label_ending, deep=True))
        name = self.title.split(",")[0]
        return FileSet(
            joined(parts),
            *(CITYSCAPES, _label_ids(name)),
            rule=f"every image needs its *{label_ending}",
            withheld=(
                f"no image of this split has a label (those of {name}'s test are withheld by its "
                "makers): choose train or val"
            ),
        )

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        """Reference splits count only if they have labels."""

        def exists(split: str) -> bool:
            folders = self._folders.values() if split.endswith("_ref") else self._folders
            return any((root / folder / split).is_dir() for folder in folders)

        return tuple(split for split in self.named_splits if exists(split))

    def detect(self, root: Path) -> bool:
        return any((root / images).is_dir() for images in self._folders)


class KittiStep(SetKind):
    """KITTI-STEP, labels of KITTI's tracking sequences (arXiv 2102.11859).

    The authors of CAM-Seg call it SemanticKITTI. The red channel of a label holds the train id, the
    others number instances. A split is the sequences in its folder of labels.
    """

    title = "KITTI-STEP"
    named_splits = ("train", "val")
    layout = (
        "training/image_02/SEQUENCE/NUMBER.png, "
        "kitti-step/panoptic_maps/SPLIT/SEQUENCE/NUMBER.png (test has no labels)",
        "or images/SPLIT/SEQUENCE/NUMBER.png, panoptic_maps/SPLIT/SEQUENCE/NUMBER.png",
        "train ids in the labels' red channel, 255 for void",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        maps, images = _maps(root) / split, root / "images" / split
        if not images.is_dir():
            images = root / "training" / "image_02"
        sequences = subfolders(maps)
        if not sequences:
            raise no_split(split, maps.parent, self.expected)
        found = find_files(
            [(images / sequence, maps / sequence) for sequence in sequences],
            self.expected,
            [".png"],
            name=lambda stem: f"{stem.parent.name}/{stem.name}",
        )
        decode = RedIdLabels(STORED_TRAIN_IDS, self.title, "0 to 18, and 255 for void")
        rule = "every image needs the panoptic map of its number"
        return FileSet(found, CITYSCAPES, decode, rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return tuple(split for split in self.named_splits if (_maps(root) / split).is_dir())

    def outside(self, root: Path, own: OwnLabels) -> list[Path]:
        """Return images of sequences of which no split has maps."""
        maps, splits = _maps(root), self.splits(root, own)
        labelled = {split: {*subfolders(maps / split)} for split in splits}
        places = [(root / "images" / split, labelled[split]) for split in splits]
        if not (root / "images").is_dir():
            places = [(root / "training" / "image_02", set[str]().union(*labelled.values()))]
        return [
            image
            for images, known in places
            for name in subfolders(images)
            if name not in known
            for image in visible(files_in(images / name), ".png")
        ]

    def detect(self, root: Path) -> bool:
        return _maps(root).is_dir()


class CadEdgeTune(SetKind):
    """CAD-EdgeTune: the split is `all`, or the name of a sequence."""

    title = "CAD-EdgeTune"
    layout = (
        "SEQ*/Images/NAME.jpg, SEQ*/LabelMasks/NAME_label_mask.png",
        "the split is all, or the name of a sequence",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        there = _sequences(root)
        chosen = there if split == ALL else [name for name in there if name == split]
        if not chosen:
            known = f"choose {', '.join([ALL, *there[:9]])}" if there else self.expected
            raise no_split(split, root, known)
        found = find_files(
            [(root / name / "Images", root / name / "LabelMasks") for name in chosen],
            self.expected,
            label_ending="_label_mask.png",
            name=lambda stem: f"{stem.parent.parent.name}/{stem.name}",
        )
        rule = "every image needs the label of its name with _label_mask.png"
        return FileSet(found, CITYSCAPES, _label_ids(self.title), rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return (ALL,) if _sequences(root) else ()

    def detect(self, root: Path) -> bool:
        return bool(_sequences(root))


def _label_ids(source: str) -> IdLabels:
    """A decoder of Cityscapes' 34 label ids; its errors name `source`."""
    most = max(TRAIN_ID_OF_LABEL_ID)
    ids = f"0 to {most} (in files of train ids, 255 is void: give *_labelIds.png)"
    return IdLabels(TRAIN_ID_OF_LABEL_ID, source, ids)


def _maps(root: Path) -> Path:
    maps = root / "panoptic_maps"
    return maps if maps.is_dir() else root / "kitti-step" / "panoptic_maps"


def _sequences(root: Path) -> list[str]:
    names = (name for name in subfolders(root) if name.startswith("SEQ"))
    return sorted((name for name in names if (root / name / "Images").is_dir()), key=natural_key)


def _acdc(weathers: tuple[str, ...], title: str, weather: str) -> Cityscapes:
    """ACDC (arXiv 2104.13395); its reference frames show the same places in fair weather."""
    acdc = Cityscapes(
        f"ACDC, {title}",
        (
            f"rgb_anon/{weather}/SPLIT/SEQUENCE/NAME_rgb_anon.png, "
            f"gt/{weather}/SPLIT/SEQUENCE/NAME_gt_labelIds.png",
            "reference frames (splits train_ref, val_ref): NAME_rgb_ref_anon.png, "
            "NAME_gt_ref_labelIds.png",
        ),
        {f"rgb_anon/{each}": f"gt/{each}" for each in weathers},
        ("_rgb{ref}_anon.png", "_gt{ref}_labelIds.png"),
        ("train", "val", "train_ref", "val_ref"),
    )
    acdc.detectable = len(weathers) > 1
    return acdc


CITYSCAPES_SETS: Mapping[str, SetKind] = {
    "cityscapes": Cityscapes(
        "Cityscapes",
        (
            "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png, "
            "gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png",
        ),
        {"leftImg8bit": "gtFine"},
        ("_leftImg8bit.png", "_gtFine_labelIds.png"),
    ),
    "acdc": _acdc(_WEATHERS, "all weathers", "WEATHER"),
    **{f"acdc-{weather}": _acdc((weather,), weather, weather) for weather in _WEATHERS},
    "kitti-step": KittiStep(),
    "cad-edgetune": CadEdgeTune(),
}
"""The sets of this file by name."""
