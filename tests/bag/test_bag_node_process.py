"""The node's process: checked while it runs, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from camseg_core.errors import CamSegError
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)

WITH_CHILD = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print(p.pid, flush=True); time.sleep(600)"
)
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)"
)


def start(code: str, tmp_path: Path) -> NodeProcess:
    return NodeProcess([sys.executable, "-c", code], os.environ, tmp_path / "log" / "output.log")


def wait(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail after 30 s."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_stopping_ends_its_children_too(tmp_path: Path) -> None:
    with start(WITH_CHILD, tmp_path) as node:
        wait(lambda: node.tail().strip().isdigit())
        child = int(node.tail())
        node.check()
        assert node.peak_memory_bytes > 1 << 20
    wait(lambda: gone(node.pid) and gone(child))


def test_an_error_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), start("import time; time.sleep(600)", tmp_path) as node:
        raise ZeroDivisionError
    assert gone(node.pid)


def test_a_process_that_ignores_signals_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "camseg_ros.bag.node_process.STOP_STEPS", ((signal.SIGTERM, 0.3), (signal.SIGKILL, 10.0))
    )
    with start(DEAF, tmp_path) as node:
        wait(lambda: node.tail() == "deaf")
    assert gone(node.pid)


def test_its_end_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with start("print('\\n'.join(map(str, range(30)))); raise SystemExit(3)", tmp_path) as node:
        node._process.wait(30)
        with pytest.raises(
            NodeDied, match=r"the node ended \(exit status 3\); see its output in .*output\.log"
        ) as caught:
            node.check()
        assert caught.value.last_lines.split() == [str(i) for i in range(18, 30)]
    with start("import os; os.kill(os.getpid(), 9)", tmp_path) as node:
        node._process.wait(30)
        with pytest.raises(NodeDied, match="killed by SIGKILL"):
            node.check()


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; "
        "from camseg_ros.bag.node_process import NodeProcess; "
        "command = [sys.executable, '-c', 'import time; time.sleep(600)']; "
        "node = NodeProcess(command, os.environ, Path(sys.argv[1])); "
        "print(node.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "output.log")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait()
    wait(lambda: gone(child))


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        CamSegError, match=r"cannot start the node \(/no/such/program\): No such file"
    ):
        NodeProcess(["/no/such/program"], os.environ, tmp_path / "output.log")


def test_the_environment_sets_domain_and_logs_and_keeps_the_rest(tmp_path: Path) -> None:
    env = ros_environment(
        42,
        tmp_path,
        {"HOME": "/home/me", "ROS_DOMAIN_ID": "7", "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
    )
    assert env["HOME"] == "/home/me"
    assert (env["ROS_DOMAIN_ID"], env["ROS_LOG_DIR"]) == ("42", str(tmp_path))
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in env, "the user's own choice of transports stays"
    kilted = ros_environment(42, tmp_path, {"ROS_DISTRO": "kilted"})
    assert Path(kilted["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_a_free_domain_and_the_command() -> None:
    assert 1 <= free_domain() <= 101
    command = segmentation_command("/front/image", compressed=True)
    assert "image:=/front/image" in command
    assert {"image_reliability:=reliable", "image_transport:=compressed"} <= set(command)
