"""An engine that raises or hangs is rebuilt; after too many rebuilds the worker gives up."""

import threading
import time
from collections.abc import Callable

from camseg_core.errors import ImageError
from camseg_core.runtime.engine import Compilations
from camseg_ros.worker import (
    Frame,
    FrameSlots,
    InferenceWorker,
    Recovery,
    WorkerSession,
    inference_runs,
)

TIMEOUT = 30.0
Act = Callable[[], None]


def raising(error: Exception) -> Act:
    def act() -> None:
        raise error

    return act


class Bench:
    """A worker whose messages are functions to call and whose models are numbers from 0."""

    def __init__(
        self,
        recovery: Recovery,
        load: Callable[[int], None] = lambda number: None,
        cameras: str = "a",
        compiling_s: Callable[[int, float], float] = lambda model, since: 0.0,
    ) -> None:
        self.handled: list[tuple[int, list[str]]] = []
        self.failures: list[tuple[str, str, list[str]]] = []
        self.given_up: list[str] = []
        self.load_attempts = 0
        self._load_one = load
        self.slots: FrameSlots[Act] = FrameSlots(cameras)
        self.worker: InferenceWorker[Act, int] = InferenceWorker(
            self.slots,
            0,
            load=self._load,
            handle=self._handle,
            on_failure=lambda kind, text, frames: self.failures.append(
                (kind, text, [frame.camera for frame in frames])
            ),
            on_give_up=self.given_up.append,
            max_batch=8,
            recovery=lambda: recovery,
            compiling_s=compiling_s,
        )
        self.worker.start()

    def put(self, act: Act, camera: str = "a") -> None:
        self.slots.put(camera, act)

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, (self.handled, self.failures, self.given_up)
            time.sleep(0.002)

    def ask(self, act: Act = lambda: None) -> None:
        """Put a frame in and wait until it is answered, or has failed."""
        before = len(self.handled) + len(self.failures)
        self.put(act)
        self.wait(lambda: len(self.handled) + len(self.failures) > before)

    def _load(self) -> int:
        self.load_attempts += 1
        self._load_one(self.load_attempts)
        return self.load_attempts

    def _handle(self, model: int, frames: list[Frame[Act]], session: WorkerSession) -> int:
        for frame in frames:
            frame.message()
            if not session.over.is_set():
                session.frames.remove(frame)
        if not session.over.is_set():
            self.handled.append((model, [frame.camera for frame in frames]))
        return model


PATIENT = Recovery(timeout=1000.0, rebuilds=3, backoff=0.0)


def test_frames_of_several_cameras_are_handled_together() -> None:
    bench, gate = Bench(PATIENT, cameras="abc"), threading.Event()
    bench.put(lambda: bool(gate.wait(TIMEOUT)))
    bench.wait(lambda: bench.worker._session.busy_since)
    for camera in "bc":
        bench.put(lambda: None, camera)
    gate.set()
    bench.wait(lambda: len(bench.handled) == 2)
    assert bench.handled == [(0, ["a"]), (0, ["b", "c"])]
    assert bench.worker.stop(TIMEOUT)


def test_a_model_that_throws_is_built_again_and_the_next_frame_served() -> None:
    bench = Bench(PATIENT)
    bench.ask()
    bench.ask(raising(RuntimeError("device lost")))
    bench.ask()
    assert bench.failures == [("inference failed", "RuntimeError: device lost", ["a"])]
    assert bench.handled == [(0, ["a"]), (1, ["a"])]
    assert (bench.worker.rebuilds, bench.worker.trouble) == (1, "")
    assert bench.worker.stop(TIMEOUT)


def test_an_error_that_is_the_frames_own_costs_no_rebuild() -> None:
    bench = Bench(PATIENT)
    bench.ask(raising(ImageError("no frame")))
    bench.ask()
    assert bench.failures == [("inference failed", "no frame", ["a"])]
    assert bench.handled == [(0, ["a"])]
    assert bench.worker.rebuilds == 0
    assert bench.worker.stop(TIMEOUT)


def test_a_model_that_hangs_is_left_behind_and_what_it_brings_later_is_not_wanted() -> None:
    bench, gate = Bench(Recovery(timeout=0.05, rebuilds=3, backoff=0.0)), threading.Event()
    bench.put(lambda: bool(gate.wait(TIMEOUT)))
    bench.wait(lambda: bench.worker.check() or bench.failures)
    assert bench.failures == [("inference hung", "inference did not return for 0.05 s", ["a"])]
    bench.ask()
    assert bench.handled == [(1, ["a"])]
    gate.set()
    bench.ask()
    assert bench.handled == [(1, ["a"]), (1, ["a"])]
    assert bench.worker.rebuilds == 1
    assert bench.worker.stop(TIMEOUT)


def test_the_time_of_a_compilation_does_not_count_as_hanging() -> None:
    asked, compilations, gate = list[int](), Compilations(), threading.Event()

    def compiling_s(model: int, since: float) -> float:
        asked.append(model)
        return compilations.seconds_since(since)

    recovery = Recovery(timeout=0.05, rebuilds=3, backoff=0.0)
    bench = Bench(recovery, compiling_s=compiling_s)

    def compile_then_hang() -> None:
        with compilations.compiling("a graph"):
            time.sleep(0.2)
        gate.wait(TIMEOUT)

    bench.put(compile_then_hang)
    bench.wait(lambda: compilations.running)
    while compilations.running:
        bench.worker.check()
    assert set(asked) == {0}
    assert bench.failures == []
    bench.wait(lambda: bench.worker.check() or bench.failures)  # it hangs after the compilation
    assert [kind for kind, *_ in bench.failures] == ["inference hung"]
    gate.set()
    assert bench.worker.stop(TIMEOUT)


