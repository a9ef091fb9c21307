"""ACDC (arXiv 2104.13395): fog, night, rain and snow.

Reference frames, of the same places in fair weather, are the splits `train_ref` and `val_ref`.
"""

from pathlib import Path

from camseg_core.data.file_set import FileSet, Found, Pair, find_files, no_split
from camseg_core.data.sets.cityscapes import label_ids, withheld
from camseg_core.data.sets.kind import OwnLabels, SetKind
from camseg_core.labels import CITYSCAPES

WEATHERS = ("fog", "night", "rain", "snow")


class Acdc(SetKind):
    """All weathers, or one of them."""

    named_splits = ("train", "val", "train_ref", "val_ref")

    def __init__(self, *weathers: str) -> None:
        self.detectable = not weathers
        self._weathers = weathers or WEATHERS
        self.title = f"ACDC, {', '.join(weathers) or 'all weathers'}"
        weather = weathers[0] if weathers else "WEATHER"
        self.layout = (
            f"rgb_anon/{weather}/SPLIT/SEQUENCE/NAME_rgb_anon.png, "
            f"gt/{weather}/SPLIT/SEQUENCE/NAME_gt_labelIds.png",
            "reference frames (splits train_ref, val_ref): NAME_rgb_ref_anon.png, "
            "NAME_gt_ref_labelIds.png",
        )

    def scan(self, root: Path, split: str, own: OwnLabels) -> FileSet:
        ref = "_ref" if split.endswith("_ref") else ""
        ending, label_ending = f"_rgb{ref}_anon.png", f"_gt{ref}_labelIds.png"
        expected = self.expected
        if len(self._weathers) > 1:
            expected += "; for one weather: --dataset acdc-WEATHER"
        pairs: list[Pair] = []
        label_files: list[Path] = []
        for weather in self._weathers:
            images, labels = root / "rgb_anon" / weather / split, root / "gt" / weather / split
            if not images.is_dir():
                raise no_split(split, images.parent, expected)
            found = find_files([(images, labels)], expected, [ending], label_ending, "*/*")
            pairs += found.pairs
            label_files += found.label_files
        return FileSet.of(
            Found(pairs, label_files),
            *(CITYSCAPES, label_ids("ACDC")),
            rule=f"every image needs its *{label_ending}",
            withheld=withheld("ACDC"),
        )

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        """Reference splits count only if they have labels."""

        def exists(split: str) -> bool:
            folder = root / ("gt" if split.endswith("_ref") else "rgb_anon")
            return any((folder / weather / split).is_dir() for weather in self._weathers)

        return tuple(split for split in self.named_splits if exists(split))

    def detect(self, root: Path) -> bool:
        return any((root / "rgb_anon" / weather).is_dir() for weather in WEATHERS)
