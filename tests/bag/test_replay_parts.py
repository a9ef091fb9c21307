"""The parts of a replay without a node: search, pace, schedule, headers, counts, CPU and memory."""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import SourceFrame
from camseg_core.errors import DataError
from camseg_ros.bag.link import MAX_GAP_S
from camseg_ros.bag.make import IMAGE_TOPIC, write_bag
from camseg_ros.bag.node_process import UsageMonitor
from camseg_ros.bag.player import MIN_GAP_SHARE, Pace, Playback
from camseg_ros.bag.read import ImageBag, TimeRange, read_input
from camseg_ros.bag.replay import PRECISION, MaxRate, Verdict, find_max_rate, judge
from camseg_ros.bag.session import (
    LOST_AFTER,
    LOST_BEFORE,
    UNEXPLAINED,
    Measurement,
    NodeCounters,
    counters_of,
    drops,
    read_ahead,
    schedule,
)
from camseg_ros.bag.storage import read_header, read_stamp, with_stamp
from camseg_ros.bag.topics import RAW

SECOND = 1_000_000_000
STORE = get_typestore(Stores.ROS2_KILTED)


def bag_of(path: Path, *seconds: float) -> Path:
    """Write a bag of small images, stamped and recorded at these times."""
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    write_bag(
        (SourceFrame(SECOND + round(s * SECOND), image + i, str(i)) for i, s in enumerate(seconds)),
        path,
    )
    return path


class FakeNode:
    """Keeps up to `capacity` Hz; its player keeps up to `player` Hz."""

    def __init__(self, capacity: float, player: float = 1e6) -> None:
        self.capacity, self.player = capacity, player
        self.tried: list[float] = []

    def __call__(self, rate: float) -> Verdict:
        self.tried.append(rate)
        if rate > self.capacity:
            return "dropped"
        return "player" if rate > self.player else "passed"


@pytest.mark.parametrize("start", [1.0, 10.0, 37.0, 300.0])
@pytest.mark.parametrize("capacity", [0.7, 8.0, 37.0, 640.0])
def test_the_search_ends_just_below_the_capacity(capacity: float, start: float) -> None:
    node = FakeNode(capacity)
    found = find_max_rate(node, start)
    assert found.limited_by == "the node"
    assert found.rate_hz is not None
    assert capacity / PRECISION <= found.rate_hz <= capacity
    assert node.tried[0] == start
    again = FakeNode(capacity)
    find_max_rate(again, start)
    assert again.tried == node.tried, "the steps are always the same"
    assert len(set(node.tried)) == len(node.tried) <= 20


def test_the_search_names_its_limit() -> None:
    assert find_max_rate(FakeNode(1e6), 10.0, high=30.0) == MaxRate(
        30.0, "the highest rate allowed"
    )
    assert find_max_rate(FakeNode(0.1), 10.0) == MaxRate(None, "the node")
    assert find_max_rate(FakeNode(1e6, player=0.1), 10.0) == MaxRate(None, "the player")
    found = find_max_rate(FakeNode(500.0, player=50.0), 10.0)
    assert found.limited_by == "the player"
    assert found.rate_hz is not None
    assert 50 / PRECISION <= found.rate_hz <= 50
    capped = FakeNode(1e6)
    find_max_rate(capped, 50.0, high=30.0)
    assert capped.tried == [30.0]


def test_a_trial_fails_the_node_only_if_it_dropped_images() -> None:
    def trial(answered: int, achieved_hz: float, refused: int = 0) -> Verdict:
        playback = Playback(100, refused, [0.1] * answered, 20.0, achieved_hz)
        return judge(Measurement(20.0, playback, None, None))

    assert trial(95, 20.0) == "passed"
    assert trial(94, 20.0) == "dropped"
    assert trial(100, 15.0) == "player"
    assert trial(100, 20.0, refused=1) == "player"
    assert trial(50, 15.0) == "dropped", "it dropped images even at a lower rate"


