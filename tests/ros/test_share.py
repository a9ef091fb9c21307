"""Files are found in a sourced workspace, in an environment and in the checkout."""

import sys
from pathlib import Path

import pytest

from camseg_core.errors import ConfigError
from camseg_ros.middleware import share_file


def test_a_sourced_workspace_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "share/ament_index/resource_index/packages/camseg_ros"
    wanted = tmp_path / "share/camseg_ros/config/fastdds.xml"
    for path in (marker, wanted):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert share_file("config/fastdds.xml") == wanted


def test_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "share/camseg_ros/config/fastdds.xml"
    wanted.parent.mkdir(parents=True)
    wanted.touch()
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert share_file("config/fastdds.xml") == wanted


def test_a_missing_file_is_reported_with_the_places_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        share_file("config/none.xml")
    assert "config/none.xml of camseg_ros is not installed" in str(caught.value)
    assert str(tmp_path / "share/camseg_ros/config/none.xml") in str(caught.value)
