"""Labels in messages and files: class ids or a refusal, never pixels that a decoder made up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from few_bits import few_bits_png
from PIL import Image

from camseg_core.errors import DataError
from camseg_ros.bag.labels import FolderLabels
from camseg_ros.bag.pairs import NO_IMAGE, NO_LABEL, pair
from camseg_ros.compressed_images import compressed_to_ids
from camseg_ros.images import BadImage, image_to_ids

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)
LIMIT = 1 << 20


def compressed(pixels: npt.NDArray[Any], suffix: str = ".png", keep: int | None = None) -> Any:
    data = np.asarray(cv2.imencode(suffix, pixels)[1]).ravel()[:keep]
    return SimpleNamespace(format=suffix[1:], data=data)


def raw(encoding: str, step: int = 4) -> Any:
    data = np.zeros((3, step), np.uint8)
    data[:, :4] = IDS
    return SimpleNamespace(
        height=3, width=4, encoding=encoding, is_bigendian=0, step=step, data=data.ravel()
    )


def test_ids_are_unchanged() -> None:
    for message in (raw("mono8"), raw("8UC1"), raw("mono8", step=7)):  # rows may be padded
        assert np.array_equal(image_to_ids(message, LIMIT), IDS)
    assert np.array_equal(compressed_to_ids(compressed(IDS), LIMIT), IDS)
    for bits in (1, 2, 4):
        few = IDS % 2**bits
        data = np.frombuffer(few_bits_png(few, bits), np.uint8)
        found = compressed_to_ids(SimpleNamespace(format="png", data=data), LIMIT)
        assert np.array_equal(found, few)


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        (compressed(IDS, ".jpg"), "encoding", "is not a PNG; JPEG would change class ids"),
        (
            compressed(np.zeros((3, 4, 3), np.uint8)),
            "encoding",
            "has colours; labels must be class ids in one 8-bit channel",
        ),
        (compressed(IDS.astype(np.uint16)), "encoding", "has uint16; labels"),
        (compressed(IDS, keep=40), "truncated", "is damaged or cut short"),
        (compressed(np.zeros((2000, 2000), np.uint8)), "too large", "holds 2000x2000 pixels"),
    ],
)
def test_compressed_images_without_class_ids_are_refused(
    message: Any, reason: str, text: str
) -> None:
    with pytest.raises(BadImage, match=text) as caught:
        compressed_to_ids(message, LIMIT)
    assert caught.value.reason == reason


def test_colour_images_are_refused_as_labels() -> None:
    with pytest.raises(BadImage, match="labels must be class ids in mono8 images, got rgb8"):
        image_to_ids(raw("rgb8"), LIMIT)
    with pytest.raises(BadImage, match="step 2"):
        image_to_ids(SimpleNamespace(**{**vars(raw("mono8")), "step": 2}), LIMIT)


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        ([100, 200, 300], [300, 200, 100], [2, 1, 0]),
        ([69, 70, 169, 250], [100, 200], [NO_LABEL, 0, NO_LABEL, NO_LABEL]),
        ([180, 230, 131], [100, 200], [1, NO_LABEL, NO_LABEL]),  # one image for each label
        ([100, 103, 106], [104], [NO_LABEL, 0, NO_LABEL]),
        ([100], [90, 110, 130], [0]),
        ([7, 7, 9, 7], [7, 7, 9, 7], [0, 1, 2, 3]),  # as often on both sides: by order
        ([7, 9, 7], [8, 8], [0, NO_LABEL, 1]),
        ([7, 7, 9], [7, 9], [NO_LABEL, NO_LABEL, 1]),
        ([7, 9], [7, 7, 9], [NO_LABEL, 2]),
        ([], [1], []),
        ([1], [], [NO_LABEL]),
        ([1_700_000_000_123_456_789], [1_700_000_000_123_456_760], [0]),
    ],
)
def test_an_image_has_the_label_that_is_nearest_and_no_other(
    images: list[int], labels: list[int], found: list[int]
) -> None:
    assert pair(images, labels, 30).label.tolist() == found


def test_a_label_named_for_an_image_belongs_to_no_other() -> None:
    stamps = [7, 7, 9, 11]
    assert pair(stamps, stamps, 0, {0: 1, 1: 0}).label.tolist() == [1, 0, 2, 3]
    assert pair(stamps, [9, 11], 0, {0: 3, 1: NO_IMAGE}).label.tolist() == [NO_LABEL] * 4
    assert pair(stamps, [9], 0, {0: 4}).label.tolist() == [NO_LABEL] * 4  # as many images as 4
    # an image with a label takes no second one, nor does its neighbour get that
    assert pair([10, 20], [10, 10], 15, {0: 0}).label.tolist() == [0, NO_LABEL]
    pairs = pair([7, 7, 7], [7, 7], 0, {0: 2})
    assert (pairs.label.tolist(), pairs.unclear) == ([NO_LABEL, NO_LABEL, 0], 2)


def test_only_images_of_the_range_count_as_unclear_or_paired_by_order() -> None:
    stamps, labels = [0, 0, 0, 7, 7, 9, 9, 9], [0, 0, 7, 7, 9, 9]
    whole = pair(stamps, labels, 0)
    assert (whole.by_order, whole.unclear) == (2, 6)
    pairs = pair(stamps, labels, 0, inside=[4, 5, 6])
    assert (pairs.by_order, pairs.unclear) == (1, 2)
    assert pairs.example == "3 images and 2 labels are stamped 0.000 s"
    assert pairs.label == whole.label
    assert pair(stamps, labels, 0, inside=[3, 4]).example == ""


def test_what_cannot_be_paired_is_counted() -> None:
    pairs = pair([7, 7, 9, 20, 20, 40, 40], [7, 7, 9, 20, 40, 40, 40], 0)
    assert (pairs.by_order, pairs.unclear, pairs.first_ns) == (2, 4, 7)
    assert pairs.example == "2 images and 1 label are stamped 0.000 s"


def test_a_folder_gives_labels_by_the_stamps_in_their_names(tmp_path: Path) -> None:
    for stamp in (100, 200):
        cv2.imwrite(str(tmp_path / f"{stamp}.png"), np.full((2, 2), stamp, np.uint8))
    labels = FolderLabels(tmp_path)
    assert labels.stamps() == [100, 200]
    assert [int(labels.read(number)[0, 0]) for number in (1, 0)] == [200, 100]  # in any order


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"the folder of labels .*none does not exist; name a folder of PNG files, or a topic",
    ):
        FolderLabels(tmp_path / "none")
    cv2.imwrite(str(tmp_path / "front.png"), IDS)
    with pytest.raises(
        DataError,
        match="no labels in .*: they must be PNG files of class ids named for their stamp in ns, ",
    ):
        FolderLabels(tmp_path)
    cv2.imwrite(str(tmp_path / "5.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(
        DataError,
        match=r"labels must be class ids in one 8-bit channel, got colours \(.*5\.png\)",
    ):
        FolderLabels(tmp_path).read(0)
    palette = Image.fromarray(np.eye(2, dtype=np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "5.png")
    with pytest.raises(DataError, match="got the colours of a palette"):
        FolderLabels(tmp_path).read(0)


def test_labels_may_end_in_capitals(tmp_path: Path) -> None:
    for name in ("100.png", "200.PNG"):
        assert cv2.imwrite(str(tmp_path / name), IDS)
    assert FolderLabels(tmp_path).stamps() == [100, 200]
