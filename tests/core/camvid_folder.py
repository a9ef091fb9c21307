"""Miniature CamVid folders: good ones, and one for each way in which a folder can be bad."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)


def write_camvid(root: Path, *splits: str, frames: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """Write frames of noise of `size` (height, width); return `root`."""
    random = np.random.default_rng(0)
    for split in splits or ("train",):
        for part in ("images", "labels"):
            (root / split / part).mkdir(parents=True)
        for i in range(frames):
            cv2.imwrite(
                str(root / split / "images" / f"0001TP_{i:06}.jpg"),
                random.integers(0, 255, (*size, 3), np.uint8),
            )
            cv2.imwrite(
                str(root / split / "labels" / f"0001TP_{i:06}.png"),
                random.integers(0, 12, size, np.uint8),
            )
    return root


@dataclass(frozen=True)
class Damage:
    """A way to spoil a split's folder, and the pattern that the error must match."""

    name: str
    spoil: Callable[[Path], object]
    message: str


def _image(split: Path) -> Path:
    return split / "images" / "0001TP_000001.jpg"


def _label(split: Path) -> Path:
    return split / "labels" / "0001TP_000001.png"


def _write(path: Path, array: np.ndarray) -> None:
    assert cv2.imwrite(str(path), array)


def _in_turn(*actions: Callable[[], object]) -> None:
    for action in actions:
        action()


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _ids(*ids: int) -> np.ndarray:
    label = np.zeros(SIZE, np.uint8)
    label[0, : len(ids)] = ids
    return label


BOTH = r"train/labels/0001TP_000001\.png .*train/images/0001TP_000001\.jpg"

DAMAGES = [
    Damage(
        "label of another size",
        lambda s: _write(_label(s), np.zeros((40, 64), np.uint8)),
        BOTH.replace(" ", " is 64x40, but ", 1),
    ),
    Damage(
        "ids outside",
        lambda s: _write(_label(s), _ids(12, 30, 11)),
        r"train/labels/0001TP_000001\.png holds class ids 12, 30: .*0 to 10",
    ),
    Damage(
        "many ids outside",
        lambda s: _write(_label(s), _ids(*range(20, 30))),
        r"class ids 20, 21, 22, 23, 24, \.\.\.: CamVid",
    ),
    Damage(
        "colour label",
        lambda s: _write(_label(s), np.zeros((*SIZE, 3), np.uint8)),
        r"0001TP_000001\.png has 3 channels, .*class ids, 0 to 10",
    ),
    Damage(
        "label with opacity",
        lambda s: _write(_label(s), np.zeros((*SIZE, 4), np.uint8)),
        r"0001TP_000001\.png has 4 channels",
    ),
    Damage(
        "cut image", lambda s: _cut(_image(s), 0.6), r"train/images/0001TP_000001\.jpg is cut off"
    ),
    Damage(
        "image cut by a byte",
        lambda s: _cut(_image(s), 0.9999),
        r"train/images/0001TP_000001\.jpg is cut off",
    ),
    Damage(
        "cut label", lambda s: _cut(_label(s), 0.6), r"train/labels/0001TP_000001\.png is cut off"
    ),
    Damage(
        "damaged label",
        lambda s: _flip_bit(_label(s)),
        r"train/labels/0001TP_000001\.png is damaged \(the checksum of its IDAT data is wrong\)",
    ),
    Damage(
        "empty image",
        lambda s: _image(s).write_bytes(b""),
        r"train/images/0001TP_000001\.jpg is empty \(0 bytes\)",
    ),
    Damage(
        "empty label",
        lambda s: _label(s).write_bytes(b""),
        r"train/labels/0001TP_000001\.png is empty \(0 bytes\)",
    ),
    Damage(
        "text for an image",
        lambda s: _image(s).write_text("no image"),
        r"cannot read .*0001TP_000001\.jpg: it is damaged or not an image",
    ),
    Damage(
        "folder for a label",
        lambda s: _in_turn(_label(s).unlink, _label(s).mkdir),
        r"missing label .*0001TP_000001\.png \(a folder\) of image .*1\.jpg",
    ),
    Damage(
        "link to nowhere",
        lambda s: _in_turn(_image(s).unlink, lambda: _image(s).symlink_to("gone")),
        r"cannot read .*1\.jpg: No such file or directory",
    ),
    Damage(
        "missing label",
        lambda s: _label(s).unlink(),
        r"missing label .*0001TP_000001\.png of image .*0001TP_000001\.jpg: every",
    ),
    Damage(
        "missing labels",
        lambda s: _empty(s / "labels"),
        r"missing label .*0001TP_000000\.png of image .* \(and 2 more\): every",
    ),
    Damage(
        "no images",
        lambda s: _empty(s / "images"),
        r"no images \(jpg, jpeg, png\) in .*train/images: expected in ROOT SPLIT/images/NAME\.jpg",
    ),
    Damage(
        "missing split",
        _remove,
        r"no split 'train' in .*, which has val: expected in ROOT SPLIT/images/NAME\.jpg .*, "
        r"SPLIT/labels/NAME\.png",
    ),
    Damage(
        "missing root",
        lambda s: _remove(s.parent),
        r"no split 'train' in .*, which is not a folder: ",
    ),
    Damage(
        "frames of different sizes",
        lambda s: _in_turn(
            lambda: _write(_image(s), np.zeros((40, 60, 3), np.uint8)),
            lambda: _write(_label(s), np.zeros((40, 60), np.uint8)),
        ),
        r"images/0001TP_000001\.jpg is 60x40, but .*images/0001TP_000000\.jpg is 64x48: "
        "all frames of a split must have the same size",
    ),
    Damage(
        "two images of a name",
        lambda s: _write(_image(s).with_suffix(".png"), np.zeros((*SIZE, 3), np.uint8)),
        r"0001TP_000001\.jpg and .*0001TP_000001\.png have the same name except for the ending",
    ),
]
"""Each gives a DataError of one line."""
