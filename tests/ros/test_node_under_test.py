"""Benchmarks start the node with the shipped settings, regardless of the user's environment."""

from pathlib import Path

import pytest
from frame_driver import camera_names, topic
from node_under_test import Launch

from camseg_ros.middleware import ALLOCATOR, OLD_PROFILE, PROFILE

PROFILES = {PROFILE, OLD_PROFILE}
"""The variable for Fast DDS's profile, and the one before Kilted."""


def test_the_environment_has_what_ships_unless_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    shipped = Launch().environment(tmp_path)
    (profile,) = PROFILES & shipped.keys()
    assert shipped[profile].endswith("fastdds.xml")
    assert shipped.items() >= ALLOCATOR.items()
    assert not PROFILES & Launch(profile=False).environment(tmp_path).keys()
    assert not ALLOCATOR.keys() & Launch(allocator=False).environment(tmp_path).keys()
    assert "FASTDDS_BUILTIN_TRANSPORTS" not in shipped


def test_cameras_have_names_where_there_are_several() -> None:
    assert [topic(camera, "image") for camera in camera_names(1)] == ["image"]
    assert [topic(camera, "image") for camera in camera_names(2)] == ["left/image", "right/image"]
    assert not any("cameras" in part for part in Launch(camera_names(1)).command())
    assert "cameras:=[left, right]" in Launch(camera_names(2)).command()
