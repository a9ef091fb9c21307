"""For all tests: those marked slow run last, so that a mistake shows early."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the order otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
