"""Miniature data sets in their true layouts.

A label has one column for each value that it can hold, in the order of the table.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from camseg_core.data.sets.voc import voc_color
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


TOOL_CLASSES = (None, "road", "Traffic_Light", "tarmac")
"""By column: without annotation, Cityscapes classes, and one that the mapping lists."""

TOOL_MAPPING = "names: {road: [tarmac]}\n"
TOOL_ROW = (VOID, 0, 6, 0)
TOOL_COLORS = ((0, 0, 0), (128, 64, 128), (250, 170, 30), (51, 221, 255))


def voc(root: Path) -> Tree:
    """CVAT's "Segmentation mask 1.1" with images."""
    frames = {}
    for name in ("frame_000000", "drive/frame_000001"):
        image = write(root / "JPEGImages" / f"{name}.jpg", photo(4))
        label = write(root / "SegmentationClass" / f"{name}.png", columns(TOOL_COLORS))
        write(root / "SegmentationObject" / f"{name}.png", columns(TOOL_COLORS))
        frames[name] = (image, label)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("".join(f"{name}\n" for name in frames))
    names = ("background", *TOOL_CLASSES[1:])
    lines = [f"{n}:{r},{g},{b}::" for n, (r, g, b) in zip(names, TOOL_COLORS, strict=True)]
    head = "# label:color_rgb:parts:actions"
    (root / "labelmap.txt").write_text("\n".join([head, *lines]) + "\n")
    (root / "mapping.yaml").write_text(TOOL_MAPPING)
    return Tree(root, frames, "all", TOOL_ROW)


def voc_labelme(root: Path) -> Tree:
    """What labelme2voc writes: palette PNGs, and the names of the classes in order."""
    frames = {}
    for name in ("2011_000003", "2011_000006"):
        image = write(root / "JPEGImages" / f"{name}.jpg", photo(4))
        label = root / "SegmentationClass" / f"{name}.png"
        label.parent.mkdir(exist_ok=True)
        write_palette(label, columns((0, 1, 2, 255)))
        frames[name] = (image, label)
    (root / "class_names.txt").write_text("_background_\nroad\ntraffic light")
    return Tree(root, frames, "all", (VOID, 0, 6, VOID))


def write_palette(path: Path, ids: np.ndarray) -> None:
    """Write a PNG of indices with Pascal VOC's palette."""
    picture = Image.fromarray(ids, "P")
    picture.putpalette([value for i in range(256) for value in voc_color(i)])
    picture.save(path)


def box(x: int, width: int = 1) -> list[float]:
    """A polygon in COCO's form around columns of pixels."""
    return [x, 0, x + width, 0, x + width, HEIGHT, x, HEIGHT]


def coco_content(names: Sequence[str]) -> dict[str, Any]:
    """The annotations of these images: polygons, and run-length masks in both forms."""
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(TOOL_CLASSES[1:], start=1)
    ]
    runs = {"counts": [2 * HEIGHT, HEIGHT, HEIGHT], "size": [HEIGHT, 4]}
    mask = np.zeros((HEIGHT, 4), np.uint8, order="F")
    mask[:, 3] = 1
    packed = {"counts": coco_masks.encode(mask)["counts"].decode(), "size": [HEIGHT, 4]}
    annotations = [
        {
            **{"id": 3 * image + number, "image_id": image, "category_id": number, "area": HEIGHT},
            **{"segmentation": stored, "bbox": [number, 0, 1, HEIGHT]},
            **{"iscrowd": int(number > 1), "attributes": {"occluded": False}},
        }
        for image in range(1, len(names) + 1)
        for number, stored in enumerate(([box(1)], runs, packed), start=1)
    ]
    images = [
        {"id": i, "width": 4, "height": HEIGHT, "file_name": name, "license": 0, "flickr_url": ""}
        for i, name in enumerate(names, start=1)
    ]
    head = {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"contributor": ""}}
    return {**head, "categories": categories, "images": images, "annotations": annotations}


def coco(root: Path) -> Tree:
    """CVAT's "COCO 1.0" of a project with subsets."""
    frames = {}
    (root / "annotations").mkdir(parents=True)
    for subset in ("Train", "Validation"):
        names = [f"frame_{number:06}.png" for number in (0, 5)]
        path = root / "annotations" / f"instances_{subset}.json"
        path.write_text(json.dumps(coco_content(names)))
        for name in names:
            image = write(root / "images" / subset / name, photo(4))
            if subset == "Validation":
                frames[image.stem] = (image, path)
    (root / "mapping.yaml").write_text(TOOL_MAPPING)
    return Tree(root, frames, "val", TOOL_ROW)


def labelme_content(image: str) -> dict[str, Any]:
    """The file that labelme writes for an image."""
    shapes: list[dict[str, Any]] = [
        {
            **{"label": name, "points": [[x, 0], [x, HEIGHT - 1]], "group_id": None},
            **{"description": "", "shape_type": "rectangle", "flags": {}, "mask": None},
        }
        for x, name in enumerate(TOOL_CLASSES)
        if name is not None
    ]
    size = {"imageHeight": HEIGHT, "imageWidth": 4}
    head = {"version": "5.5.0", "flags": {}, "shapes": shapes}
    return {**head, "imagePath": image, "imageData": None, **size}


def labelme(root: Path) -> Tree:
    frames = {}
    for name in ("0003", "drive/0007"):
        image = write(root / f"{name}.jpg", photo(4))
        label = root / f"{name}.json"
        label.write_text(json.dumps(labelme_content(image.name), indent=2))
        frames[name] = (image, label)
    (root / "mapping.yaml").write_text(TOOL_MAPPING)
    return Tree(root, frames, "all", TOOL_ROW)


TREES: dict[str, tuple[str, Callable[[Path], Tree]]] = {
    "camvid": ("camvid", camvid),
    "camvid as SegNet has it": ("camvid", camvid_segnet),
    "camvid-32": ("camvid-32", camvid_32),
    "camvid-32 as published": ("camvid-32", camvid_32_original),
    "cityscapes": ("cityscapes", cityscapes),
    "acdc": ("acdc", acdc),
    "kitti-step": ("kitti-step", kitti_step),
    "cad-edgetune": ("cad-edgetune", cad_edgetune),
    "voc": ("voc", voc),
    "voc of labelme": ("voc", voc_labelme),
    "coco": ("coco", coco),
    "labelme": ("labelme", labelme),
    "folder": ("folder", folder),
    "list": ("list", list_file),
}
"""By a title: the kind, and what writes one."""
