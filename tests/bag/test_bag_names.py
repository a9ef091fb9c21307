"""Names of bags and of files of their images: each says of which bag, image and stamp it is."""

from pathlib import Path

import pytest

from camseg_ros.bag.names import NamedFrame, bag_name, frame_name, frame_of, name_in_files, stamp_of

SECOND = 10**9


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        ("12000000005", 12 * SECOND + 5),
        ("12.5", 12 * SECOND + SECOND // 2),
        ("left_12_5", 12 * SECOND + 5),
        ("v1.2_left_12_5", 12 * SECOND + 5),
        ("0_5", 5),
        ("000012.5", 12 * SECOND + SECOND // 2),
        ("00_drive_000001_50000000", 50_000_000),
        (frame_name(0, Path("drive"), 1, 50_000_000), 50_000_000),
        (frame_name(0, Path("drive"), 123456, 5), 5),
        (frame_name(0, Path("drive"), 1, 17 * 10**17), 17 * 10**17),
        ("front", None),
        (f"{2**63 - 1}", 2**63 - 1),
        (f"{2**63}", None),
        ("cam_20240501103015123456", None),  # a date with microseconds
        ("cam_20240501103015_123456", None),
        ("20240501103015.123456", None),
    ],
)
def test_stamps_in_the_names_of_files(name: str, stamp: int | None) -> None:
    assert stamp_of(name) == stamp


def test_the_name_of_an_image_says_which_it_is() -> None:
    for bag, number in (("drive", 5), ("front_2", 1_234_567), ("rosbag2_2024.05.01-10.30.15", 0)):
        name = frame_name(99, Path(bag), number, 17 * 10**17)
        assert frame_of(name) == NamedFrame(name_in_files(Path(bag)), number)
        assert frame_of(frame_name(123, Path(bag), number, 0)) is not None


@pytest.mark.parametrize(
    "name",
    [
        "1700000000123456789",
        "left_000005_1700000000123456789",
        "01_left_1700000000_123456789",  # seconds and nanoseconds
        "2024_left_000005_1700000000123456789",
        "00_drive_000001_50000000",
    ],
)
def test_other_names_stand_for_no_image(name: str) -> None:
    assert frame_of(name) is None


def test_a_bag_has_the_name_of_its_folder_or_of_its_file_without_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rosbag2_2024.05.01"
    folder.mkdir()
    (folder / "metadata.yaml").touch()
    monkeypatch.chdir(folder)
    for path in (folder, folder / "metadata.yaml", Path(), Path("../rosbag2_2024.05.01/")):
        assert bag_name(path) == "rosbag2_2024.05.01"
    assert bag_name(tmp_path / "drive_0.mcap") == "drive_0"
    assert name_in_files(tmp_path / "Straße.1") == "Stra_e_1"
