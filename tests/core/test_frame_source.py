"""Frame sources: order, stamps, pixels, and the errors without frames."""

import logging
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from camseg_core.data.frame_source import START_NS, natural_key, open_frames, synthetic_frames
from camseg_core.data.image_files import read_rgb
from camseg_core.errors import ConfigError, DataError


def write_image(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (24, 16)) -> None:
    """A picture of one RGB colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), color[::-1], np.uint8))


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["f10.png", "f2.png", "F1.png", "a.png", "f02b.png", "10.png", "9.png"]
    assert sorted(names, key=natural_key) == [
        "9.png",
        "10.png",
        "a.png",
        "F1.png",
        "f2.png",
        "f02b.png",
        "f10.png",
    ]


def test_a_folder_gives_rgb_in_natural_order_with_even_stamps(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        write_image(tmp_path / f"img_{i}.png", (i, 100, 200))
    (tmp_path / "notes.txt").write_text("not an image")
    write_image(tmp_path / ".hidden.png", (0, 0, 0))
    source = open_frames(tmp_path, fps=4)
    frames = list(source)
    assert source.count == 3
    assert [frame.name for frame in frames] == ["img_1.png", "img_9.png", "img_10.png"]
    assert [frame.stamp_ns - START_NS for frame in frames] == [0, 250_000_000, 500_000_000]
    assert [tuple(frame.image[3, 5]) for frame in frames] == [
        (1, 100, 200),
        (9, 100, 200),
        (10, 100, 200),
    ]
    assert [frame.name for frame in source.first(2)] == ["img_1.png", "img_9.png"]
    assert source.first(2).count == 2
    assert source.first(9).count == 3


def test_one_image_is_a_source(tmp_path: Path) -> None:
    write_image(tmp_path / "only.jpg", (10, 20, 30))
    assert [frame.name for frame in open_frames(tmp_path / "only.jpg")] == ["only.jpg"]


def test_a_video_gives_its_frames_at_its_own_rate(tmp_path: Path) -> None:
    path = tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48)
    )
    assert writer.isOpened()
    for i in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 40 * i), np.uint8))
    writer.release()
    source = open_frames(path)
    frames = list(source)
    assert (source.count, source.fps) == (5, 25.0)
    assert [frame.stamp_ns - START_NS for frame in frames] == [
        0,
        40_000_000,
        80_000_000,
        120_000_000,
        160_000_000,
    ]
    red = [int(frame.image[..., 0].mean()) for frame in frames]
    assert np.allclose(red, [0, 40, 80, 120, 160], atol=12)  # MPEG-4 is lossy
    assert max(int(frame.image[..., 2].mean()) for frame in frames) < 20
    assert [frame.stamp_ns for frame in source] == [frame.stamp_ns for frame in frames], (
        "a source can be read twice"
    )


def video_that_claims(path: Path, frames: int, claimed: int) -> Path:
    """Write an AVI file of `frames` frames whose header claims another number."""
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    for chunk, field in ((b"avih", 16), (b"strh", 32)):  # dwTotalFrames, dwLength
        struct.pack_into("<I", content, content.index(chunk) + 8 + field, claimed)
    path.write_bytes(content)
    return path


def test_frames_missing_at_the_end_of_a_video_are_left_out_or_an_error(tmp_path: Path) -> None:
    path = video_that_claims(tmp_path / "cut.avi", 6, 100)
    left_out: list[DataError] = []
    for _ in range(2):
        assert len(list(open_frames(path, leave_out=left_out.append))) == 6
    expected = "cut.avi: its header claims 100 frames, 6 could be read; the end is cut off"
    assert [expected in str(each) for each in left_out] == [True, True]
    frames = iter(open_frames(path))
    assert [next(frames).name for _ in range(6)][-1] == "cut:000005"
    with pytest.raises(DataError, match=expected):
        next(frames)
    assert len(list(open_frames(path).first(4))) == 4


@pytest.mark.parametrize("claimed", [1, 0])
def test_a_video_is_read_to_its_end_despite_what_its_header_claims(
    tmp_path: Path, claimed: int, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_frames(video_that_claims(tmp_path / "drive.avi", 6, claimed))
    assert source.count == claimed
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert len(list(source)) == 6
    expected = f"drive.avi: its header claims {claimed} frames, 6 could be read"
    said = [each.getMessage() for each in caplog.records]
    assert [expected in each for each in said] == ([True] if claimed else [])  # once
    assert len(list(source.first(4))) == 4
    assert source.first(4).count == min(claimed or 4, 4)


def test_the_synthetic_drive_is_a_source() -> None:
    source = synthetic_frames(2, fps=5)
    frames = list(source)
    assert [frame.stamp_ns - START_NS for frame in frames] == [0, 200_000_000]
    assert all(
        frame.image.shape == (360, 480, 3) and frame.image.dtype == np.uint8 for frame in frames
    )
    assert not np.array_equal(frames[0].image, frames[1].image)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"nowhere does not exist; name an image, a video or a folder of images",
    ):
        open_frames(tmp_path / "nowhere")


def test_a_folder_without_images_says_where_some_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images \(jpg, .*\) in .*; name a folder with images"):
        open_frames(tmp_path)
    write_image(tmp_path / "sub" / "1.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"no images .*its folder .*sub has some: name that one"):
        open_frames(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", (0, 0, 0))
    (tmp_path / "2.png").write_bytes(b"not a picture")
    frames = iter(open_frames(tmp_path))
    next(frames)
    with pytest.raises(
        DataError, match=r"cannot read .*2\.png: it is damaged or not an image; copy it again"
    ):
        next(frames)


def test_a_file_that_is_not_a_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(
        DataError,
        match=r"text\.mp4 cannot be read as a video: it is cut off, damaged or of a kind that",
    ):
        open_frames(path)


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_rate_must_be_positive(tmp_path: Path, fps: float) -> None:
    write_image(tmp_path / "1.png", (0, 0, 0))
    with pytest.raises(ConfigError, match="the rate must be above 0 frames per second, got"):
        open_frames(tmp_path, fps)


def test_a_stray_picture_beside_folders_of_pictures_is_not_taken_for_the_source(
    tmp_path: Path,
) -> None:
    write_image(tmp_path / "stray.png", (0, 0, 0))
    for number in range(2):
        write_image(tmp_path / "left" / f"{number}.png", (0, 0, 0))
    write_image(tmp_path / "right" / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"has 1 image\(s\), its folder .*left has 2: name the"):
        open_frames(tmp_path)
    write_image(tmp_path / "second.png", (0, 0, 0))
    assert open_frames(tmp_path).count == 2, "as many as in any of its folders"
    assert open_frames(tmp_path / "right").count == 1


def test_images_of_kinds_that_are_not_read_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.png", (1, 2, 3))
    for name in ("b.HEIC", "c.gif", "notes.txt"):
        (tmp_path / name).write_bytes(b"...")
    assert open_frames(tmp_path).count == 1
    assert caplog.messages == [
        f"images of kinds that are not read, left out: 2, first {tmp_path / 'b.HEIC'}"
    ]


@pytest.mark.parametrize("name", ["drive.mcap", "drive"])
def test_a_bag_is_answered_with_the_commands_that_read_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "drive").mkdir()
    for path in (tmp_path / "drive.mcap", tmp_path / "drive" / "drive_0.db3"):
        path.touch()
    with pytest.raises(DataError, match=rf"{name} is a bag: use camseg bag evaluate, or .* images"):
        open_frames(tmp_path / name)


def test_an_address_is_not_taken_for_a_missing_file() -> None:
    with pytest.raises(DataError, match="is an address, which is not read: download it first"):
        open_frames(Path("https://example.org/a.jpg"))


def test_images_in_folders_below_are_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("1.png", "2.png", "day/1.png", "night/1.png"):
        write_image(tmp_path / name, (0, 0, 0))
    for _ in range(2):
        assert open_frames(tmp_path).count == 2
    (said,) = (each.getMessage() for each in caplog.records)
    assert said == f"images in folders of {tmp_path} are not read, left out: 2, in day, night"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int16, np.int8])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_unclear_range_are_refused(
    tmp_path: Path, dtype: type[np.generic], channels: int
) -> None:
    path = tmp_path / "deep.tiff"
    assert cv2.imwrite(str(path), np.ones((8, 8, channels), dtype))
    expected = f"deep.tiff must have 8 or 16 bits a channel, without sign, got {dtype.__name__}"
    with pytest.raises(DataError, match=expected):
        read_rgb(path)
