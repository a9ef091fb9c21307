"""Miniature data sets in their true layouts.

A label has one column for each value that it can hold, in the order of the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from camseg_core.labels import CAMVID_32, CITYSCAPES_LABEL_IDS, TRAIN_ID

HEIGHT = 6
VOID = 255

LABEL_IDS = tuple(label.id for label in CITYSCAPES_LABEL_IDS)
TRAIN_IDS = (*range(19), VOID)

Values = Sequence[int] | Sequence[tuple[int, int, int]]


def columns(values: Values, height: int = HEIGHT) -> np.ndarray:
    """Ids `(height, N)` or RGB `(height, N, 3)` with one value a column."""
    return np.repeat(np.array(values, np.uint8)[None], height, axis=0)


def write(path: Path, array: np.ndarray) -> Path:
    """Write an image file of ids or RGB; make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)
    return path


def photo(width: int, shade: int = 0, height: int = HEIGHT) -> np.ndarray:
    """Plain RGB with more red than blue, so that swapped channels show."""
    return np.full((height, width, 3), (200, 100 + shade, 20), np.uint8)


@dataclass(frozen=True)
class Tree:
    """A written set.

    `frames` are image and label by name, of `split`, the default one; `expected` are the train ids
    of a row of a label.
    """

    root: Path
    frames: dict[str, tuple[Path, Path]]
    split: str
    expected: tuple[int, ...]

    def image(self, index: int = 0) -> Path:
        return list(self.frames.values())[index][0]

    def label(self, index: int = 0) -> Path:
        return list(self.frames.values())[index][1]


def cityscapes(root: Path) -> Tree:
    frames = {}
    for split, cities in {"train": ("aachen",), "val": ("frankfurt", "lindau")}.items():
        for city in cities:
            for number in range(2):
                name = f"{city}_{number:06}_000019"
                image = write(
                    root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png",
                    photo(len(LABEL_IDS), number),
                )
                label = write(
                    root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", columns(LABEL_IDS)
                )
                write(
                    root / f"gtFine/{split}/{city}/{name}_gtFine_instanceIds.png",
                    columns(LABEL_IDS),
                )
                if split == "val":
                    frames[name] = (image, label)
    return Tree(root, frames, "val", tuple(label.train_id for label in CITYSCAPES_LABEL_IDS))


def acdc(root: Path) -> Tree:
    frames = {}
    for weather in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            for ref, number in (("", 1), ("", 2), ("_ref", 1), ("_ref", 2)):
                name = f"GOPR_{weather}_frame_{number:06}"
                place = f"{weather}/{split}{ref}/GOPR"
                image = write(
                    root / f"rgb_anon/{place}/{name}_rgb{ref}_anon.png", photo(len(LABEL_IDS))
                )
                label = write(root / f"gt/{place}/{name}_gt{ref}_labelIds.png", columns(LABEL_IDS))
                if (split, ref) == ("val", ""):
                    frames[name] = (image, label)
    return Tree(root, frames, "val", tuple(label.train_id for label in CITYSCAPES_LABEL_IDS))


def kitti_step(root: Path) -> Tree:
    frames = {}
    for split, sequences in {"train": ("0000",), "val": ("0002", "0006")}.items():
        for sequence in sequences:
            for number in range(2):
                image = write(
                    root / f"training/image_02/{sequence}/{number:06}.png", photo(len(TRAIN_IDS))
                )
                colors = [
                    (train_id, 1, 200) for train_id in TRAIN_IDS
                ]  # the others number instances
                label = write(
                    root / f"kitti-step/panoptic_maps/{split}/{sequence}/{number:06}.png",
                    columns(colors),
                )
                if split == "val":
                    frames[f"{sequence}/{number:06}"] = (image, label)
    return Tree(root, frames, "val", TRAIN_IDS)


def cad_edgetune(root: Path) -> Tree:
    frames = {}
    for sequence in ("SEQ1", "SEQ2", "SEQ10"):
        name = f"image_{sequence}"
        image = write(root / f"{sequence}/Images/{name}.jpg", photo(len(LABEL_IDS)))
        label = write(root / f"{sequence}/LabelMasks/{name}_label_mask.png", columns(LABEL_IDS))
        frames[f"{sequence}/{name}"] = (image, label)
    return Tree(root, frames, "all", tuple(label.train_id for label in CITYSCAPES_LABEL_IDS))


COLORS = [color for _, color, _ in CAMVID_32]
CAMVID_32_ROW = tuple(VOID if target is None else TRAIN_ID[target] for _, _, target in CAMVID_32)


