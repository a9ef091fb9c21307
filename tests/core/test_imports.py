"""What the packages may import, seen in a fresh interpreter: the runtime and the node without torch, the core without ROS."""

import importlib.util
import subprocess
import sys

import pytest


def modules_after(statement: str) -> set[str]:
    """The top-level modules that are loaded when a new interpreter has run `statement`."""
    program = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "camseg_core",
        "camseg_core.runtime",
        "camseg_core.cli.main",
        "camseg_core.weights",
        "camseg_core.labels",
    ],
)
def test_the_core_imports_neither_torch_nor_ros(module: str) -> None:
    assert not modules_after(f"import {module}") & {"torch", "rclpy", "camseg_ros"}


@pytest.mark.parametrize("module", ["segmentation_node", "camera", "image_messages", "middleware"])
def test_the_node_does_not_import_torch(module: str) -> None:
    if importlib.util.find_spec("rclpy") is None:
        pytest.skip("needs rclpy: pip install '.[ros]' or a ROS install")
    assert "torch" not in modules_after(f"import camseg_ros.{module}")
