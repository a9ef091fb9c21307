"""A ROS node as a process of its own: started in a domain of its own, watched, and never left behind."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

import psutil

from camseg_core.errors import CamSegError
from camseg_ros.middleware import environment, share_file

STOP_STEPS = ((signal.SIGTERM, 8.0), (signal.SIGKILL, 10.0))
"""Signals to stop a node with, each with the seconds that it is given. Not SIGINT, which a shell's background job ignores."""

DOMAINS = range(1, 102)
"""The ROS domains whose ports are outside the range that Linux hands out to other programs; 0 is everybody's."""

RELIABLE_INPUT: Mapping[str, str] = MappingProxyType({"image_reliability": "reliable"})
"""The node's parameters with which the transport loses no image."""

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class NodeDied(CamSegError):
    """The node's process ended while it was needed; the text has its exit status, `last_lines` what it said last."""

    def __init__(self, text: str, last_lines: str) -> None:
        super().__init__(text)
        self.last_lines = last_lines


def free_domain() -> int:
    """A ROS domain in which no participant runs on this machine, so that nothing else is heard.

    Raises:
        CamSegError: all are in use.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(
                    ("", 7400 + 250 * domain + 10)
                )  # the DDS standard's port of a domain's first participant
            except OSError:
                continue
            return domain
    raise CamSegError(
        f"every ROS domain from {DOMAINS[0]} to {DOMAINS[-1]} is in use on this machine; stop some ROS nodes"
    )


def ros_environment(domain: int, log_dir: Path, current: Mapping[str, str]) -> dict[str, str]:
    """`current` with the domain, the log folder and what lets large images through, for a ROS process."""
    return {
        **current,
        **environment(current),
        "ROS_DOMAIN_ID": str(domain),
        "ROS_LOG_DIR": str(log_dir.resolve()),
    }


def segmentation_command(
    image_topic: str,
    compressed: bool,
    parameters: Mapping[str, str] = RELIABLE_INPUT,
    params_files: Sequence[Path] = (),
) -> list[str]:
    """The command that starts the segmentation node with the shipped parameters on `image_topic`.

    Args:
        image_topic: of the raw images; compressed ones come on its /compressed.
        compressed: whether they are.
        parameters: values by name, over all others. By default those with which the transport loses nothing.
        params_files: parameter files over the shipped one.
    """
    command = [
        sys.executable,
        "-m",
        "camseg_ros.segmentation_node",
        "--ros-args",
        "-r",
        f"image:={image_topic}",
    ]
    for path in (share_file("config/segment.param.yaml"), *params_files):
        command += ["--params-file", str(path)]
    for name, value in {
        "image_transport": "compressed" if compressed else "raw",
        **parameters,
    }.items():
        command += ["-p", f"{name}:={value}"]
    return command


class NodeProcess:
    """A running process; leaving the `with` block stops it and all its children."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start `command`; what it prints goes to the file `log`.

        Raises:
            CamSegError: it cannot be started.
        """
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("wb") as output:
                # Its own session: a Ctrl-C in the terminal reaches only this process, which then stops the node in order.
                self._process = subprocess.Popen(
                    list(command),
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
        except OSError as error:
            raise CamSegError(
                f"cannot start the node ({command[0]}): {error.strerror or error}; install the package again"
            ) from error
        self.pid = self._process.pid
        self.peak_memory_bytes = 0

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Look whether it runs, and note the memory it holds.

        Raises:
            NodeDied: it does not.
        """
        status = self._process.poll()
        if status is not None:
            how = (
                f"killed by {signal.Signals(-status).name}"
                if status < 0
                else f"exit status {status}"
            )
            raise NodeDied(f"the node ended ({how}); all it said is in {self.log}", self.tail())
        try:
            self.peak_memory_bytes = max(
                self.peak_memory_bytes, psutil.Process(self.pid).memory_info().rss
            )
        except psutil.Error:  # it ended just now; the next check says so
            return

    def tail(self, lines: int = 12) -> str:
        """The last lines that it printed."""
        return "\n".join(
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def stop(self) -> None:
        """End it and whatever it started: first politely, so that it can close its log, then surely. Returns when it is gone."""
        for number, seconds in STOP_STEPS:
            if self._process.poll() is not None:
                break
            _signal_group(self.pid, number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        _signal_group(self.pid, signal.SIGKILL)  # children that outlived it


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def die_with_parent() -> None:
    """Runs in a child: should its parent be killed outright, the kernel kills the child too."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
