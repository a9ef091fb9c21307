"""Shared by the tests of bag evaluation: small bags, and a model that paints their masks."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from camseg_core.cli import main as cli
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.labels import CAMVID_11_TRAIN_IDS, Label, cityscapes_labels
from camseg_core.runtime import Segmenter
from camseg_core.runtime.segmenter import Segmentation
from camseg_ros.bag import evaluation
from camseg_ros.bag.make import BagTopics, LabelledFrame, write_bag

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
ROAD, WALL, TREE, SKY, PERSON, RIDER, CAR, TRUCK, VOID = 0, 3, 8, 10, 11, 12, 13, 14, 255
SECOND = 1_000_000_000
START = 100 * SECOND
STEP = SECOND // 10


class Painter:
    """A model whose mask is the image's red channel, with the green one as confidence in %."""

    provider, engine, precision = "cpu", "a painter", "fp32"
    classes: tuple[Label, ...] = LABELS

    def __init__(self, name: str = "painter") -> None:
        self.name = name
        self.labels = self.classes
        self.segmented = 0

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        self.segmented += 1
        known = [label.id for label in self.labels]
        mask = np.where(np.isin(rgb[..., 0], known), rgb[..., 0], ROAD).astype(np.uint8)
        return Segmentation(
            mask, (rgb[..., 1].clip(0, 100) / 100).astype(np.float32), {"paint": 2.0, "dry": 1.0}
        )


def painter() -> Painter:
    """Load the model."""
    return Painter()


def frame(
    index: int, mask: npt.NDArray[Any], label: npt.NDArray[Any], confidence: int = 80
) -> LabelledFrame:
    """Return a frame that the painter answers with `mask` `(H, W)`."""
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[..., 0], image[..., 1] = mask, confidence
    return LabelledFrame(START + index * STEP, image, str(index), np.asarray(label, np.uint8))


def drive(frames: int, height: int = 36, width: int = 48) -> list[LabelledFrame]:
    """Return the synthetic drive for the painter: noisy labels and varying confidences."""
    random = np.random.default_rng(3)
    found = []
    for index, sample in enumerate(SyntheticDrive(frames=frames, height=height, width=width)):
        noise = random.integers(0, len(LABELS), sample.label.shape)
        wrong = random.random(sample.label.shape) < 0.02 * (index % 7)
        mask = np.where(wrong, np.array(CAMVID_11_TRAIN_IDS)[noise], sample.label)
        each = frame(index, mask, sample.label)
        each.image[..., 1] = random.integers(30, 101, sample.label.shape)
        found.append(each)
    return found


def labelled_bag(path: Path, frames: Iterable[LabelledFrame], **topics: Any) -> Path:
    """Write a bag of frames with labels and camera_info."""
    write_bag(frames, path, topics=BagTopics(focal=0.0, **topics))
    return path


@dataclass
class Commands:
    """Runs `camseg` in this process."""

    capture: pytest.CaptureFixture[str]
    painters: list[Painter]

    def __call__(self, *arguments: object, command: str = "bag") -> tuple[int, str, str]:
        """Return exit code, stdout, and stderr without the progress."""
        code = 0
        try:
            cli.main([command, *map(str, arguments)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self.capture.readouterr()
        return (
            code,
            out,
            "".join(line + "\n" for line in err.splitlines() if not line.endswith("s left")),
        )


@pytest.fixture
def camseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Run `camseg bag` with the painter as its model."""
    painters: list[Painter] = []

    def load(model: object, **_: object) -> Painter:
        painters.append(Painter(f"painter {len(painters) + 1}"))
        return painters[-1]

    found = [
        importlib.metadata.EntryPoint(name, f"camseg_ros.bag.command:{add}", "camseg.commands")
        for name, add in (("bag", "add"), ("compare", "add_compare"))
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: found)  # as an install registers them
    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    monkeypatch.setattr(evaluation, "_loaded", {})  # no model of another test
    return Commands(capsys, painters)
