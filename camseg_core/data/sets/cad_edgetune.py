"""CAD-EdgeTune: `SEQ*/Images/*.jpg` with `SEQ*/LabelMasks/*_label_mask.png`, ids as in Cityscapes.

It has no splits of its own: `all`, or the name of a sequence.
"""

from pathlib import Path

from camseg_core.data.file_set import (
    IMAGES,
    FileSet,
    doubles,
    folders,
    match,
    visible,
    what_is_there,
)
from camseg_core.data.frame_source import natural_key
from camseg_core.data.sets.cityscapes import label_ids
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES

TITLE = "CAD-EdgeTune"

ALL = "all"

_IMAGES, _LABELS, _ENDING = "Images", "LabelMasks", "_label_mask.png"


def scan(root: Path, split: str) -> FileSet:
    """The files of one sequence, or of all.

    Raises:
        DataError: there is no such sequence, or it has no images.
    """
    expected = (
        f"expected CAD-EdgeTune as ROOT/SEQ*/{_IMAGES}/*.jpg and ROOT/SEQ*/{_LABELS}/*{_ENDING}"
    )
    there = _sequences(root)
    chosen = there if split == ALL else [name for name in there if name == split]
    if not chosen:
        known = f"take {', '.join([ALL, *there[:9]])}" if there else expected
        raise DataError(f"no split {split!r} in {root}, {what_is_there(root)}: {known}")
    images = [
        image for name in chosen for image in visible((root / name / _IMAGES).glob("*"), *IMAGES)
    ]
    if not images:
        raise DataError(f"no images in {root / chosen[0] / _IMAGES}: {expected}")
    pairs, without_label, without_image = match(
        images,
        lambda image: image.parent.parent / _LABELS / f"{image.stem}{_ENDING}",
        visible((path for name in chosen for path in (root / name / _LABELS).glob("*")), _ENDING),
        lambda image: f"{image.parent.parent.name}/{image.stem}",
    )
    return FileSet(
        *(pairs, without_label, without_image, CITYSCAPES, label_ids(TITLE)),
        rule=f"every image needs one of its name and {_ENDING}",
        problems=doubles(images),
    )


def splits(root: Path) -> tuple[str, ...]:
    """What can be asked for: all sequences together."""
    return (ALL,) if _sequences(root) else ()


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return bool(_sequences(root))


def _sequences(root: Path) -> list[str]:
    return sorted(
        (
            name
            for name in folders(root)
            if name.startswith("SEQ") and (root / name / _IMAGES).is_dir()
        ),
        key=natural_key,
    )
