"""Processes of tests. None outlives its test: a forgotten training would slow all later tests."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil


@contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command with text streams and `Popen`'s options; kill it and its children at exit."""
    process = subprocess.Popen([str(part) for part in command], text=True, **options)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children, and wait until it has ended."""
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.kill()
    process.wait()


def torchrun(count: int, *arguments: object) -> list[object]:
    """The command that starts `count` processes of a script, or of `-m` and a module."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        *arguments,
    ]


def run(command: Sequence[object], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output and exit code.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
