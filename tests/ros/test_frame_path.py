"""How many functions and files a reader meets who follows one frame through the node."""

import pytest
from frame_path import frame_path
from ros_harness import Driver

MAX_FUNCTIONS, MAX_FILES = 28, 12
"""From the subscription's callback to the published mask."""


def test_a_frame_passes_few_functions_in_few_files(driver: Driver) -> None:
    files = frame_path(driver, pytest.fail)
    functions = [name for names in files.values() for name in names]
    passed = {name.split(".")[-1] for name in functions}
    assert {"receive", "_run", "segment_batch", "to_network", "run", "publish"} <= passed
    assert len(functions) <= MAX_FUNCTIONS, files
    assert len(files) <= MAX_FILES, files
