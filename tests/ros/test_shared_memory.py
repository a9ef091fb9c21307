"""Fast DDS's shared memory: what is reported at the start, and that nothing is left at the end."""

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ros_harness import TIMEOUT, StartNode

from camseg_ros import shared_memory
from camseg_ros.bag.node_process import free_domain
from camseg_ros.middleware import OLD_PROFILE, PROFILE, environment, share_file

NODE = (sys.executable, "-m", "camseg_ros.segmentation_node")


def segment(folder: Path, name: str = "fastdds_0123456789abcdef", age_s: float = 60) -> Path:
    """Write a segment and its lock file, as an ended process leaves them."""
    path = folder / name
    path.write_bytes(bytes(2 * shared_memory.MIB))
    (folder / f"{name}_el").touch()
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared_memory, "FOLDER", folder)
    return folder


def profile(path: Path, size: str) -> dict[str, str]:
    """The environment with the shipped profile and another size of its segment."""
    text = share_file("config/fastdds.xml").read_text(encoding="utf-8")
    path.write_text(text.replace("67108864", size), encoding="utf-8")
    return {PROFILE: str(path)}


def test_the_shipped_profile_needs_as_much_as_its_segment_takes() -> None:
    needed = shared_memory.needed_bytes(environment({}))
    assert 70_255_136 <= needed < 72_000_000  # what a segment of Fast DDS 3.2 takes
    assert shared_memory.needed_bytes(environment({"ROS_DISTRO": "humble"})) == needed


@pytest.mark.parametrize(
    ("environ", "needed"),
    [
        ({}, 512 * 1024),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, 512 * 1024),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, 0),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, 0),
        ({PROFILE: "/none/there.xml"}, 0),
        ({OLD_PROFILE: "/none/there.xml"}, 0),
    ],
)
def test_other_transports_need_what_they_use(environ: dict[str, str], needed: int) -> None:
    assert shared_memory.needed_bytes(environ) == needed


def test_too_little_memory_is_reported_with_both_options(folder: Path, tmp_path: Path) -> None:
    environ = profile(tmp_path / "huge.xml", str(2**60))
    (line,) = shared_memory.warnings(environ)
    assert line.startswith(f"{folder} has ")
    assert f"needs {2**40 + 4} MiB" in line
    assert "--shm-size=256m or --ipc=host" in line
    assert shared_memory.warnings(profile(tmp_path / "small.xml", "65536")) == []