def sendings(delays: dict[int, float], images: int = 40, gap: float = 0.1) -> list[float]:
    """Return when a player sends images at a steady rate if it is delayed before some of them."""
    now = [100.0]
    pace = Pace(lambda: now[0])
    moments = []
    for i in range(images):
        now[0] += delays.get(i, 0.0)
        now[0] = max(now[0], pace.moment(i * gap))
        pace.sent(i * gap, now[0])
        moments.append(now[0] - 100.0)
    return moments


def test_the_pace_is_kept() -> None:
    assert sendings({}) == pytest.approx([i * 0.1 for i in range(40)])


def test_a_small_delay_is_made_up_for_without_a_burst() -> None:
    moments = sendings({5: 0.15})
    assert moments[5] == pytest.approx(0.55)
    assert min(np.diff(moments)) >= MIN_GAP_SHARE * 0.1 - 1e-9
    assert moments[-1] == pytest.approx(3.9)


def test_a_long_delay_is_not_made_up_for() -> None:
    moments = sendings({5: 2.0})
    assert min(np.diff(moments)) >= 0.1 - 1e-9
    assert moments[-1] == pytest.approx(3.9 + 1.9), "2 s, of which 0.1 s was waiting anyway"


def test_the_worst_delay_is_reported() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.moment(0.0)
    pace.sent(0.0, 0.0)
    pace.sent(0.1, 0.17)
    assert pace.worst_delay_s == pytest.approx(0.07)


def dues(path: Path, rate_hz: float | None, seconds: float | None) -> list[float]:
    return [due.due_s for due in schedule(read_input(path), rate_hz, seconds)]


def test_the_schedule_is_the_recorded_one_with_shorter_pauses(tmp_path: Path) -> None:
    path = bag_of(tmp_path / "bag", 0.0, 0.1, 0.3, 60.3)
    assert dues(path, None, None) == pytest.approx([0.0, 0.1, 0.3, 0.3 + MAX_GAP_S])
    assert dues(path, None, 0.2) == pytest.approx([0.0, 0.1])


def test_the_schedule_at_a_rate_repeats_the_bag(tmp_path: Path) -> None:
    path = bag_of(tmp_path / "bag", 0.0, 0.1, 0.3)
    assert dues(path, 20.0, None) == pytest.approx([0.0, 0.05, 0.1])
    found = list(schedule(read_input(path), 20.0, 0.35))
    assert [due.due_s for due in found] == pytest.approx([i / 20 for i in range(7)])
    assert [due.image.index for due in found] == [0, 1, 2, 0, 1, 2, 0]


def test_a_time_range_of_the_bag(tmp_path: Path) -> None:
    bag = read_input(bag_of(tmp_path / "bag", 0.0, 0.1, 0.2, 0.3), within=TimeRange(0.1, 0.3))
    assert bag.frames == 2
    assert bag.recorded_hz == pytest.approx(10.0)
    assert [(due.due_s, due.image.index) for due in schedule(bag, 2.0, 1.1)] == [
        (0.0, 1),
        (0.5, 2),
        (1.0, 1),
    ]
    assert bag.sha256 != read_input(tmp_path / "bag").sha256
    with pytest.raises(
        DataError,
        match=r"no images on /camera/image_raw in this time range of the bag .*; "
        "record it again .*, or choose another time range",
    ):
        read_input(tmp_path / "bag", within=TimeRange(5.0, None))


def test_a_bag_recorded_at_one_time_needs_a_rate(tmp_path: Path) -> None:
    path = bag_of(tmp_path / "bag", 0.0)
    assert dues(path, None, None) == [0.0]
    with pytest.raises(DataError, match="so their rate is unknown; give a rate"):
        dues(path, None, 1.0)


