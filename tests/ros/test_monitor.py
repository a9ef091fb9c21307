"""A heartbeat survives errors in its callback and ends when stopped."""

import threading

from camseg_ros.process import Monitor


def test_it_beats_until_it_is_stopped_and_asks_for_its_period_each_time() -> None:
    enough, beats, periods = threading.Event(), [], []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            enough.set()

    def period() -> float:
        periods.append(1)
        return 0.001

    monitor = Monitor(period, beat, lambda error: None)
    monitor.start()
    assert enough.wait(60)
    monitor.stop(60)
    assert not monitor.is_alive()
    count = len(beats)
    assert len(periods) >= count >= 3


def test_a_beat_that_raises_is_reported_and_does_not_end_the_others() -> None:
    errors: list[str] = []
    enough = threading.Event()

    def beat() -> None:
        raise ValueError("a beat failed")

    def on_error(error: Exception) -> None:
        errors.append(str(error))
        if len(errors) == 2:
            enough.set()

    monitor = Monitor(lambda: 0.001, beat, on_error)
    monitor.start()
    assert enough.wait(60)
    monitor.stop(60)
    assert set(errors) == {"a beat failed"}


def test_stopping_waits_for_the_beat_in_work_but_not_for_one_that_hangs() -> None:
    begun, release = threading.Event(), threading.Event()

    def beat() -> None:
        begun.set()
        release.wait(60)

    monitor = Monitor(lambda: 0.001, beat, lambda error: None)
    monitor.start()
    assert begun.wait(60)
    monitor.stop(0.01)
    assert monitor.is_alive()
    release.set()
    monitor.stop(60)
    assert not monitor.is_alive()


def test_one_that_was_never_started_can_be_stopped() -> None:
    Monitor(lambda: 1.0, lambda: None, lambda error: None).stop(1)
