"""Describe the machine that a measurement ran on."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("camseg_ros", "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return processor, system and versions of the installed `packages`, by the name to show."""
    described = {
        "Processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "System": f"{_system()}, {platform.machine()}",
        "Python": platform.python_version(),
    }
    for name in packages:
        try:
            described[name] = version(name)
        except PackageNotFoundError:  # only one of the two ONNX Runtimes is installed
            continue
    return described


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
