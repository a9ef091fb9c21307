"""Cityscapes (arXiv 1604.01685)."""

from pathlib import Path

from camseg_core.data.file_set import FileSet, find_files, no_split
from camseg_core.data.label_files import IdLabels
from camseg_core.data.sets.kind import OwnLabels, SetKind
from camseg_core.labels import CITYSCAPES, TRAIN_ID_OF_LABEL_ID

_LABEL_IDS = (
    f"0 to {max(TRAIN_ID_OF_LABEL_ID)} (in files of train ids, 255 is void: give *_labelIds.png)"
)


def label_ids(source: str) -> IdLabels:
    """A decoder of Cityscapes' 34 label ids; its errors name `source`."""
    return IdLabels(TRAIN_ID_OF_LABEL_ID, source, _LABEL_IDS)


def withheld(title: str) -> str:
    """What to say of a split without any label."""
    return (
        f"no image of this split has a label (those of {title}'s test are withheld by its makers): "
        "choose train or val"
    )


class Cityscapes(SetKind):
    """Folders of cities in `leftImg8bit` and `gtFine`."""

    title = "Cityscapes"
    named_splits = ("train", "val")
    layout = (
        "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png, gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png",
    )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
        if not images.is_dir():
            raise no_split(split, images.parent, self.expected)
        ending, label_ending = "_leftImg8bit.png", "_gtFine_labelIds.png"
        return FileSet.of(
            find_files([(images, labels)], self.expected, [ending], label_ending, "*/*"),
            *(CITYSCAPES, label_ids(self.title)),
            rule=f"every image needs its *{label_ending}",
            withheld=withheld(self.title),
        )

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return tuple(name for name in self.named_splits if (root / "leftImg8bit" / name).is_dir())

    def detect(self, root: Path) -> bool:
        return (root / "leftImg8bit").is_dir()