def test_after_too_many_rebuilds_consecutive_the_worker_gives_up_and_says_why() -> None:
    bench = Bench(PATIENT)
    for _ in range(4):
        bench.ask(raising(RuntimeError("broken")))
    bench.wait(lambda: bench.given_up)
    assert bench.given_up == ["gave up after 3 consecutive rebuilds: RuntimeError: broken"]
    assert bench.worker.model is None
    assert bench.worker.stop(TIMEOUT)


def test_a_frame_answered_in_between_makes_the_count_begin_again() -> None:
    bench = Bench(PATIENT)
    for _ in range(4):
        bench.ask(raising(RuntimeError("now and then")))
        bench.ask()
    assert bench.given_up == []
    assert bench.worker.rebuilds == 4
    assert bench.worker.stop(TIMEOUT)


def test_a_model_that_cannot_be_loaded_is_tried_again() -> None:
    def load(number: int) -> None:
        if number < 3:
            raise OSError(f"rubbish {number}")

    bench = Bench(PATIENT, load)
    bench.ask(raising(RuntimeError("broken")))
    bench.wait(lambda: bench.worker.rebuilds)
    bench.ask()
    assert bench.handled == [(3, ["a"])]
    assert [text for _, text, _ in bench.failures[1:]] == [
        f"the model cannot be reloaded: rubbish {n}" for n in (1, 2)
    ]
    assert bench.worker.stop(TIMEOUT)


def test_the_pause_before_a_rebuild_ends_when_the_worker_is_stopped() -> None:
    bench = Bench(Recovery(timeout=1000.0, rebuilds=3, backoff=1000.0))
    bench.ask(raising(RuntimeError("first")))
    bench.wait(lambda: bench.worker.rebuilds)  # the first rebuild does not wait
    bench.ask(raising(RuntimeError("second")))
    assert bench.worker.trouble == "RuntimeError: second"
    assert bench.worker.stop(TIMEOUT)
    assert bench.load_attempts == 1


def test_stop_waits_for_the_current_batch_up_to_its_timeout() -> None:
    bench, gate = Bench(PATIENT), threading.Event()
    bench.put(lambda: bool(gate.wait(TIMEOUT)))
    bench.wait(lambda: bench.worker._session.busy_since)
    bench.put(raising(AssertionError("must not be handled")))
    assert not bench.worker.stop(0.01)
    gate.set()
    assert bench.worker.stop(TIMEOUT)
    assert (bench.handled, bench.failures) == ([], [])


def test_frames_that_are_answered_do_not_fail_with_the_rest_of_their_batch() -> None:
    bench, gate = Bench(PATIENT, cameras="abc"), threading.Event()
    bench.put(lambda: bool(gate.wait(TIMEOUT)))
    bench.wait(lambda: bench.worker._session.busy_since)
    bench.put(lambda: None, "b")
    bench.put(raising(RuntimeError("broken")), "c")
    gate.set()
    bench.wait(lambda: bench.failures)
    assert bench.failures == [("inference failed", "RuntimeError: broken", ["c"])]
    assert bench.worker.stop(TIMEOUT)
    assert bench.worker.take_unanswered() == []


def test_the_frames_of_a_stopped_batch_are_given_back_once() -> None:
    bench, gate = Bench(PATIENT, cameras="ab"), threading.Event()
    for camera in "ab":
        bench.slots.put(camera, lambda: bool(gate.wait(TIMEOUT)))
    bench.wait(lambda: bench.worker._session.busy_since)
    assert not bench.worker.stop(0.01)
    taken = [frame.camera for frame in bench.worker.take_unanswered()]
    assert taken in (["a"], ["a", "b"]), "the thread may have taken the first before the second"
    assert bench.worker.take_unanswered() == []
    gate.set()
    assert bench.worker.stop(TIMEOUT)


def test_after_many_failures_the_pause_is_still_one_that_can_be_waited_for() -> None:
    bench = Bench(Recovery(timeout=1000.0, rebuilds=100, backoff=600.0))
    bench.worker._consecutive = 99
    bench.put(raising(RuntimeError("broken")))
    bench.wait(lambda: bench.worker._consecutive == 100)
    bench.worker._thread.join(0.2)
    assert bench.worker._thread.is_alive(), (
        "600 s doubled a hundred times is more than Event.wait takes"
    )
    assert bench.worker.stop(TIMEOUT)


def test_a_thread_that_was_abandoned_counts_as_running_until_it_ends() -> None:
    bench, back = Bench(Recovery(timeout=0.05, rebuilds=3, backoff=0.0)), threading.Event()
    bench.put(lambda: back.wait(TIMEOUT) and None)
    bench.wait(lambda: bench.worker.check() or bench.failures)
    assert bench.worker.stop(TIMEOUT)
    assert inference_runs()
    back.set()
    bench.wait(lambda: not inference_runs())
