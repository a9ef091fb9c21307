"""For all tests: slow ones run last, so that a mistake shows early; SIGINT as a terminal has it; a browser for those that open a page."""

import signal
from collections.abc import Iterator

import browser
import pytest


def pytest_configure() -> None:
    """A shell that runs the tests in the background may have SIGINT ignored; the processes that tests interrupt would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the order otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """One browser for all tests."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running
