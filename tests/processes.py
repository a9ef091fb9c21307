"""Processes of tests, none of which outlives its test: a training that is left behind would take the cores from all tests after it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil


@contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command, with text as its streams and `Popen`'s options; killed at the end, with all that it has started."""
    process = subprocess.Popen([str(part) for part in command], text=True, **options)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process, unless it has ended, with all that it has started, and wait for its end."""
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.kill()
    process.wait()


def torchrun(count: int, *arguments: object) -> list[object]:
    """The command that has torch start as many processes of a script, or of `-m` and a module."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        *arguments,
    ]


def run(command: Sequence[object], timeout: float) -> subprocess.CompletedProcess[str]:
    """What the command printed, and its exit code.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
