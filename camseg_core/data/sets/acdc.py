"""ACDC (arXiv 2104.13395), fog, night, rain and snow: `rgb_anon/WEATHER/SPLIT/SEQUENCE/*_rgb_anon.png`, `gt/…/*_gt_labelIds.png`.

The frames of the same places in fair weather are splits of their own, `train_ref` and `val_ref`, with `*_rgb_ref_anon.png` and
`*_gt_ref_labelIds.png`.
"""

from collections.abc import Sequence
from pathlib import Path

from camseg_core.data.file_set import FileSet, Pair, what_is_there
from camseg_core.data.sets.cityscapes import label_ids, match_trees
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES

TITLE = "ACDC"

WEATHERS = ("fog", "night", "rain", "snow")

SPLITS = ("train", "val", "train_ref", "val_ref")
"""With labels; those of `test` are withheld."""

_IMAGES, _LABELS = "rgb_anon", "gt"


def scan(root: Path, split: str, weathers: Sequence[str] = WEATHERS) -> FileSet:
    """The files of a split, weather by weather.

    Raises:
        DataError: a weather lacks the split or has no images in it.
    """
    ref = "_ref" if split.endswith("_ref") else ""
    image_ending, label_ending = f"_rgb{ref}_anon.png", f"_gt{ref}_labelIds.png"
    pairs: tuple[Pair, ...] = ()
    without_label: tuple[Pair, ...] = ()
    without_image: tuple[Path, ...] = ()
    for weather in weathers:
        expected = (
            f"expected ACDC as ROOT/{_IMAGES}/{weather}/{split}/SEQUENCE/*{image_ending} and "
            f"ROOT/{_LABELS}/{weather}/{split}/SEQUENCE/*{label_ending}"
        )
        one = "; for one weather alone: --dataset acdc-WEATHER" if len(weathers) > 1 else ""
        folder = root / _IMAGES / weather
        if not (folder / split).is_dir():
            raise DataError(
                f"no split {split!r} in {folder}, {what_is_there(folder)}: {expected}{one}"
            )
        found = match_trees(
            folder / split, image_ending, root / _LABELS / weather / split, label_ending
        )
        if not found[0] and not found[1]:
            raise DataError(f"no images in {folder / split}: {expected}{one}")
        pairs, without_label, without_image = (
            pairs + found[0],
            without_label + found[1],
            without_image + found[2],
        )
    return FileSet(
        *(pairs, without_label, without_image, CITYSCAPES, label_ids(TITLE)),
        rule=f"every image needs its *{label_ending}",
        withheld="no image of this split has a label (those of ACDC's test are withheld by its makers): choose train or val",
    )


def splits(root: Path, weathers: Sequence[str] = WEATHERS) -> tuple[str, ...]:
    """The splits with labels that are there, of the reference frames too where they are labelled."""

    def there(split: str) -> bool:
        kind = _LABELS if split.endswith("_ref") else _IMAGES
        return any((root / kind / weather / split).is_dir() for weather in weathers)

    return tuple(split for split in SPLITS if there(split))


def detect(root: Path) -> bool:
    """Whether `root` is laid out so."""
    return any((root / _IMAGES / weather).is_dir() for weather in WEATHERS)
