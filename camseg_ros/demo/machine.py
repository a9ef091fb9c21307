"""What the demo ran on: a latency means nothing without it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("camseg_ros", "onnxruntime", "numpy", "opencv-python-headless", "rosbags", "ros-kilted-rclpy", "ros-kilted-rmw-fastrtps-cpp")


def describe_machine() -> dict[str, str]:
    """Processor, memory, operating system and versions, each by the name to show."""
    described = {
        "Processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "System": f"{_system()}, {platform.machine()}",
        "Python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            described[name] = version(name)
        except PackageNotFoundError:  # on a ROS machine, rclpy is not a Python package of its own
            continue
    return described


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
