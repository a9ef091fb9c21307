"""The same trouble is said now and then, and what was said is not remembered for ever."""

import pytest

from camseg_ros import throttled_log
from camseg_ros.throttled_log import PERIOD_S, ThrottledLog


class Lines(list[str]):
    def warning(self, message: str) -> None:
        self.append(message)


def test_each_kind_is_said_once_in_a_period_and_forgotten_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(throttled_log.time, "monotonic", lambda: now)
    lines = Lines()
    log = ThrottledLog(lines)
    for number in range(1000):  # kinds that name what comes from outside
        log.warn(f"kind {number}", f"first {number}")
    log.warn("kind 3", "second")
    assert len(lines) == 1000
    now = PERIOD_S
    log.warn("kind 3", "third")
    assert lines[1000:] == ["third"]
    assert log._said == {"kind 3": PERIOD_S}
