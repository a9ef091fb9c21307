"""KITTI-STEP, labels of KITTI's tracking sequences (arXiv 2102.11859).

The authors of CAM-Seg call it SemanticKITTI. The red channel of a label holds the train id, the
others number instances.
"""

from pathlib import Path

from camseg_core.data.file_set import FileSet, find_files, no_split, subfolders
from camseg_core.data.label_files import RedIdLabels
from camseg_core.data.sets.kind import OwnLabels, SetKind
from camseg_core.labels import CITYSCAPES, STORED_TRAIN_IDS


class KittiStep(SetKind):
    """Sequences of numbered frames; a split is the sequences in its folder of labels."""

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
        return FileSet.of(found, CITYSCAPES, decode, rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return tuple(split for split in self.named_splits if (_maps(root) / split).is_dir())

    def detect(self, root: Path) -> bool:
        return _maps(root).is_dir()


def _maps(root: Path) -> Path:
    maps = root / "panoptic_maps"
    return maps if maps.is_dir() else root / "kitti-step" / "panoptic_maps"
