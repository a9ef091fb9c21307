"""Odd files run through the commands: each is named in one line, and costs no other its result."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import odd_files
import pytest
from odd_files import BAGS, LABELS, PICTURES, VIDEOS, OddFile, write
from recorded import painter

from camseg_core.cli import main as cli
from camseg_core.runtime import Segmenter
from camseg_ros.demo import __main__ as demo

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with a model that needs no time; return code, stdout, and lines of stderr.

    Lines of progress are left out, and what OpenCV's libraries print themselves.
    """
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: painter())

    def in_process(*arguments: object) -> tuple[int, str, list[str]]:
        code: Any = 0
        try:
            if arguments[0] == "demo":
                monkeypatch.setattr(sys, "argv", [*map(str, arguments)])
                code = demo.main()
            else:
                cli.main([*map(str, arguments)])
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if re.match("camseg: |demo: |usage: ", line)]
        assert "Traceback" not in err
        return int(code), out, lines

    return in_process


def refused(files: tuple[OddFile, ...]) -> list[OddFile]:
    """Return the files of which something is said."""
    return [each for each in files if each.said]


def expect(files: tuple[OddFile, ...], lines: list[str]) -> None:
    """Check that each refused file has its line, and no other file has one."""
    for each in refused(files):
        assert [line for line in lines if re.search(each.said, line)], each
    assert len(lines) == len(refused(files)), "\n".join(lines)


