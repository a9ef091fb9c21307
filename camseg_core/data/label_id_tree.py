"""What Cityscapes and the sets after its example share: a folder of images and a folder of labels by sequence, ids as in Cityscapes."""

from pathlib import Path

from camseg_core.data.file_set import Pair, match, visible
from camseg_core.data.label_files import IdLabels
from camseg_core.labels import TRAIN_ID_OF_LABEL_ID

LABEL_IDS = f"0 to {max(TRAIN_ID_OF_LABEL_ID)} (files of train ids, in which 255 is void, are others: give *_labelIds.png)"


def label_ids(whose: str) -> IdLabels:
    """Reads labels that hold Cityscapes' 34 ids; `whose` they are is for messages."""
    return IdLabels(TRAIN_ID_OF_LABEL_ID, whose, LABEL_IDS)


def match_trees(
    images: Path, image_ending: str, labels: Path, label_ending: str
) -> tuple[tuple[Pair, ...], tuple[Pair, ...], tuple[Path, ...]]:
    """Images `SEQUENCE/NAME<image_ending>` and labels `SEQUENCE/NAME<label_ending>` in two folders, as `match` gives them."""

    def stem(image: Path) -> str:
        return image.name[: -len(image_ending)]

    return match(
        visible(images.glob(f"*/*{image_ending}"), image_ending.lower()),
        lambda image: labels / image.parent.name / f"{stem(image)}{label_ending}",
        visible(labels.glob(f"*/*{label_ending}"), label_ending.lower()),
        stem,
    )
