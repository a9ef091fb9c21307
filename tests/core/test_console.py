"""Names, folders, pipes and terminals that commands must get along with, in one line each."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from data_trees import MAPPING, OWN_IDS, columns, photo

from camseg_core.cli import options
from camseg_core.cli.console import command_line, printable
from camseg_core.cli.main import command_parser, main
from camseg_core.data import frame_source
from camseg_core.data.image_files import write_image
from camseg_core.runtime.segmenter import Segmentation, Segmenter
from camseg_core.weights import checkpoint_folder

ODD_NAMES = (os.fsdecode(b"b\xff"), "née", "two\nlines", "\x1b[31mred", "a b", "#?%41")


def write_set(root: Path, names: tuple[str, ...] = ODD_NAMES) -> Path:
    """Write a labelled set with a frame of each name."""
    for name in names:
        write_image(root / f"images/{name}.png", photo(32, height=24))
        write_image(root / f"labels/{name}.png", columns(OWN_IDS * 8, height=24))
    (root / "mapping.yaml").write_text(MAPPING)
    return root


def run(*arguments: object) -> int:
    """Run a command in this process; return its exit code."""
    try:
        main([*map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def process(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`."""
    return subprocess.run(
        arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program in `folder`."""
    return process([sys.executable, "-c", program], folder)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `camseg COMMAND` in a shell in `folder`, with what follows it, such as a pipe."""
    text = f"set -o pipefail; {sys.executable} -m camseg_core.cli {command}"
    return process(["bash", "-c", text], folder)


def test_every_name_can_be_segmented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_set(tmp_path / ODD_NAMES[0]) / "images"
    out = tmp_path / "out" / ODD_NAMES[0]
    assert run("segment", images, "--out", out, "--provider", "cpu") == 0
    for kind in ("mask", "color", "overlay"):
        assert {path.stem for path in (out / kind).iterdir()} == set(ODD_NAMES)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ODD_NAMES) + 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("kind", ["mask", "color", "overlay"])
