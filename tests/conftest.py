"""For all tests: order, the marker `ros`, SIGINT as in a terminal, shared memory, a browser."""

import signal
from collections import Counter
from collections.abc import Iterator

import browser
import pytest

from camseg_ros import shared_memory


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
