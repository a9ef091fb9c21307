"""What a replay ran on: a latency means nothing without it."""

import psutil

from camseg_core.evaluation import machine

PACKAGES = (
    "camseg_ros",
    "onnxruntime",
    "numpy",
    "opencv-python-headless",
    "rosbags",
    "ros-kilted-rclpy",
    "ros-kilted-rmw-fastrtps-cpp",
)


def describe_machine() -> dict[str, str]:
    """Processor, memory, operating system and versions, each by the name to show."""
    described = machine.describe_machine(PACKAGES)
    memory = f"{psutil.virtual_memory().total / 2**30:.1f} GiB"
    return {"Processor": described.pop("Processor"), "Memory": memory, **described}