def test_frames_are_not_replaced_by_their_masks(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recordings of some cameras have their frames in `color`."""
    images = write_set(tmp_path / "set", ("a",)) / "images"
    drive = images.rename(tmp_path / kind)
    before = {path: path.read_bytes() for path in drive.iterdir()}
    for source in (drive, next(iter(before))):
        assert run("segment", source, "--out", tmp_path, "--provider", "cpu") == 2
        assert f"must not make {kind}/ the folder of the frames" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in drive.iterdir()} == before


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_model_s_folder_may_have_any_name(
    provider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if provider == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    model = tmp_path / ODD_NAMES[0]
    shutil.copytree(checkpoint_folder("camseg-lite"), model)
    images = write_set(tmp_path / "set", ("a",)) / "images"
    arguments = ("--model", model, "--provider", provider, "--precision", "fp32")
    assert run("segment", images, "--out", tmp_path / "out", *arguments) == 0, capsys.readouterr()


def test_every_name_can_be_checked_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, sheet = write_set(tmp_path / ODD_NAMES[0]), tmp_path / f"{ODD_NAMES[0]}.png"
    assert run("data", "check", root, "--sheet", sheet) == 0
    assert sheet.is_file()
    masks, out = tmp_path / "masks", tmp_path / ODD_NAMES[1]
    arguments = ("--data", root, "--out", out, "--write-masks", masks, "--provider", "cpu")
    assert run("evaluate", *arguments) == 0, capsys.readouterr().err
    assert len(list(masks.iterdir())) == len(ODD_NAMES)
    assert {"report.html", "report.json"} == {path.name for path in out.iterdir()}
    assert (
        run("robustness", *arguments[:4], "--provider", "cpu", "--only", "paper/motion_blur") == 0
    )


def test_a_video_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48)
    )
    for _ in range(2):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    video = (tmp_path / "drive.mp4").rename(tmp_path / f"{ODD_NAMES[0]}.mp4")
    assert run("segment", video, "--out", tmp_path / "out", "--provider", "cpu") == 0
    assert len(list((tmp_path / "out/mask").iterdir())) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_a_character_shows_an_escape(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    with command_line("camseg"):
        sys.stdout.write("née 道 \udcff")
    text = shown.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert text.startswith("n")
    assert text.endswith("\\udcff")


def test_what_cannot_be_printed_is_escaped() -> None:
    assert printable("a b/née") == "a b/née"
    assert printable("a\nb\x1b[0m\udcff\u2028") == r"a\nb\x1b[0m\udcff\u2028"


OUTPUTS = {
    "segment": ("images", "--out"),
    "evaluate": ("--data", ".", "--out"),
    "robustness": ("--data", ".", "--out"),
    "data check": (".", "--sheet"),
    "bench": ("--json",),
    "evaluate with masks": ("--data", ".", "--write-masks"),
}


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere", "a" * 300, "/dev/full/x", "loop"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    command: str,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_set(tmp_path, ("a",))
    (tmp_path / "file").write_text("content")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    words = command.removesuffix(" with masks").split()
    assert run(*words, *OUTPUTS[command], place) == 2
    out, err = capsys.readouterr()
    option = OUTPUTS[command][-1]
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"camseg: error: {option} ")
    assert "that can be written" in err
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("segment images --provider cpu | head -0", 141, "the reader of the output went away"),
        ("segment images --provider cpu | true", 141, "the frames so far are in out/segment"),
        ("segment images --provider cpu > /dev/full", 2, "No space left on device"),
        ("segment images --provider cpu >&-", 0, ""),
        ("segment nothing 2>&-", 2, ""),
        ("segment nothing 2>/dev/full", 2, ""),
        ("--help > /dev/full", 0, ""),
        ("data check . | head -1", 0, ""),
    ],
)
def test_a_stream_that_closes_ends_a_command_without_a_traceback(
    command: str, code: int, said: str, tmp_path: Path
) -> None:
    write_set(tmp_path, tuple(f"frame {i}" for i in range(3)))
    done = shell(command, tmp_path)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stderr
    assert done.returncode in ((code, 0) if "|" in command else (code,))


class Exhausted(Segmenter):
    """A model whose engine has no memory for pictures of 64 pixels' width."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        if rgb.shape[1] == 64:
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
        return super().segment(rgb)


def test_a_picture_too_large_for_the_memory_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_set(tmp_path, ("a", "c"))
    write_image(root / "images/b.png", photo(64, height=24))
    write_image(root / "labels/b.png", columns(OWN_IDS * 16, height=24))
    monkeypatch.setattr(options, "Segmenter", Exhausted)
    assert run("segment", root / "images", "--out", tmp_path / "out", "--provider", "cpu") == 1
    said = "not enough memory for {} of 64x24 pixels: scale it down"
    out, err = capsys.readouterr()
    assert f"left out: {said.format('b.png')}" in err
    assert out.splitlines()[-1].startswith("2 frames in ")
    assert run("evaluate", "--data", root, "--out", tmp_path / "out", "--provider", "cpu") == 2
    assert f"camseg: error: {said.format('b')}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["std::bad_alloc", "Failed to allocate memory for requested"])
def test_memory_that_does_not_suffice_is_one_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (RuntimeError(text), MemoryError()):
        with pytest.raises(SystemExit), command_line("camseg"):
            raise error
        assert capsys.readouterr().err.startswith("camseg: error: out of memory; ")
    with pytest.raises(RuntimeError, match="a bug"), command_line("camseg"):
        raise RuntimeError("a bug")


def test_a_picture_that_cannot_be_decoded_in_memory_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((8000, 16000), np.uint8))
    program = (
        "import resource; from pathlib import Path; from camseg_core.data.image_files import *\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
        "from camseg_core.cli.console import command_line\n"
        "with command_line('camseg'): read_rgb(Path('a.png'))"
    )
    done = python(program, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("camseg: error: not enough memory for a.png: ")


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16])
def test_labels_of_other_number_types_are_one_line(
    kind: type[np.integer[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path, ("a",))
    label = columns(OWN_IDS * 8, height=24).astype(kind)
    (tmp_path / "label.tiff").write_bytes(cv2.imencode(".tiff", label)[1].tobytes())
    (tmp_path / "list.txt").write_text("images/a.png label.tiff")
    code = run(
        "evaluate", "--data", tmp_path / "list.txt", "--out", tmp_path / "out", "--provider", "cpu"
    )
    err = capsys.readouterr().err
    if kind is np.uint16:
        assert code == 0, err
    else:
        assert (code, err.count("\n")) == (2, 1)
        assert f"label.tiff holds {np.dtype(kind)} numbers: class ids must have" in err


def test_what_is_not_a_file_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    assert run("segment", tmp_path, "--out", tmp_path / "out", "--provider", "cpu") == 1
    err = capsys.readouterr().err
    assert f"{tmp_path}/pipe.png must be a regular file" in err
    assert f"cannot read {tmp_path}/gone.png: No such file" in err
    assert "camseg: left out: 2, see above" in err


class Interrupted(Segmenter):
    """A model during whose first frame Ctrl-C is pressed."""

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("segment images --out out", "the frames so far are in out"),
        ("evaluate --data . --out out", "no report was written"),
        ("bag make new --source images", "the unfinished bag was removed"),
    ],
)
def test_ctrl_c_says_what_is_kept(
    command: str,
    kept: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_set(tmp_path, ("a",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "Segmenter", Interrupted)
    if command.startswith("bag"):
        monkeypatch.setattr(frame_source, "read_rgb", interrupt)
    else:
        command += " --provider cpu"
    assert run(*command.split()) == 130
    assert capsys.readouterr().err == f"camseg: interrupted; {kept}\n"
    assert not (tmp_path / "new").exists()


def interrupt(path: Path) -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "command",
    [
        "robustness --data x",
        "bench",
        "export",
        "build-engine --size 64x48 --engine-cache x",
        "data check x",
        "train --config x",
        "train-autoencoder --config x --data x --run x --out x",
        "distill --config x --data x --run x --out x",
    ],
)
def test_every_long_command_says_what_an_interruption_keeps(command: str) -> None:
    parsed = command_parser().parse_args(command.split())
    assert parsed.kept.format(**vars(parsed))


def test_ctrl_c_while_the_command_is_loaded_is_one_line(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "class Loading:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'camseg_core.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Loading())\n"
        "from camseg_core.cli import start\n"
        "start()"
    )
    done = python(program, tmp_path)
    assert (done.returncode, done.stderr) == (130, "camseg: interrupted\n")
