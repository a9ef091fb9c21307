"""The same trouble is said now and then, another at once, and what was said is not remembered for ever."""

import pytest

from camseg_ros import process as throttled_log
from camseg_ros.process import PERIOD_S, ThrottledLog


class Logger:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, message: str) -> None:
        self.lines.append(message)


def test_each_kind_is_said_once_in_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0  # just after boot, where the clock begins
    monkeypatch.setattr(throttled_log.time, "monotonic", lambda: now)
    logger = Logger()
    log = ThrottledLog(logger)
    log.warn("step", "first")
    log.warn("step", "second")
    log.warn("size", "third")
    assert logger.lines == ["first", "third"]
    now = PERIOD_S - 0.01
    log.warn("step", "fourth")
    now = PERIOD_S
    log.warn("step", "fifth")
    log.warn("step", "sixth")
    assert logger.lines == ["first", "third", "fifth"]


def test_what_was_said_is_forgotten_after_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(throttled_log.time, "monotonic", lambda: now)
    logger = Logger()
    log = ThrottledLog(logger)
    for number in range(1000):  # kinds that name what comes from outside
        log.warn(f"kind {number}", f"first {number}")
    now = PERIOD_S
    log.warn("kind 3", "again")
    assert logger.lines[1000:] == ["again"]
    assert log._said == {"kind 3": PERIOD_S}
