"""Freshest frame wins, and nobody starves."""

import threading
import time

from camseg_ros.worker import Frame, FrameSlots

NEVER = threading.Event()


def numbers(frames: list[Frame[int]]) -> list[tuple[str, int]]:
    return [(frame.camera, frame.message) for frame in frames]


def test_the_freshest_frame_wins_and_the_replaced_ones_are_reported() -> None:
    slots: FrameSlots[int] = FrameSlots(["a", "b"])
    assert [slots.put("a", number) for number in (1, 2, 3)] == [False, True, True]
    assert not slots.put("b", 4)
    assert numbers(slots.take(8, NEVER)) == [("a", 3), ("b", 4)]
    assert not slots.put("a", 5), "the slot was empty again"


def test_a_frame_knows_when_it_arrived() -> None:
    slots: FrameSlots[int] = FrameSlots(["a"])
    before = time.monotonic()
    slots.put("a", 1)
    after = time.monotonic()
    (frame,) = slots.take(1, NEVER)
    assert before <= frame.received <= after


def test_waiting_cameras_are_taken_together_up_to_the_limit() -> None:
    slots: FrameSlots[int] = FrameSlots(["a", "b", "c"])
    for camera in "cab":
        slots.put(camera, 1)
    assert numbers(slots.take(2, NEVER)) == [("a", 1), ("b", 1)]
    slots.put("a", 2)
    assert numbers(slots.take(2, NEVER)) == [("c", 1), ("a", 2)], (
        "a fast camera must not overtake waiting ones"
    )


def test_taking_waits_for_a_frame_and_ends_when_stopped() -> None:
    slots: FrameSlots[int] = FrameSlots(["a"])
    taken: list[list[Frame[int]]] = []
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            taken.append(slots.take(1, stop))

    thread = threading.Thread(target=take)
    thread.start()
    slots.put("a", 5)
    while not taken:
        thread.join(0.01)
    stop.set()
    slots.wake()
    thread.join(30)
    assert not thread.is_alive()
    assert [numbers(each) for each in taken] == [[("a", 5)], []]


def test_clearing_returns_the_waiting_frames() -> None:
    slots: FrameSlots[int] = FrameSlots(["a", "b"])
    assert slots.clear() == []
    slots.put("b", 1)
    assert numbers(slots.clear()) == [("b", 1)]
    assert slots.clear() == []
