"""Freshest frame wins: one slot per camera, which a newer frame takes over."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Message = TypeVar("Message")


@dataclass(frozen=True)
class Frame(Generic[Message]):
    """A message of one camera and when it came (`time.monotonic`, seconds)."""

    camera: str
    message: Message
    received: float = field(default_factory=time.monotonic)


class FrameSlots(Generic[Message]):
    """What waits to be worked on. Every method may be called from any thread.

    Args:
        cameras: their names.
        on_replaced: gets the frame whose place a fresher one took; called in the thread that put the fresher one.
    """

    def __init__(
        self, cameras: Iterable[str], on_replaced: Callable[[Frame[Message]], None]
    ) -> None:
        self._slots: dict[str, Frame[Message] | None] = dict.fromkeys(cameras)
        self._on_replaced = on_replaced
        self._changed = threading.Condition()

    def put(self, frame: Frame[Message]) -> None:
        """Leave `frame` in its camera's slot, in place of an older one still there. Returns at once."""
        with self._changed:
            replaced = self._slots[frame.camera]
            self._slots[frame.camera] = frame
            self._changed.notify_all()
        if replaced is not None:
            self._on_replaced(replaced)

    def take(self, most: int, stopping: Callable[[], bool]) -> list[Frame[Message]]:
        """Wait for frames and take up to `most`, of as many cameras; none when `stopping`, which is asked again at every `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: stopping() or any(self._slots.values()))
            if stopping():
                return []
            taken = [frame for frame in self._slots.values() if frame is not None][:most]
            for frame in taken:
                # To the end of the line, so that a fast camera cannot starve the others.
                del self._slots[frame.camera]
                self._slots[frame.camera] = None
            return taken

    def clear(self) -> list[Frame[Message]]:
        """Take all that waits, without waiting for anything."""
        with self._changed:
            taken = [frame for frame in self._slots.values() if frame is not None]
            self._slots = dict.fromkeys(self._slots)
            return taken

    def wake(self) -> None:
        """Make every `take` look at its `stopping` again."""
        with self._changed:
            self._changed.notify_all()
