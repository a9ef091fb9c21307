import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from camseg_core.errors import ConfigError, DataError
from camseg_core.long_runs import atomic_write, new_folder, writable_file


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_replaces_no_input_but_an_earlier_result(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    for name in ("one.png", "found.json"):
        (drive / name).write_text(name)
    for path, read in (
        (drive / "one.png", drive / "one.png"),
        (drive / "one.png", drive),
        (drive / ".." / "drive" / "one.png", drive),
        (drive / "found.json", drive / "found.json"),
    ):
        with pytest.raises(ConfigError, match=r"--json .* must not replace what the command reads"):
            writable_file(path, "--json", [None, read])
    for name in ("found.json", "new.json"):
        assert writable_file(drive / name, "--json", [drive]) == drive / name
    assert sorted(each.name for each in drive.iterdir()) == ["found.json", "one.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "state.bin"):
        pass
    assert not list(tmp_path.iterdir())


def fill(
    folder: Path, name: str, meanwhile: Callable[[Path], object] = lambda partial: None
) -> None:
    """Make a new folder with one file."""
    with new_folder(folder, "--out") as partial:
        (partial / name).touch()
        meanwhile(partial)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def full(partial: Path) -> None:
    raise OSError("disk full")


def test_a_new_folder_appears_when_it_is_whole_beside_what_is_there(tmp_path: Path) -> None:
    out, others = tmp_path / "out", tmp_path / "out.partial"
    others.mkdir()
    (others / "notes.txt").write_text("mine")
    fill(out, "a", lambda partial: pytest.fail("too early") if out.exists() else None)
    assert names(out) == ["a"]
    assert out.stat().st_mode == others.stat().st_mode
    with pytest.raises(OSError, match="full"):
        fill(tmp_path / "half", "a", full)
    assert names(tmp_path) == ["out", "out.partial"]
    assert (others / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    fill(out, "a")
    assert names(out) == ["a"]
    assert names(out.parent) == ["out"]


def test_a_folder_that_was_filled_meanwhile_stays_and_so_does_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        DataError,
        match="out must be new or empty, but something was put there meanwhile .* move it from",
    ) as raised:
        fill(out, "a", lambda partial: fill(out, "b"))  # as of two processes
    assert names(out) == ["b"]
    (kept,) = tmp_path.glob("out.partial-*/out")
    assert names(kept) == ["a"]
    assert str(kept) in str(raised.value)


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with pytest.raises(OSError, match="No space left on device") as raised, atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, atomic_write(path):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")
