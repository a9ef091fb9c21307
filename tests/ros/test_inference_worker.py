"""Freshest frame wins, nobody starves, and nothing ends the worker but `stop`."""

import threading

import pytest

from camseg_ros.inference_worker import Frame, InferenceWorker

TIMEOUT = 30.0


class Bench:
    """A worker whose work can be held up, and what it did."""

    def __init__(self, *cameras: str) -> None:
        self.handled: list[tuple[str, int]] = []
        self.drops: list[str] = []
        self.errors: list[tuple[int, str]] = []
        self.entered, self.go_on, self.progress = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)
        self.worker: InferenceWorker[int] = InferenceWorker(cameras, self._handle, self.drops.append, self._error)
        self.worker.start()

    def put(self, camera: str, number: int) -> None:
        self.worker.put(Frame(camera, number))

    def let(self, count: int) -> None:
        """Let `count` frames through and wait until they are done."""
        for _ in range(count):
            self.go_on.release()
            assert self.progress.acquire(timeout=TIMEOUT)

    def _handle(self, frame: Frame[int]) -> None:
        self.entered.release()
        assert self.go_on.acquire(timeout=TIMEOUT)
        try:
            if frame.message < 0:
                raise ValueError(f"bad {frame.message}")
            self.handled.append((frame.camera, frame.message))
        finally:
            if frame.message >= 0:
                self.progress.release()

    def _error(self, frame: Frame[int], error: Exception) -> None:
        self.errors.append((frame.message, str(error)))
        self.progress.release()


def test_the_freshest_frame_wins_and_the_others_are_counted() -> None:
    bench = Bench("a")
    bench.put("a", 1)
    assert bench.entered.acquire(timeout=TIMEOUT)
    for number in (2, 3, 4):
        bench.put("a", number)
    bench.let(2)
    assert bench.handled == [("a", 1), ("a", 4)]
    assert bench.drops == ["a", "a"]
    assert bench.worker.stop(TIMEOUT)


def test_cameras_take_turns() -> None:
    bench = Bench("a", "b", "c")
    bench.put("a", 1)
    assert bench.entered.acquire(timeout=TIMEOUT)
    for camera in "cba":
        bench.put(camera, 2)
    bench.let(1)
    bench.put("a", 3)  # a fast camera must not get ahead of those that wait
    bench.let(3)
    assert [camera for camera, _ in bench.handled] == ["a", "b", "c", "a"]
    assert bench.drops == ["a"]
    assert bench.worker.stop(TIMEOUT)


def test_an_error_is_told_and_the_next_frame_served() -> None:
    bench = Bench("a")
    bench.put("a", -7)
    bench.let(1)
    bench.put("a", 8)
    bench.let(1)
    assert bench.errors == [(-7, "bad -7")]
    assert bench.handled == [("a", 8)]
    assert bench.worker.stop(TIMEOUT)


def test_stop_drops_what_waits_and_waits_for_what_is_in_work() -> None:
    bench = Bench("a")
    bench.put("a", 1)
    assert bench.entered.acquire(timeout=TIMEOUT)
    bench.put("a", 2)
    assert not bench.worker.stop(0.01)  # still held up
    assert bench.worker.stopping
    bench.let(1)
    assert bench.worker.stop(TIMEOUT)
    assert bench.handled == [("a", 1)]


def test_a_worker_that_was_never_started_stops_at_once() -> None:
    worker: InferenceWorker[int] = InferenceWorker(["a"], pytest.fail, pytest.fail, lambda frame, error: None)
    assert worker.stop(0.0)
