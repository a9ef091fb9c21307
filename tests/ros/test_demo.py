"""The demo as a user runs it: separate processes, the real node, real DDS."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from processes import kill
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import synthetic_frames
from camseg_ros.bag.make import write_bag
from camseg_ros.bag.topics import COMPRESSED

pytestmark = pytest.mark.slow

TIMEOUT = 240.0

SLOWLY = ("--frames", "12", "--fps", "2")
"""Few frames are made quickly; 6 s of them leave time to end the demo in the middle."""


def start_demo(out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "camseg_ros.demo", "--out", str(out), *arguments]
    return subprocess.Popen(
        command, cwd=out.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(demo: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit code and output."""
    try:
        stdout, stderr = demo.communicate(timeout=TIMEOUT)
    finally:
        kill(demo)
    return demo.returncode, stdout + stderr


def wait_for_node(demo: subprocess.Popen[str], out: Path, frames: int) -> psutil.Process:
    """Return the demo's node once `frames` overlays exist."""
    end = time.monotonic() + TIMEOUT
    while len(list((out / "overlays").glob("*.png"))) < frames:
        if demo.poll() is not None or time.monotonic() > end:
            kill(demo)
            pytest.fail(f"the node made no masks: {finish(demo)}")
        time.sleep(0.05)
    (node,) = psutil.Process(demo.pid).children()
    assert "camseg_ros.segmentation_node" in node.cmdline()
    return node


def assert_no_node_left(node: psutil.Process) -> None:
    psutil.wait_procs([node], timeout=10)
    assert not node.is_running()


def test_the_whole_demo(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed = finish(start_demo(out, "--frames", "5"))
    assert code == 0, printed
    assert "5 sent, 5 answered, 0 lost" in printed
    assert "every frame came back" in printed

    result = json.loads((out / "summary.json").read_text())
    assert (result["passed"], result["sent"], result["answered"], result["lost"]) == (True, 5, 5, 0)
    assert sum(result["classes"].values()) == pytest.approx(1.0)
    node = result["node"]["/segmentation: camera"]
    assert node["frames dropped"] == "0"
    assert result["node"]["/segmentation: model"]["state"] == "active"
    assert 0 < result["node_peak_memory_mb"] < 1024

    page = (out / "index.html").read_text(encoding="utf-8")
    assert not re.findall(
        r"""(?:src|href|srcset|poster|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page
    )
    assert page.count("data:image/jpeg;base64,") == 2 * 5
    assert "all frames answered" in page

    overlays = sorted((out / "overlays").glob("*.png"))
    assert [path.name for path in overlays] == [f"frame_{i:05d}.png" for i in range(5)]
    assert all(
        picture is not None and picture.shape == (360, 480, 3)
        for picture in map(cv2.imread, map(str, overlays))
    )
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 5


@pytest.mark.slow
def test_pictures_that_cannot_be_read_are_left_out_named_and_counted(tmp_path: Path) -> None:
    pictures = tmp_path / os.fsdecode(b"pictures\xff")
    pictures.mkdir()
    content = cv2.imencode(".png", np.full((48, 64, 3), 99, np.uint8))[1].tobytes()
    for name, part in {"a": content, "b": b"", "c": content, "d": content[:-9]}.items():
        (pictures / f"{name}.png").write_bytes(part)
    out = tmp_path / os.fsdecode(b"out\xff")
    code, printed = finish(start_demo(out, "--source", str(pictures), "--timeout", "60"))
    assert code == 1, printed
    assert "2 sent, 2 answered, 0 lost" in printed
    assert printed.count("left out ") == 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["left_out"][0].endswith("b.png is empty (0 bytes): copy it again")
    assert "Images of the source that cannot be read" in (out / "index.html").read_text()
    assert (out / "overlay.mp4").is_file()


def test_a_bag_of_the_users_own_with_a_damaged_frame(tmp_path: Path) -> None:
    write_bag(synthetic_frames(3), tmp_path / "drive")
    file = tmp_path / "drive" / "drive.mcap"
    content = bytearray(file.read_bytes())
    at = content.index(b"rgb8")
    content[at : at + 4] = b"xyz8"  # an unknown encoding
    file.write_bytes(content)
    code, printed = finish(start_demo(tmp_path / "out", "--source", "drive", "--timeout", "60"))
    assert code == 0, printed
    assert "3 sent, 2 answered, 0 lost, 1 unreadable in the bag" in printed
    assert "every readable frame came back; 1 could not be read" in printed
    assert "every frame came back" not in printed
    assert "unknown image encoding 'xyz8'" in printed
    log = (tmp_path / "out" / "log" / "node_output.log").read_text()
    assert "unknown image encoding 'xyz8'" in log, "the node has rejected it as well"
    assert not (tmp_path / "out" / "bag").exists(), "the user's bag is not copied"


def test_a_bag_that_the_node_cannot_read_is_refused_before_the_node_starts(tmp_path: Path) -> None:
    write_bag(synthetic_frames(3), tmp_path / "drive")
    file = tmp_path / "drive" / "drive.mcap"
    file.write_bytes(file.read_bytes().replace(b"rgb8", b"xyz8"))
    code, printed = finish(start_demo(tmp_path / "out", "--source", "drive"))
    assert code == 2, printed
    (line,) = printed.splitlines()
    assert "none of the first 3 images on /camera/image_raw can be read: unknown image" in line
    assert not (tmp_path / "out").exists()


def test_a_bag_of_compressed_images(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    with Writer(tmp_path / "drive", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/front/compressed", COMPRESSED, typestore=store)
        for i in range(3):
            jpeg = np.asarray(
                cv2.imencode(".jpg", np.full((120, 160, 3), 60 * i, np.uint8))[1]
            ).reshape(-1)
            header = types["std_msgs/msg/Header"](
                types["builtin_interfaces/msg/Time"](i, 5), "front"
            )
            writer.write(
                connection,
                i * 100_000_000,
                store.serialize_cdr(types[COMPRESSED](header, "jpeg", jpeg), COMPRESSED),
            )
    code, printed = finish(start_demo(tmp_path / "out", "--source", "drive/drive.db3"))
    assert code == 0, printed
    assert "3 sent, 3 answered, 0 lost" in printed


def test_a_node_that_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo = start_demo(out, *SLOWLY)
    node = wait_for_node(demo, out, 2)
    node.kill()
    code, printed = finish(demo)
    assert code == 1, printed
    assert "failed   the node ended (killed by SIGKILL)" in printed
    assert "of 12 frames" in printed
    assert "the node ended" in (out / "index.html").read_text(encoding="utf-8"), (
        "what came before is still shown"
    )
    assert_no_node_left(node)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_node_is_left_when_the_demo_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    demo = start_demo(out, *SLOWLY)
    node = wait_for_node(demo, out, 1)
    os.kill(demo.pid, number)
    code, printed = finish(demo)
    if number is signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130, printed
        assert "demo: interrupted; the node is stopped" in printed
        assert "Traceback" not in printed
    assert_no_node_left(node)
