"""Models timed interleaved, and how two series of times compare."""

import numpy as np
import numpy.typing as npt
import pytest

from camseg_core.errors import DataError
from camseg_core.evaluation.intervals import ratio_of_medians
from camseg_core.evaluation.timing import Latency, time_in_turns
from camseg_core.runtime import Segmentation

IMAGES = [np.full((2, 4, 3), i, np.uint8) for i in range(5)]


class Recorder:
    """A model that logs its calls, takes `ms`, and returns the first `right` pixels as class 1."""

    def __init__(self, name: str, calls: list[str], ms: float, right: int = 8) -> None:
        self.name, self.calls, self.ms, self.right = name, calls, ms, right

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        self.calls.append(f"{self.name}{rgb[0, 0, 0]}")
        mask = (np.arange(8) < self.right).astype(np.uint8).reshape(2, 4)
        return Segmentation(
            mask, np.ones((2, 4), np.float32), {"think": self.ms, "draw": float(rgb[0, 0, 0])}
        )


def test_two_models_see_each_frame_in_turns_and_the_order_alternates() -> None:
    calls: list[str] = []
    time_in_turns([Recorder("A", calls, 1), Recorder("B", calls, 2)], IMAGES[:4])
    assert calls == ["A0", "B0", "B1", "A1", "A2", "B2", "B3", "A3"]


def test_frames_that_warm_up_are_segmented_but_not_counted() -> None:
    calls: list[str] = []
    timed = time_in_turns(
        [Recorder("A", calls, 10), Recorder("B", calls, 20, right=6)], iter(IMAGES), warm_up=2
    )
    assert len(calls) == 10
    assert [latency.frames_ms for latency in timed.latencies] == [[12, 13, 14], [22, 23, 24]]
    assert timed.latencies[1].stages()["draw"].p50 == 3
    assert timed.agreements == (6 / 8, 6 / 8, 6 / 8)


def test_one_model_agrees_with_itself() -> None:
    timed = time_in_turns([Recorder("A", [], 1)], IMAGES)
    assert len(timed.latencies) == 1
    assert set(timed.agreements) == {1.0}


def test_without_a_frame_to_time_there_is_an_error() -> None:
    with pytest.raises(DataError, match="there must be frames to time after the 5 to warm up"):
        time_in_turns([Recorder("A", [], 1)], IMAGES, warm_up=5)


def test_percentiles_of_a_hundred_and_one_frames_by_hand() -> None:
    latency = Latency()
    for i in range(101):
        latency.add({"only": float(i)})
    total = latency.total()
    assert (total.p50, total.p95, total.p99) == (50, 95, 99)


def test_a_ratio_that_holds_for_every_pair_is_certain_however_much_the_times_vary() -> None:
    base = np.random.default_rng(0).uniform(50, 150, 30)
    ratio = ratio_of_medians((1.5 * base).tolist(), base.tolist())
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_ratio_is_that_of_the_medians_and_its_interval_holds_it() -> None:
    ratio = ratio_of_medians([20, 21, 22, 90, 19], [10, 10, 11, 9, 12])
    assert ratio.value == 2.1
    assert ratio.low <= 2.1 <= ratio.high
    assert ratio.low < ratio.high


def test_the_interval_narrows_with_the_number_of_frames_and_is_the_same_every_time() -> None:
    random = np.random.default_rng(1)

    def times(count: int) -> list[float]:
        return random.normal(100, 10, count).tolist()

    few, many = (ratio_of_medians(times(count), times(count)) for count in (20, 2000))
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert few.low < 1 < few.high
    pairs = times(20), times(20)
    assert ratio_of_medians(*pairs) == ratio_of_medians(*pairs)


@pytest.mark.parametrize(("times", "base"), [([1.0], [1.0, 2.0]), ([], [])])
def test_times_without_partners_are_refused(times: list[float], base: list[float]) -> None:
    with pytest.raises(DataError, match="a ratio needs equally many times of both, got"):
        ratio_of_medians(times, base)
