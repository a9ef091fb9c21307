"""Freshest frame wins, and nobody starves."""

import threading

from camseg_ros.frame_slots import Frame, FrameSlots


def never() -> bool:
    return False


def numbers(frames: list[Frame[int]]) -> list[tuple[str, int]]:
    return [(frame.camera, frame.message) for frame in frames]


def test_the_freshest_frame_wins_and_the_others_are_told() -> None:
    replaced: list[Frame[int]] = []
    slots: FrameSlots[int] = FrameSlots(["a"], replaced.append)
    for number in (1, 2, 3):
        slots.put(Frame("a", number))
    assert numbers(slots.take(8, never)) == [("a", 3)]
    assert numbers(replaced) == [("a", 1), ("a", 2)]


def test_all_cameras_that_wait_are_taken_together_and_no_more_than_asked_for() -> None:
    slots: FrameSlots[int] = FrameSlots(["a", "b", "c"], lambda frame: None)
    for camera in "cab":
        slots.put(Frame(camera, 1))
    assert numbers(slots.take(2, never)) == [("a", 1), ("b", 1)]
    slots.put(Frame("a", 2))
    assert numbers(slots.take(2, never)) == [("c", 1), ("a", 2)], (
        "a fast camera must not get ahead of those that wait"
    )


def test_taking_waits_for_a_frame_and_ends_when_told_to() -> None:
    slots: FrameSlots[int] = FrameSlots(["a"], lambda frame: None)
    taken: list[list[Frame[int]]] = []
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            taken.append(slots.take(1, stop.is_set))

    thread = threading.Thread(target=take)
    thread.start()
    slots.put(Frame("a", 5))
    while not taken:
        thread.join(0.01)
    stop.set()
    slots.wake()
    thread.join(30)
    assert not thread.is_alive()
    assert [numbers(each) for each in taken] == [[("a", 5)], []]


def test_clearing_takes_what_waits() -> None:
    slots: FrameSlots[int] = FrameSlots(["a", "b"], lambda frame: None)
    assert slots.clear() == []
    slots.put(Frame("b", 1))
    assert numbers(slots.clear()) == [("b", 1)]
    assert slots.clear() == []