def camvid_32(root: Path) -> Tree:
    frames = {}
    for split in ("train", "val"):
        for number in range(2):
            name = f"0016E5_{number:05}"
            image = write(root / split / f"{name}.png", photo(len(COLORS)))
            label = write(root / f"{split}_labels" / f"{name}_L.png", columns(COLORS))
            if split == "val":
                frames[name] = (image, label)
    head = "name,r,g,b"
    lines = [head, *(f"{name},{red},{green},{blue}" for name, (red, green, blue), _ in CAMVID_32)]
    (root / "class_dict.csv").write_text("\n".join(lines))
    return Tree(root, frames, "val", CAMVID_32_ROW)


def camvid_32_original(root: Path) -> Tree:
    """In the folders of the first publication, with lists of the splits."""
    frames = {}
    for number in range(4):
        name = f"0016E5_{number:05}"
        image = write(root / "701_StillsRaw_full" / f"{name}.png", photo(len(COLORS)))
        label = write(root / "LabeledApproved_full" / f"{name}_L.png", columns(COLORS))
        if number >= 2:
            frames[name] = (image, label)
    (root / "train.txt").write_text("0016E5_00000.png\n0016E5_00001.png\n")
    (root / "val.txt").write_text("0016E5_00002\n\n0016E5_00003\n")
    lines = [f"{red} {green} {blue}\t\t{name}" for name, (red, green, blue), _ in CAMVID_32]
    (root / "label_colors.txt").write_text("\n".join(lines))
    return Tree(root, frames, "val", CAMVID_32_ROW)


CAMVID_11_ROW = (10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, VOID)


def camvid(root: Path) -> Tree:
    frames = {}
    for split in ("train", "val"):
        for number in range(2):
            name = f"0016E5_{number:05}"
            image = write(root / split / "images" / f"{name}.jpg", photo(12))
            label = write(root / split / "labels" / f"{name}.png", columns(range(12)))
            if split == "val":
                frames[name] = (image, label)
    return Tree(root, frames, "val", CAMVID_11_ROW)


def camvid_segnet(root: Path) -> Tree:
    frames = {}
    for split in ("train", "val", "test"):
        for number in range(2):
            name = f"0016E5_{number:05}"
            image = write(root / split / f"{name}.png", photo(12))
            label = write(root / f"{split}annot" / f"{name}.png", columns(range(12)))
            if split == "val":
                frames[name] = (image, label)
        (root / f"{split}.txt").write_text(
            f"/SegNet/CamVid/{split}/a.png /SegNet/CamVid/{split}annot/a.png\n"
        )
    return Tree(root, frames, "val", CAMVID_11_ROW)


MAPPING = "ids: {road: [1, 2], car: [9], unlabelled: [0]}\n"
OWN_IDS, OWN_ROW = (0, 1, 2, 9), (VOID, 0, 0, 13)


def folder(root: Path) -> Tree:
    frames = {}
    for name in ("a", "drive/b"):
        image = write(root / "images" / f"{name}.jpg", photo(4))
        label = write(root / "labels" / f"{name}.png", columns(OWN_IDS))
        frames[name] = (image, label)
    (root / "mapping.yaml").write_text(MAPPING)
    return Tree(root, frames, "all", OWN_ROW)


def list_file(root: Path) -> Tree:
    frames = {}
    for name in ("one", "my drive/two"):
        image = write(root / "somewhere" / f"{name}.png", photo(4))
        label = write(root / "else" / f"{name}-ids.png", columns(OWN_IDS))
        frames[f"somewhere/{name}"] = (image, label)
    lines = [
        "# image label",
        "somewhere/one.png else/one-ids.png",
        "",
        '"somewhere/my drive/two.png" "else/my drive/two-ids.png"  # the other',
    ]
    (root / "frames.txt").write_text("\n".join(lines))
    (root / "mapping.yaml").write_text(MAPPING)
    return Tree(root / "frames.txt", frames, "all", OWN_ROW)


TREES: dict[str, tuple[str, Callable[[Path], Tree]]] = {
    "camvid": ("camvid", camvid),
    "camvid as SegNet has it": ("camvid", camvid_segnet),
    "camvid-32": ("camvid-32", camvid_32),
    "camvid-32 as published": ("camvid-32", camvid_32_original),
    "cityscapes": ("cityscapes", cityscapes),
    "acdc": ("acdc", acdc),
    "kitti-step": ("kitti-step", kitti_step),
    "cad-edgetune": ("cad-edgetune", cad_edgetune),
    "folder": ("folder", folder),
    "list": ("list", list_file),
}
"""By a title: the kind, and what writes one."""
