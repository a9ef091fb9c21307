"""`camseg bag make`: every kind of source, read back by this project and by another library."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from recorded import SECOND, Commands, camseg

from camseg_core.data.sets import open_set
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_ros.bag.read import ImageBag

__all__ = ["camseg"]


def messages(bag: Path, topic: str) -> list[Any]:
    """Return the messages of a topic, read with another library; each is recorded at its stamp."""
    with (bag / f"{bag.name}.mcap").open("rb") as file:
        read = list(
            make_reader(
                file, validate_crcs=True, decoder_factories=[DecoderFactory()]
            ).iter_decoded_messages([topic])
        )
    for _, _, recorded, message in read:
        assert recorded.log_time == message.header.stamp.sec * SECOND + message.header.stamp.nanosec
    return [message for _, _, _, message in read]


def test_the_synthetic_drive(tmp_path: Path, camseg: Commands) -> None:
    bag = tmp_path / "bag"
    code, out, _ = camseg(
        "make", bag, "--synthetic", "--frames", 3, "--seed", 4, "--frame-id", "front"
    )
    assert code == 0
    assert (
        out == f"{bag}: 3 images on /camera/image_raw, labels on /camera/labels, "
        "camera_info on /camera/camera_info\n"
    )
    drive = SyntheticDrive(frames=3, seed=4)
    topics = ("/camera/image_raw", "/camera/labels", "/camera/camera_info")
    for index, (image, label, info) in enumerate(
        zip(*(messages(bag, topic) for topic in topics), strict=True)
    ):
        assert bytes(image.data) == drive[index].image.tobytes()
        assert (image.encoding, image.header.frame_id) == ("rgb8", "front")
        assert bytes(label.data) == drive[index].label.tobytes()
        assert (label.encoding, label.step) == ("mono8", 480)
        assert len({str(each.header) for each in (image, label, info)}) == 1
        assert (info.height, info.width, info.distortion_model) == (360, 480, "plumb_bob")
        assert list(info.k) == [408, 0, 239.5, 0, 408, 179.5, 0, 0, 1]
        assert list(info.p) == [408, 0, 239.5, 0, 0, 408, 179.5, 0, 0, 0, 1, 0]
        assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_a_data_set_in_compressed_images(tmp_path: Path, camseg: Commands, form: str) -> None:
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "data" / "val" / kind).mkdir(parents=True)
    for name in ("0001TP_a", "0001TP_b", "0001TP_c"):
        flat = np.broadcast_to(random.integers(0, 255, 3, np.uint8), (20, 30, 3))
        cv2.imwrite(str(tmp_path / "data" / "val" / "images" / f"{name}.png"), flat)
        cv2.imwrite(
            str(tmp_path / "data" / "val" / "labels" / f"{name}.png"),
            random.integers(0, 12, (20, 30), np.uint8),
        )
    bag = tmp_path / "bag"
    assert (
        camseg(
            "make",
            bag,
            "--data",
            tmp_path / "data",
            "--frames",
            2,
            "--fps",
            4,
            "--format",
            form,
            "--topic",
            "/f/image",
        )[0]
        == 0
    )
    samples = open_set("camvid", tmp_path / "data", "val").samples
    images, labels = messages(bag, "/f/image/compressed"), messages(bag, "/camera/labels")
    assert [image.format for image in images] == [form] * 2
    for sample, image, label in zip(samples, images, labels, strict=False):
        pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(pixels.astype(int) - sample.image).mean() < (4 if form == "jpeg" else 1e-9)
        assert bytes(label.data) == sample.label.tobytes()
    with ImageBag(bag, "/f/image/compressed") as read:
        assert [each.stamp_ns for each in read] == [SECOND, SECOND + SECOND // 4]
    (info, _) = messages(bag, "/f/camera_info")
    assert not any(info.k)  # not calibrated, as CameraInfo has it


def test_a_data_set_of_another_kind(tmp_path: Path, camseg: Commands) -> None:
    for split in ("val", "train"):
        images, labels = (
            tmp_path / "data" / part / split / "aachen" for part in ("leftImg8bit", "gtFine")
        )
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        cv2.imwrite(
            str(images / "aachen_000000_000019_leftImg8bit.png"), np.full((8, 10, 3), 7, np.uint8)
        )
        cv2.imwrite(
            str(labels / "aachen_000000_000019_gtFine_labelIds.png"),
            np.full((8, 10), 26 if split == "val" else 7, np.uint8),
        )
    assert camseg("make", tmp_path / "bag", "--data", tmp_path / "data")[0] == 0
    assert [
        set(bytes(message.data)) for message in messages(tmp_path / "bag", "/camera/labels")
    ] == [{13}]
    assert (
        camseg(
            "make",
            tmp_path / "both",
            "--data",
            tmp_path / "data",
            "--dataset",
            "cityscapes",
            "--split",
            "train+val",
        )[0]
        == 0
    )
    assert [
        set(bytes(message.data)) for message in messages(tmp_path / "both", "/camera/labels")
    ] == [{0}, {13}]
    code, _, said = camseg(
        "make", tmp_path / "none", "--data", tmp_path / "data", "--dataset", "acdc"
    )
    assert code == 2
    assert "no split 'val' in" in said


def test_a_folder_of_images_without_labels(tmp_path: Path, camseg: Commands) -> None:
    (tmp_path / "images").mkdir()
    for index in (2, 10):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), np.full((8, 10, 3), index, np.uint8))
    code, out, _ = camseg("make", tmp_path / "bag", "--source", tmp_path / "images", "--focal", 50)
    assert code == 0
    assert "labels" not in out
    assert [message.data[0] for message in messages(tmp_path / "bag", "/camera/image_raw")] == [
        2,
        10,
    ]
    assert messages(tmp_path / "bag", "/camera/camera_info")[0].k[0] == 50
    assert camseg("make", tmp_path / "bag", "--source", tmp_path / "images")[0] == 2  # it exists


def test_labels_can_be_left_out(tmp_path: Path, camseg: Commands) -> None:
    assert camseg("make", tmp_path / "bag", "--synthetic", "--frames", 1, "--no-labels")[0] == 0
    with ImageBag(tmp_path / "bag") as bag:  # the only image topic
        assert bag.count == 1


@pytest.mark.parametrize(("claimed", "wanted"), [(0, 6), (1, 6), (100, 6), (1, 3), (0, 3)])
def test_a_video_with_a_wrong_frame_count_is_written_to_its_end(
    tmp_path: Path, camseg: Commands, claimed: int, wanted: int
) -> None:
    video = tmp_path / "drive.avi"
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, code, 25.0, (64, 48))
    for i in range(6):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    content = bytearray(video.read_bytes())
    for chunk, field in ((b"avih", 16), (b"strh", 32)):  # dwTotalFrames, dwLength
        struct.pack_into("<I", content, content.index(chunk) + 8 + field, claimed)
    video.write_bytes(content)
    limit = ("--frames", wanted) if wanted < 6 else ()
    code, out, _ = camseg("make", tmp_path / "bag", "--source", video, *limit)
    missing = claimed > wanted == 6
    assert (code, out.split(": ")[1].split(" on")[0]) == (int(missing), f"{wanted} images")
    assert len(messages(tmp_path / "bag", "/camera/image_raw")) == wanted


@pytest.mark.parametrize("fps", ["0", "1e-320", "1e7", "nan"])
def test_a_rate_whose_stamps_cannot_be_stored_is_refused(
    tmp_path: Path, camseg: Commands, fps: str
) -> None:
    code, _, err = camseg("make", tmp_path / "bag", "--synthetic", "--fps", fps)
    assert code == 2
    assert f"argument --fps: must be a number from 0.001 to 1e+06, got '{fps}'" in err
    assert not (tmp_path / "bag").exists()
