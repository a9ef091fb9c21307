"""How many functions and files a reader meets who follows one frame through the node."""

import pytest
from frame_path import frame_path
from ros_harness import Driver

MAX_FUNCTIONS, MAX_FILES = 18, 7
"""In the node: everything except the model's runtime."""


def test_a_frame_passes_few_functions_of_the_node_in_few_files(driver: Driver) -> None:
    files = frame_path(driver, pytest.fail)
    node = {name: files[name] for name in files if name.startswith("camseg_ros/")}
    node["camseg_core/class_table.py"] = files["camseg_core/class_table.py"]
    functions = [name for names in node.values() for name in names]
    assert {"receive", "_run", "publish"} <= {name.split(".")[-1] for name in functions}
    assert len(functions) <= MAX_FUNCTIONS, node
    assert len(node) <= MAX_FILES, node
