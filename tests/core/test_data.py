"""Label tables, CamVid, image files, metrics."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from camvid_folder import DAMAGES, Damage, write_camvid

from camseg_core.data.image_files import read_rgb
from camseg_core.data.sets import open_set
from camseg_core.errors import DataError, ModelError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import (
    CAMVID_11_TRAIN_IDS,
    CITYSCAPES,
    cityscapes_labels,
    color_table,
    read_labels,
    write_labels,
)
from camseg_core.training.frames import Frames

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)


def test_camvid_yields_rgb_and_train_ids_in_name_order(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "train/images/0001TP_000000.jpg"), blue)
    cv2.imwrite(
        str(tmp_path / "train/labels/0001TP_000000.png"),
        np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8) % 12,
    )
    samples = list(open_set("camvid", tmp_path, "train").samples)
    assert [sample.name for sample in samples] == [
        "0001TP_000000",
        "0001TP_000001",
        "0001TP_000002",
    ]
    assert samples[0].image[0, 0].tolist()[2] > 200
    assert samples[0].label[0, :12].tolist() == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_each_kind_of_bad_camvid_names_the_file_in_one_line(tmp_path: Path, damage: Damage) -> None:
    damage.spoil(write_camvid(tmp_path / "data", "train", "val") / "train")
    with pytest.raises(DataError, match=damage.message) as caught:
        list(open_set("camvid", tmp_path / "data", "train").samples)
    assert "\n" not in str(caught.value)


def test_a_label_without_an_image_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_camvid(tmp_path)
    (tmp_path / "train/images/0001TP_000001.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        assert [sample.name for sample in open_set("camvid", tmp_path, "train").samples] == [
            "0001TP_000000",
            "0001TP_000002",
        ]
    (message,) = caplog.messages
    assert (
        message
        == f"label without an image, left out: {tmp_path / 'train/labels/0001TP_000001.png'}"
    )
    (tmp_path / "train/images/0001TP_000000.jpg").unlink()
    open_set("camvid", tmp_path, "train")
    assert (
        caplog.messages[-1]
        == f"label without an image, left out: {tmp_path / 'train/labels/0001TP_000000.png'} "
        "(and 1 more)"
    )


def test_hidden_files_are_not_frames(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    for part in ("images", "labels"):
        (tmp_path / "train" / part / "._0001TP_000001.png").write_bytes(b"left by a file manager")
    assert len(list(open_set("camvid", tmp_path, "train").samples)) == 3


def test_data_behind_an_image_and_in_its_header_does_not_matter(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    path = tmp_path / "train/images/0001TP_000000.jpg"
    plain, content = read_rgb(path), path.read_bytes()
    header = (
        b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    )  # with a thumbnail, here the picture itself
    thumbnail = content[:2] + header + content[2:]
    for whole in (thumbnail, content + bytes(100), thumbnail + b"trailer"):
        path.write_bytes(whole)
        assert np.array_equal(read_rgb(path), plain)
    for size in range(len(header), len(thumbnail), 97):
        path.write_bytes(thumbnail[:size])
        with pytest.raises(DataError, match=r"0001TP_000000\.jpg"):
            read_rgb(path)


def test_a_progressive_image_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "progressive.jpg"
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert content.count(b"\xff\xda") > 1  # scans
    path.write_bytes(content)
    assert read_rgb(path).shape == (48, 64, 3)
    for size in range(1, len(content), 31):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"progressive\.jpg"):
            read_rgb(path)


def test_no_frames_are_refused() -> None:
    with pytest.raises(DataError, match="must have frames to train on, got none"):
        Frames.load([], LABELS)


def test_confusion_counts_as_a_naive_loop_does() -> None:
    random = np.random.default_rng(0)
    label = random.choice([0, 1, 2, 3, 255], (20, 30)).astype(np.uint8)
    prediction = random.choice([0, 1, 2, 3, 255], (20, 30)).astype(np.uint8)
    confusion = Confusion(4)
    confusion.add(label[:10], prediction[:10])
    confusion.add(label[10:], prediction[10:])
    known = label != 255
    for c in range(4):
        intersection = ((label == c) & (prediction == c)).sum()
        union = (known & ((label == c) | (prediction == c))).sum()
        assert confusion.iou()[c] == pytest.approx(intersection / union)
    assert confusion.accuracy() == pytest.approx((label == prediction)[known].mean())


def test_a_class_that_never_occurs_has_no_iou_and_is_left_out_of_the_mean() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert np.isnan(confusion.iou()[2])
    assert confusion.mean_iou() == pytest.approx((0.5 + 0.5) / 2)


def test_label_tables_survive_their_file_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_labels(path, LABELS)
    assert read_labels(path) == LABELS
    for content in (
        "{}",
        "not json",
        '{"classes": []}',
        '{"classes": [{"id": 255, "name": "x", "color": [0, 0, 0]}]}',
    ):
        path.write_text(content)
        with pytest.raises(ModelError, match=r"labels\.json"):
            read_labels(path)
    with pytest.raises(ModelError, match="missing"):
        read_labels(tmp_path / "missing.json")


def test_every_class_has_its_own_colour_and_unlabelled_is_black() -> None:
    table = color_table()
    assert len({tuple(color) for color in table[: len(CITYSCAPES)].tolist()}) == 19
    assert table[255].tolist() == [0, 0, 0]
    assert [label.id for label in CITYSCAPES] == list(range(19))