def test_a_recording_that_begins_at_0_has_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    frames = [SourceFrame(i * SECOND // 10, np.zeros((4, 6, 3), np.uint8), "") for i in range(3)]
    write_bag(frames, path)
    assert read_input(path).recorded_hz == pytest.approx(10.0)


def test_only_the_stamp_changes(tmp_path: Path) -> None:
    with ImageBag(bag_of(tmp_path / "bag", 0.5)) as bag:
        (image,) = bag
    assert read_header(image.cdr) == (image.stamp_ns, "camera") == (1_500_000_000, "camera")
    stamp = 1_800_000_000 * SECOND + 999_999_999
    changed = with_stamp(image.cdr, stamp)
    assert read_header(changed) == (stamp, "camera")
    assert with_stamp(changed, image.stamp_ns) == image.cdr
    message = STORE.deserialize_cdr(changed, RAW)
    found: Any = message.header.stamp  # type: ignore[attr-defined]
    assert (found.sec, found.nanosec) == divmod(stamp, SECOND)


def test_headers_of_either_byte_order() -> None:
    little = b"\0\1\0\0" + struct.pack("<iII", 7, 8, 4) + b"cam\0rest"
    big = b"\0\0\0\0" + struct.pack(">iII", 7, 8, 4) + b"cam\0rest"
    for cdr in (little, big):
        assert read_header(cdr) == (7 * SECOND + 8, "cam")
        assert read_stamp(cdr) == 7 * SECOND + 8
        assert read_header(with_stamp(cdr, 9 * SECOND + 1)) == (9 * SECOND + 1, "cam")


def test_reading_ahead_is_bounded_and_in_order() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in count():
            taken.append(i)
            yield i

    with read_ahead(items(), 5) as ahead:
        assert len(taken) == 5
        assert list(islice(ahead, 100)) == list(range(100))
    assert len(taken) <= 107


def test_reading_ahead_raises_an_error_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("damaged")

    with read_ahead(items(), 5) as ahead:
        read = iter(ahead)
        assert next(read) == 1
        with pytest.raises(DataError, match="damaged"):
            next(read)


def test_leaving_early_closes_the_iterator() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.append(True)

    with read_ahead(items(), 2) as ahead:
        next(iter(ahead))
    assert closed == [True]


def entry(received: int, published: int, **reasons: int) -> dict[str, str]:
    counts = {name.replace("_", ": ", 1): str(value) for name, value in reasons.items()}
    return {
        "input topic": "/a",
        "frames received": str(received),
        "frames published": str(published),
        "frames dropped": "9",
        **counts,
    }


def test_the_counts_are_those_of_the_camera_on_the_topic() -> None:
    diagnostics = {
        "/n: left": {**entry(1, 1), "input topic": "/b"},
        "/n: right": entry(5, 3, dropped_late=2),
        "/n: model": {},
    }
    assert counters_of(diagnostics, "/a") == NodeCounters(5, 3, {"dropped: late": 2})
    assert counters_of(diagnostics, "/c") is None


def test_drops_add_up() -> None:
    before = NodeCounters(10, 8, {"dropped: old": 2})
    after = NodeCounters(100, 60, {"dropped: old": 20, "rejected: size": 15})
    found = drops(95, 50, before, after)
    assert found == {
        "dropped: old": 18,
        "rejected: size": 15,
        LOST_BEFORE: 5,
        LOST_AFTER: 2,
        UNEXPLAINED: 5,
    }
    assert sum(found.values()) == 95 - 50
    assert drops(3, 3, NodeCounters(0, 0, {}), NodeCounters(3, 3, {"dropped: old": 0})) == {}


def test_a_process_is_measured() -> None:
    with UsageMonitor(os.getpid()) as own:
        began = time.process_time()
        while time.process_time() < began + 0.05:  # the kernel counts in steps of 0.01 s
            pass
    assert own.usage is not None
    assert own.usage.cpu_percent > 0
    assert own.usage.rss_peak_mb >= own.usage.rss_mean_mb > 10


def test_a_process_that_ended_or_is_unknown_has_no_usage() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for pid in (process.pid, None):
        with UsageMonitor(pid) as gone:
            pass
        assert gone.usage is None


def test_the_same_images_have_the_same_hash(tmp_path: Path) -> None:
    first, same, other = (
        read_input(bag_of(tmp_path / name, *times))
        for name, times in (("a", (0.0, 0.1)), ("b", (0.0, 0.1)), ("c", (0.0, 0.2)))
    )
    assert first.sha256 == same.sha256 != other.sha256
    assert (first.frames, first.size, first.topic, first.repeated) == (2, (6, 4), IMAGE_TOPIC, None)
    assert first.recorded_hz == pytest.approx(10.0)
    assert read_input(bag_of(tmp_path / "d", 0.0, 0.1, 0.0)).repeated == 1, "in recorded order"
