"""Bags of equal stamps, as of a simulated clock: a label is scored in its own bag only."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from recorded import Commands, camseg, drive, labelled_bag

from camseg_core.errors import DataError
from camseg_ros.bag.evaluation import inspect_bag, paired
from camseg_ros.bag.frames import ReadOptions, label_source
from camseg_ros.bag.labels import LabelSource
from camseg_ros.bag.make import IMAGE_TOPIC
from camseg_ros.bag.names import frame_name

__all__ = ["camseg"]
COUNT = 4


@pytest.fixture
def bags(tmp_path: Path) -> list[Path]:
    return [labelled_bag(tmp_path / name, drive(COUNT)) for name in ("A", "B")]


def labels_in(folder: Path, *names: str) -> LabelSource:
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((36, 48), np.uint8))
    return label_source(str(folder), 5)


def name_of(number: int, bag: Path, index: int) -> str:
    return frame_name(number, bag, index, drive(COUNT)[index].stamp_ns)


def labelled(bag: Path, labels: LabelSource) -> list[int]:
    """Return the numbers of the images that have a label."""
    pairs = inspect_bag(bag, ReadOptions(IMAGE_TOPIC, labels)).pairs
    assert pairs is not None
    return [image for image, number in enumerate(pairs.label) if number >= 0]


def test_a_label_with_the_name_of_an_image_belongs_to_that_image_of_that_bag(
    tmp_path: Path, bags: list[Path]
) -> None:
    names = [name_of(0, bags[0], 1), name_of(0, bags[0], 2), name_of(1, bags[1], 3)]
    labels = labels_in(tmp_path / "labels", *names)
    assert [labelled(bag, labels) for bag in bags] == [[1, 2], [3]]
    read = ReadOptions(IMAGE_TOPIC, labels)
    infos = paired(inspect_bag(bag, read) for bag in bags)
    labels.check_shared(infos)
    assert labels.unpaired(infos) == ""
    assert (
        labels.unpaired(infos[:1])
        == f"1 of the 3 labels of labels belongs to no image: {names[2]}.png"
    )


def test_labels_for_images_of_another_bag_are_refused(tmp_path: Path, bags: list[Path]) -> None:
    name = name_of(0, bags[0], 1)
    labels = labels_in(tmp_path / "labels", name)
    with pytest.raises(
        DataError,
        match=rf"no label of labels is named for the bag .*B, but all for images of others, such "
        rf"as {name}\.png: give the bag's own labels, or name them for B or only for their stamps",
    ):
        labelled(bags[1], labels)


def test_a_label_that_belongs_to_two_bags_is_refused_by_every_command(
    tmp_path: Path, bags: list[Path], camseg: Commands
) -> None:
    stamp = drive(COUNT)[2].stamp_ns
    labels_in(tmp_path / "labels", f"left_{stamp}")
    common = ("--topic", IMAGE_TOPIC, "--out", tmp_path / "out")
    folder = tmp_path / "labels"
    labels = ("--bag", *bags, "--bag-labels", folder)
    for code, out, err in (
        camseg("evaluate", *bags, "--labels", folder, *common),
        camseg("mine", *bags, "--labels", folder, *common),
        camseg("camseg-lite", "camseg-lite", *labels, *common, command="compare"),
    ):
        assert (code, out) == (2, "")
        assert (
            f"a label must belong to one bag, but the stamp of left_{stamp}.png in {folder} is "
            f"that of image 2 of {bags[0]} and of image 2 of {bags[1]}: name labels as "
            "`camseg bag images` does for bags of different names, or give one bag at a time with "
            "its labels"
        ) in err
    assert not camseg.painters
    assert camseg("evaluate", bags[0], "--labels", folder, *common)[0] == 0
