"""CAD-EdgeTune: sequences with label ids as in Cityscapes, without splits of its own."""

from pathlib import Path

from camseg_core.data.file_set import FileSet, find_files, no_split, subfolders
from camseg_core.data.frame_source import natural_key
from camseg_core.data.sets.cityscapes import label_ids
from camseg_core.data.sets.kind import ALL, OwnLabels, SetKind
from camseg_core.labels import CITYSCAPES

_ENDING = "_label_mask.png"


class CadEdgeTune(SetKind):
    """The split is `all`, or the name of a sequence."""

    title = "CAD-EdgeTune"
    layout = (
        f"SEQ*/Images/NAME.jpg, SEQ*/LabelMasks/NAME{_ENDING}",
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
            label_ending=_ENDING,
            name=lambda stem: f"{stem.parent.parent.name}/{stem.name}",
        )
        rule = f"every image needs the label of its name with {_ENDING}"
        return FileSet.of(found, CITYSCAPES, label_ids(self.title), rule=rule)

    def splits(self, root: Path, own: OwnLabels) -> tuple[str, ...]:
        return (ALL,) if _sequences(root) else ()

    def detect(self, root: Path) -> bool:
        return bool(_sequences(root))


def _sequences(root: Path) -> list[str]:
    names = (name for name in subfolders(root) if name.startswith("SEQ"))
    return sorted((name for name in names if (root / name / "Images").is_dir()), key=natural_key)
