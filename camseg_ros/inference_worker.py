"""Freshest frame wins: one slot per camera and one thread that works on what lies in the slots."""

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


class InferenceWorker(Generic[Message]):
    """Takes frames from any thread, keeps only the newest of each camera, and handles them one after another in its own thread.

    `handle` gets every frame that was not replaced by a fresher one; the cameras take turns. If it raises, `on_error` is
    told and the worker goes on with the next frame. `on_drop` gets the name of the camera whose frame was replaced; it is
    called from the thread that put the fresher one.
    """

    def __init__(
        self,
        cameras: Iterable[str],
        handle: Callable[[Frame[Message]], None],
        on_drop: Callable[[str], None],
        on_error: Callable[[Frame[Message], Exception], None],
    ) -> None:
        self._slots: dict[str, Frame[Message] | None] = dict.fromkeys(cameras)
        self._handle, self._on_drop, self._on_error = handle, on_drop, on_error
        self._changed = threading.Condition()
        self._stopping = False
        # A daemon, so that inference that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called: what is being worked on is not wanted any more."""
        return self._stopping

    def start(self) -> None:
        """Start the thread. A worker is started once; after `stop`, make a new one."""
        self._thread.start()

    def put(self, frame: Frame[Message]) -> None:
        """Leave `frame` in its camera's slot, in place of an older one still there. Returns at once."""
        with self._changed:
            replaced = self._slots[frame.camera] is not None
            self._slots[frame.camera] = frame
            self._changed.notify()
        if replaced:
            self._on_drop(frame.camera)

    def stop(self, timeout: float) -> bool:
        """Drop what is waiting, and wait up to `timeout` seconds for the frame in work. False if it is still in work then."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (frame := self._next()) is not None:
            try:
                self._handle(frame)
            except Exception as error:  # one bad frame must not end the stream
                self._on_error(frame, error)

    def _next(self) -> Frame[Message] | None:
        """Wait for a frame and take it; None when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or any(self._slots.values()))
            if self._stopping:
                return None
            camera, frame = next((camera, frame) for camera, frame in self._slots.items() if frame is not None)
            # To the end of the line, so that a fast camera cannot starve the others.
            del self._slots[camera]
            self._slots[camera] = None
            return frame
