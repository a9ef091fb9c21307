"""Runs a ROS node as a child process in a ROS domain of its own; measures CPU and memory."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from camseg_core.errors import CamSegError
from camseg_ros import shared_memory
from camseg_ros.middleware import environment, share_file

STOP_STEPS = ((signal.SIGTERM, 8.0), (signal.SIGKILL, 10.0))
"""Signals that stop a node, each with the seconds to wait for its end.

Not SIGINT, which a shell's background jobs ignore.
"""

DOMAINS = range(1, 102)
"""ROS domains whose ports Linux does not hand out to other programs, without the default 0."""

RELIABLE_INPUT: Mapping[str, str] = MappingProxyType({"image_reliability": "reliable"})
"""The node parameters with which the transport loses no image."""

SAMPLE_S = 0.1
"""How often the memory is read."""

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class NodeDied(CamSegError):
    """The node's process ended too early; `last_lines` is the end of its output."""

    def __init__(self, text: str, last_lines: str) -> None:
        super().__init__(text)
        self.last_lines = last_lines


def free_domain() -> int:
    """Return a ROS domain that no participant on this machine uses.

    Raises:
        CamSegError: all are in use.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # the port that DDS gives to the first participant of a domain
                probe.bind(("", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise CamSegError(
        f"every ROS domain from {DOMAINS[0]} to {DOMAINS[-1]} is in use on this machine; "
        "stop some ROS nodes"
    )


def ros_environment(domain: int, log_dir: Path, current: Mapping[str, str]) -> dict[str, str]:
    """Return `current` with the domain, the log folder and the settings for large images."""
    ros = {"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": os.path.realpath(log_dir)}
    return {**current, **environment(current), **ros}


def segmentation_command(
    image_topic: str,
    compressed: bool,
    parameters: Mapping[str, str] = RELIABLE_INPUT,
    params_files: Sequence[Path] = (),
) -> list[str]:
    """Return the command that starts the segmentation node with the shipped parameters.

    Args:
        image_topic: topic of the raw images; compressed ones come on its /compressed.
        compressed: whether they are compressed.
        parameters: values by name, which override all others.
        params_files: parameter files, which override the shipped one.
    """
    command = [sys.executable, "-m", "camseg_ros.segmentation_node", "--ros-args"]
    command += ["-r", f"image:={image_topic}"]
    for path in (share_file("config/segment.param.yaml"), *params_files):
        command += ["--params-file", str(path)]
    transport = {"image_transport": "compressed" if compressed else "raw"}
    for name, value in {**transport, **parameters}.items():
        command += ["-p", f"{name}:={value}"]
    return command


class NodeProcess:
    """A child process; leaving the `with` block stops it and its children."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start `command`; its output goes to the file `log`.

        Raises:
            CamSegError: it cannot be started.
        """
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("wb") as output:
                # In its own session, Ctrl-C does not reach the node, which this process stops.
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
                f"cannot start the node ({command[0]}): {error.strerror or error}; "
                "install the package again"
            ) from error
        self.pid = self._process.pid
        self.peak_memory_bytes = 0

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Check that the process runs, and update `peak_memory_bytes`.

        Raises:
            NodeDied: it has ended.
        """
        status = self._process.poll()
        if status is not None:
            killed = f"killed by {signal.Signals(-status).name}" if status < 0 else ""
            raise NodeDied(
                f"the node ended ({killed or f'exit status {status}'}); see its output in "
                f"{self.log}",
                self.tail(),
            )
        try:
            resident = psutil.Process(self.pid).memory_info().rss
        except psutil.Error:  # it ended just now, which the next check reports
            return
        self.peak_memory_bytes = max(self.peak_memory_bytes, resident)

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the process and its children: SIGTERM first, to let it shut down, then SIGKILL."""
        for number, seconds in STOP_STEPS:
            if self._process.poll() is not None:
                break
            held = shared_memory.held(self.pid) if number == signal.SIGKILL else []
            _signal_group(self.pid, number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            shared_memory.remove(held)
        _signal_group(self.pid, signal.SIGKILL)  # children that outlived it


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def die_with_parent() -> None:
    """Make the kernel stop this child process when its parent dies.

    Not by SIGKILL, after which a node would leave its shared memory.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True)
class Usage:
    """CPU in percent of one core, and resident memory in MB (10^6 bytes)."""

    cpu_percent: float
    rss_peak_mb: float
    rss_mean_mb: float


class UsageMonitor:
    """Measures a process inside the `with` block.

    Afterwards `usage` holds the result, or None if the process is unknown or has ended.
    """

    def __init__(self, pid: int | None) -> None:
        self.usage: Usage | None = None
        self._process: psutil.Process | None = None
        with suppress(psutil.Error):
            self._process = psutil.Process(pid) if pid is not None else None
        self._stop = threading.Event()
        self._rss: list[int] = []

    def __enter__(self) -> "UsageMonitor":
        self._began, self._cpu_began = time.monotonic(), self._cpu_seconds()
        self._sampler = threading.Thread(target=self._sample, name="usage-monitor", daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, cpu = time.monotonic() - self._began, self._cpu_seconds()
        self._stop.set()
        self._sampler.join()
        if self._rss and cpu is not None and self._cpu_began is not None:
            percent, mean = 100 * (cpu - self._cpu_began) / seconds, sum(self._rss) / len(self._rss)
            self.usage = Usage(percent, max(self._rss) / 1e6, mean / 1e6)

    def _cpu_seconds(self) -> float | None:
        with suppress(psutil.Error):  # it ended, which the player's check reports
            return sum(self._process.cpu_times()[:2]) if self._process is not None else None
        return None

    def _sample(self) -> None:
        with suppress(psutil.Error):
            while self._process is not None:
                self._rss.append(self._process.memory_info().rss)
                if self._stop.wait(SAMPLE_S):
                    return