def test_the_memory_of_every_participant_counts(folder: Path, tmp_path: Path) -> None:
    free = shutil.disk_usage(folder).free
    environ = profile(tmp_path / "large.xml", str(free * 2 // 3))
    assert shared_memory.warnings(environ) == []
    assert len(shared_memory.warnings(environ, participants=2)) == 1


@pytest.mark.parametrize("name", ["fastdds_0123456789abcdef", "fastrtps_0123456789abcdef"])
def test_segments_of_ended_processes_are_reported_and_removed(folder: Path, name: str) -> None:
    dead = segment(folder, name)
    assert shared_memory.dead_segments() == [dead]
    (line,) = shared_memory.warnings({})
    assert "holds 1 segment of Fast DDS (2 MiB of memory) whose processes have ended" in line
    assert line.endswith(shared_memory.clean_command())
    assert shared_memory.main() == 0
    assert list(folder.iterdir()) == []


def test_segments_in_use_and_other_files_are_left_alone(folder: Path) -> None:
    used = segment(folder)
    segment(folder, "fastdds_00000000000000aa", age_s=0)  # may not be locked yet
    segment(folder, "psm_0123456789abcdef")
    with (folder / f"{used.name}_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shared_memory.dead_segments() == []
        assert shared_memory.held() == [used]
    port = segment(folder, "fastdds_port7000")
    with (folder / f"{port.name}_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shared_memory.held() == []  # a publisher would go on writing to a removed one
    assert shared_memory.held() == []
    with (folder / f"{used.name}_el").open():  # open, as Fast DDS checks others', but not held
        assert shared_memory.held() == []
    assert shared_memory.held(2**22 + 1) == []


def own_memory(size: str, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Python script with a /dev/shm of its own; skip where that is not permitted."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a /dev/shm of its own (needs root)")
    command = [*inside, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


FAILURES = """
import os, subprocess, sys
node = [sys.executable, "-m", "camseg_ros.segmentation_node", "--ros-args"]
kinds = [
    ["-p", "model:=/none/there"],
    ["-p", "steps:=many"],
    ["-p", "enabled_classes:=['raod']"],
    ["-p", "image_topic:=camera_info"],
    ["-r", "__ns:=/camera/"],
    ["-p", "class_groups:=[]"],
    ["-p", "provider:=tensorrt"],
]
for number in range(20):
    done = subprocess.run([*node, *kinds[number % len(kinds)]], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1, done
    assert lines[-1].startswith("segmentation_node: "), lines
print([name for name in os.listdir("/dev/shm") if not name.startswith("lttng")])
"""


@pytest.mark.slow
def test_twenty_failed_starts_leave_no_shared_memory(ros: None) -> None:
    done = own_memory("1g", FAILURES)
    assert done.stdout == "[]\n", done


SIGNALS = """
import os, signal, subprocess, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the node would ignore it
node = [sys.executable, "-m", "camseg_ros.segmentation_node"]
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    running = subprocess.Popen(node, stderr=subprocess.PIPE, text=True)
    while "ready" not in running.stderr.readline():
        pass
    assert any(name.startswith("fast") for name in os.listdir("/dev/shm"))
    running.send_signal(number)
    assert running.wait(60) == 0, number
print([name for name in os.listdir("/dev/shm") if not name.startswith("lttng")])
"""


@pytest.mark.slow
def test_no_signal_that_can_be_handled_leaves_shared_memory(ros: None) -> None:
    done = own_memory("1g", SIGNALS)
    assert done.stdout == "[]\n", done


REPLAYS = """
import os, signal, subprocess, sys, time
from pathlib import Path

from camseg_core.data.frame_source import synthetic_frames
from camseg_ros.bag.make import write_bag

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the replay would ignore it
bag = Path(sys.argv[1])
write_bag(synthetic_frames(20), bag)
camseg = [sys.executable, "-m", "camseg_core.cli", "bag", "replay", str(bag), "--seconds", "60"]

def left():
    names = os.listdir("/dev/shm")
    return sorted(name for name in names if name.startswith("fast") and "port" not in name)

def start():
    running = subprocess.Popen(camseg, stderr=subprocess.PIPE, text=True)
    while "measuring" not in running.stderr.readline():
        pass
    assert len(left()) == 4, left()
    return running

done = subprocess.run([*camseg, "--param", "provider:=tensorrt"], stderr=subprocess.PIPE)
assert (done.returncode, left()) == (1, []), (done, left())
running = start()
running.send_signal(signal.SIGHUP)
assert (running.wait(60), left()) == (130, []), left()
running = start()
running.kill()
running.wait()
deadline = time.monotonic() + 60
while len(left()) > 2:
    assert time.monotonic() < deadline
    time.sleep(0.05)
print("only its own segment is left")
"""


@pytest.mark.slow
def test_a_replay_leaves_nothing_and_when_killed_only_its_own(ros: None, tmp_path: Path) -> None:
    done = own_memory("1g", REPLAYS, tmp_path / "bag")
    assert done.stdout.endswith("only its own segment is left\n"), done


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s"
        time.sleep(0.1)


TOO_SMALL = """
import subprocess, sys
running = subprocess.Popen(
    [sys.executable, "-m", "camseg_ros.segmentation_node"], stderr=subprocess.PIPE, text=True
)
for line in running.stderr:
    print(line, end="")
    if "ready" in line:
        running.terminate()
"""


@pytest.mark.slow
def test_dockers_default_shared_memory_is_reported_at_the_start(ros: None) -> None:
    warning = "free of 64 MiB, but Fast DDS needs 68 MiB for images in shared memory"
    printed = own_memory("64m", TOO_SMALL).stdout
    assert printed.count(warning) == 1, printed
    assert "[WARN]" in next(line for line in printed.splitlines() if warning in line)
    assert "WARN" not in own_memory("256m", TOO_SMALL).stdout


@pytest.mark.slow
def test_a_killed_node_is_reported_by_the_next_and_its_memory_can_be_removed(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # alone in its domain: Fast DDS of a node that heard it would soon remove its memory
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    killed = start_node()
    wait_until(lambda: "ready" in killed.stderr)
    held = shared_memory.held(killed.process.pid)
    assert any(shared_memory._size(path) > 64 * shared_memory.MIB for path in held)
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: {*shared_memory.dead_segments()} & {*held})
    after = start_node()
    wait_until(lambda: "ready" in after.stderr)
    assert "of Fast DDS" in after.stderr
    assert "whose processes have ended" in after.stderr
    after.stop()
    shared_memory.remove(held)
    assert not [path for path in held if path.exists()]