@pytest.mark.parametrize("command", ["segment", "bag make"])
def test_pictures_that_cannot_be_read_are_left_out_and_named(
    command: str, tmp_path: Path, run: Run
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    write(PICTURES, folder)
    places = {"segment": (folder, "--out", out), "bag make": (out, "--source", folder)}
    code, said, lines = run(*command.split(), *places[command])
    left_out = len(refused(PICTURES))
    assert (code, lines.pop()) == (
        1,
        f"camseg: left out: {left_out}, see above; --strict stops at the first",
    )
    assert all(line.startswith("camseg: left out: ") for line in lines)
    expect(PICTURES, lines)
    read = len(PICTURES) - left_out
    assert f"{read} frames in " in said or f"{read} images on " in said
    code, _, lines = run(*command.split(), *places[command], "--strict")
    assert (code, len(lines)) == (2, 1)


def test_a_data_check_names_every_odd_picture(tmp_path: Path, run: Run) -> None:
    write(PICTURES, tmp_path / "images")
    size = {"dot": (1, 1), "line": (1, 64), "turned": (64, 48)}
    for each in PICTURES:
        height, width = size.get(Path(each.name).stem, odd_files.ids.shape)
        label = odd_files.encoded(".png", odd_files.ids[:height, :width].copy())
        if each.name == "turned.jpg":
            label = odd_files.encoded(".png", odd_files.ids.T.copy())
        path = tmp_path / "labels" / f"{Path(each.name).stem}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(label)
    code, lines = found_by_check(tmp_path, run)
    assert code == 1
    for each in (each for each in refused(PICTURES) if not each.name.endswith(".tiff")):
        assert [line for line in lines if re.search(each.said, line)], each


def test_a_data_check_names_every_odd_label(tmp_path: Path, run: Run) -> None:
    write(LABELS, tmp_path / "labels")
    for each in LABELS:
        path = tmp_path / "images" / each.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(odd_files.encoded(".png"))
    code, lines = found_by_check(tmp_path, run)
    assert code == 1
    for each in refused(LABELS):
        assert [line for line in lines if re.search(each.said, line)], each
    for each in (each for each in LABELS if not each.said):
        assert not [line for line in lines if f"/{each.name}" in line], each


def found_by_check(root: Path, run: Run) -> tuple[int, list[str]]:
    """Return the exit code and the findings of a data check."""
    sheet = root / "sheet.png"
    code, out, lines = run("data", "check", root, "--dataset", "folder", "--sheet", sheet, "--json")
    assert not lines
    (split,) = json.loads(out)["splits"]
    texts = [each["text"] for each in split["findings"]]
    return code, [text.encode("unicode_escape").decode() for text in texts]


@pytest.mark.parametrize("odd", LABELS, ids=lambda odd: odd.name)
def test_an_evaluation_ends_at_an_odd_label_with_one_line(
    odd: OddFile, tmp_path: Path, run: Run
) -> None:
    odd.make(tmp_path / odd.name)
    (tmp_path / "image.png").write_bytes(odd_files.encoded(".png"))
    (tmp_path / "list.txt").write_text(f"image.png {odd.name}")
    code, _, lines = run("evaluate", "--data", tmp_path / "list.txt", "--out", tmp_path / "out")
    assert code == (2 if odd.said else 0)
    expect((odd,), lines)


@pytest.mark.parametrize("odd", refused(PICTURES), ids=lambda odd: ascii(odd.name))
def test_an_evaluation_ends_at_an_odd_picture_with_one_line(
    odd: OddFile, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    odd.make(tmp_path / "images" / odd.name)
    label = tmp_path / "labels" / f"{Path(odd.name).stem}.png"
    label.write_bytes(odd_files.encoded(".png", odd_files.ids))
    arguments = ("--dataset", "folder", "--data", tmp_path, "--out", tmp_path / "out")
    code, _, lines = run("evaluate", *arguments)
    assert (code, len(lines)) == (2, 1), lines
    known = re.search(odd.said, lines[0]) or "no images (" in lines[0]  # .tiff is no set's ending
    assert known, lines


@pytest.mark.parametrize("what", ["label", "picture", "labelled", "size"])
@pytest.mark.parametrize(
    "command", ["evaluate", "robustness", "calibrate", "compare camseg-lite camseg-lite"]
)
def test_a_frame_that_cannot_be_used_is_refused_before_a_model_is_loaded(
    command: str, what: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: pytest.fail("too early"))
    ids = {"size": odd_files.ids[1:], "labelled": odd_files.ids * 0 + 255}.get(what, odd_files.ids)
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(odd_files.encoded(".jpg"))
        (tmp_path / f"{name}.png").write_bytes(odd_files.encoded(".png", ids))
    if what == "label":
        (tmp_path / "b.png").write_bytes(b"")
    if what == "picture":
        (tmp_path / "b.jpg").write_bytes(odd_files.flipped(odd_files.encoded(".jpg"), 0.5))
    (tmp_path / "list.txt").write_text("a.jpg a.png\nb.jpg b.png\n")
    out = ("--dry-run",) if command == "calibrate" else ("--out", tmp_path / "out")
    code, _, lines = run(*command.split(), "--data", tmp_path / "list.txt", *out)
    assert (code, len(lines)) == (2, 1)
    names = {
        "label": r"b\.png is empty",
        "picture": r"b\.jpg is damaged",
        "size": r"a\.png is 64x47",
    }
    assert re.search(names.get(what, "none of the 2 frames has a pixel labelled"), lines[0])


@pytest.mark.parametrize("odd", VIDEOS, ids=lambda odd: odd.name)
@pytest.mark.parametrize("command", ["segment", "bag make", "demo"])
def test_what_is_no_video_is_refused(command: str, odd: OddFile, tmp_path: Path, run: Run) -> None:
    path, out = tmp_path / odd.name, tmp_path / "out"
    odd.make(path)
    arguments = {
        "segment": (path, "--out", out),
        "bag make": (out, "--source", path),
        "demo": ("--source", path, "--out", out),
    }[command]
    code, _, lines = run(*command.split(), *arguments)
    assert code == 2
    expect((odd,), lines)


def test_odd_bags_cost_the_others_nothing(tmp_path: Path, run: Run) -> None:
    paths = [tmp_path / name for name in write(BAGS, tmp_path)]
    code, out, lines = run("bag", "evaluate", *paths, "--out", tmp_path / "out")
    assert code == 1
    assert out.startswith("1 frames, 0 with labels\n")
    about_all = ("left out, the first:", "what was evaluated is kept in")
    expect(BAGS, [line for line in lines if not any(each in line for each in about_all)])


@pytest.mark.parametrize("odd", BAGS, ids=lambda odd: odd.name)
def test_an_odd_bag_alone_is_one_line(odd: OddFile, tmp_path: Path, run: Run) -> None:
    odd.make(tmp_path / odd.name)
    code, _, lines = run("bag", "evaluate", tmp_path / odd.name, "--out", tmp_path / "out")
    assert code == (2 if odd.said else 0)
    expect((odd,), lines)


NEED_THE_NODE = ("good", "alien", "brief", "none", "liar", "flat", "torn")
"""Bags whose images are read only once the node runs."""


@pytest.mark.parametrize(
    "odd", [each for each in BAGS if each.name not in NEED_THE_NODE], ids=lambda odd: odd.name
)
def test_the_demo_refuses_an_odd_bag_before_the_node_starts(
    odd: OddFile, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / odd.name
    odd.make(path)
    code, _, lines = run("demo", "--source", path, "--out", tmp_path / "out")
    assert (code, len(lines)) == (2, 1)
    known = re.search(odd.said, lines[0]) or "cannot be read as a video" in lines[0]
    assert known or "no images (" in lines[0], lines
