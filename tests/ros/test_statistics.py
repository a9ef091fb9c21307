"""Counts, rates and latencies on a clock of the test's own."""

import pytest

from camseg_ros.statistics import MAX_SAMPLES, REPLACED, TOO_OLD, WINDOW_S, StreamStatistics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_happened_yet() -> None:
    snapshot = StreamStatistics(Clock()).snapshot()
    assert (snapshot.received, snapshot.published, snapshot.dropped, snapshot.publish_failures) == (
        0,
        0,
        {},
        0,
    )
    assert (
        snapshot.latency_ms
        is snapshot.image_size
        is snapshot.input_age
        is snapshot.output_age
        is snapshot.error_age
        is None
    )
    assert snapshot.rate_in == snapshot.rate_out == 0.0


def test_rates_latencies_and_stages_of_the_last_seconds() -> None:
    clock = Clock()
    statistics = StreamStatistics(clock)
    for number in range(41):
        clock.now = 100.0 + number * 0.1
        statistics.frame_received()
        if number % 2 == 0:
            statistics.frame_published(
                float(number), {"wait": 1.0, "decode": number * 2.0}, (480, 360)
            )
        else:
            statistics.frame_dropped(REPLACED if number % 4 == 1 else TOO_OLD)
    snapshot = statistics.snapshot()
    assert (snapshot.received, snapshot.published, snapshot.dropped) == (
        41,
        21,
        {REPLACED: 10, TOO_OLD: 10},
    )
    assert snapshot.rate_in == pytest.approx(10.0)
    assert snapshot.rate_out == pytest.approx(5.0)
    assert snapshot.latency_ms == (20.0, 38.0)
    assert snapshot.stages_ms == {"wait": 1.0, "decode": 40.0}
    assert snapshot.image_size == (480, 360)
    clock.now += 2 * WINDOW_S
    later = statistics.snapshot()
    assert later.rate_in == later.rate_out == 0.0
    assert later.latency_ms is None
    assert later.received == 41
    assert later.input_age == pytest.approx(2 * WINDOW_S)
    assert later.running == pytest.approx(4.0 + 2 * WINDOW_S)


def test_a_snapshot_stays_what_it_was() -> None:
    statistics = StreamStatistics(Clock())
    statistics.frame_dropped(TOO_OLD)
    snapshot = statistics.snapshot()
    statistics.frame_dropped(TOO_OLD)
    assert (snapshot.dropped, statistics.snapshot().dropped) == ({TOO_OLD: 1}, {TOO_OLD: 2})


def test_beginning_again_starts_the_time_and_keeps_the_counts() -> None:
    clock = Clock()
    statistics = StreamStatistics(clock)
    statistics.frame_received()
    clock.now += 60.0
    statistics.begin()
    clock.now += 2.0
    snapshot = statistics.snapshot()
    assert (snapshot.running, snapshot.received, snapshot.input_age) == (2.0, 1, 62.0)


def test_errors_are_counted_by_reason_and_the_last_one_kept() -> None:
    clock = Clock()
    statistics = StreamStatistics(clock)
    statistics.frame_rejected("step", "first")
    statistics.frame_rejected("step", "second")
    statistics.frame_rejected("size", "third")
    clock.now += 3.0
    snapshot = statistics.snapshot()
    assert snapshot.rejected == {"step": 2, "size": 1}
    assert (snapshot.last_error, snapshot.error_age) == ("third", 3.0)
    statistics.publish_failed("fourth")
    assert (statistics.snapshot().publish_failures, statistics.snapshot().last_error) == (
        1,
        "fourth",
    )


def test_a_flood_does_not_fill_the_memory() -> None:
    statistics = StreamStatistics(Clock())
    for _ in range(3 * MAX_SAMPLES):
        statistics.frame_received()
        statistics.frame_published(1.0, {}, (1, 1))
    assert statistics.snapshot().published == 3 * MAX_SAMPLES
    assert len(statistics._arrivals) == len(statistics._samples) == MAX_SAMPLES
