"""The same kind of trouble is logged once in a period, another kind at once."""

from collections.abc import Iterator

import pytest
from rclpy.node import Node

from camseg_ros import process
from camseg_ros.process import warn_throttled


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    node = Node("logging")
    yield node
    node.destroy_node()


def logged(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The last word of every warning so far."""
    return [line.split()[-1] for line in capfd.readouterr().err.splitlines() if "[WARN]" in line]


def test_each_kind_is_logged_once_in_a_period(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind, text in (("step", "first"), ("step", "second"), ("too large", "third")):
        warn_throttled(node, kind, text)
    assert logged(capfd) == ["first", "third"]


def test_after_the_period_the_kind_is_logged_again(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    warn_throttled(node, "size", "first", period_s=0.05)
    lines = logged(capfd)
    while len(lines) < 2:
        warn_throttled(node, "size", "again", period_s=0.05)
        lines += logged(capfd)
    assert lines == ["first", "again"]


def test_the_loggers_of_many_kinds_are_not_kept_for_ever(node: Node) -> None:
    for number in range(200):
        warn_throttled(node, f"kind {number}", "text")
    assert process._child.cache_info().currsize <= 64
