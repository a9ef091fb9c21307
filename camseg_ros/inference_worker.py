"""The thread that works with the model, and its watchdog: inference that throws or hangs costs an engine, not the node."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from camseg_core.errors import CamSegError
from camseg_ros.frame_slots import Frame, FrameSlots, Message

Model = TypeVar("Model")

LONGEST_PAUSE_S = 3600.0
"""Doubled a hundred times, a pause would be longer than Python can wait for."""

Failure = Literal["inference failed", "inference hung"]


@dataclass(frozen=True)
class Recovery:
    """What is done about an engine that fails; times in seconds."""

    timeout: float
    """Of work on one batch, after which it counts as hung."""
    rebuilds: int
    """In a row, without a frame answered between them; after so many the worker gives up."""
    backoff: float
    """Before the second rebuild in a row; it doubles with each further one, up to `LONGEST_PAUSE_S`."""


class Turn:
    """One thread's time with the model: `over` once it was stopped, or given up as hung."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.busy_since: float | None = None
        self.frames: list[Frame] = []  # type: ignore[type-arg]


Handle = Callable[[Model, list[Frame[Message]], Turn], Model | None]
"""Answers frames with the model, unless the turn is over meanwhile. Gives the model to go on with, the same or another with other
settings; None if it was not used, so that nothing is known of whether it works."""


class InferenceWorker(Generic[Message, Model]):
    """Handles the freshest frames of all cameras with a model, in a thread of its own.

    A model that throws is built again by the same thread. One that hangs is left behind with its thread, since Python cannot end a
    thread, and a new thread builds a new model; what the old thread still brings is not wanted any more.

    Args:
        slots: where the frames wait.
        model: loaded.
        load: makes the model again; what it raises counts as a failed rebuild.
        handle: works on a batch. A `CamSegError` is the frames' fault and costs no rebuild.
        on_failure: gets the kind of failure, its text and the frames that got no answer.
        on_give_up: gets the last failure's text, once; the worker has ended by itself then.
        most: frames in a batch.
        recovery: asked anew each time, so that it may change.

    Attributes:
        rebuilds: models built again so far.
        trouble: what is wrong while no model serves; empty while one does.
    """

    def __init__(
        self,
        slots: FrameSlots[Message],
        model: Model,
        load: Callable[[], Model],
        handle: Handle[Model, Message],
        on_failure: Callable[[Failure, str, list[Frame[Message]]], None],
        on_give_up: Callable[[str], None],
        most: int,
        recovery: Callable[[], Recovery],
    ) -> None:
        self._slots, self._load, self._handle, self._most, self._recovery = (
            slots,
            load,
            handle,
            most,
            recovery,
        )
        self._on_failure, self._on_give_up = on_failure, on_give_up
        self._model: Model | None = model
        self._in_a_row = 0
        self._lock = threading.Lock()
        self.rebuilds, self.trouble = 0, ""
        self._begin_turn()

    @property
    def model(self) -> Model | None:
        """The one that serves; None while it is built again, and after giving up."""
        return self._model

    def start(self) -> None:
        """Start the thread. A worker is started once; after `stop`, make a new one."""
        self._thread.start()

    def check(self) -> None:
        """Give up a thread that hangs, and start another. To be called now and then, from another thread."""
        with self._lock:
            turn, timeout = self._turn, self._recovery().timeout
            since = turn.busy_since
            if turn.over.is_set() or since is None or time.monotonic() - since <= timeout:
                return
            turn.over.set()
            self._model, self.trouble = None, f"inference did not return for {timeout:g} s"
            self._begin_turn()
        self._on_failure("inference hung", self.trouble, turn.frames)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the frames in work. False if they are still in work then."""
        with self._lock:
            self._turn.over.set()
        self._slots.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _begin_turn(self) -> None:
        self._turn = Turn()
        # A daemon, so that inference that hangs cannot keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, args=(self._turn,), name="inference", daemon=True
        )

    def _run(self, turn: Turn) -> None:
        while not turn.over.is_set():
            model = self._model if self._model is not None else self._rebuild(turn)
            if model is None:
                return
            frames = self._slots.take(self._most, turn.over.is_set)
            if frames:
                self._work(model, frames, turn)

    def _work(self, model: Model, frames: list[Frame[Message]], turn: Turn) -> None:
        turn.frames, turn.busy_since = frames, time.monotonic()
        used, failure, broken = None, "", False
        try:
            used = self._handle(model, frames, turn)
        except CamSegError as error:
            failure = str(error)
        except Exception as error:  # whatever an engine raises must not end the stream
            failure, broken = f"{type(error).__name__}: {error}", True
        with self._lock:
            turn.busy_since, turn.frames = None, []
            if turn.over.is_set():
                return
            if used is not None:
                self._model, self._in_a_row = used, 0
            if broken:
                self._model, self.trouble = None, failure
        if failure:
            self._on_failure("inference failed", failure, frames)

    def _rebuild(self, turn: Turn) -> Model | None:
        """Build the model again, with pauses; None when the turn is over or too many rebuilds in a row did not help."""
        while not turn.over.is_set():
            recovery, done = self._recovery(), self._in_a_row
            if done >= recovery.rebuilds:
                turn.over.set()
                self._on_give_up(
                    f"gave up after {done} rebuild{'s' * (done != 1)} in a row: {self.trouble}"
                )
                return None
            self._in_a_row += 1
            if turn.over.wait(
                min(recovery.backoff * 2 ** (done - 1), LONGEST_PAUSE_S) if done else 0.0
            ):
                return None
            try:
                model = self._load()
            except Exception as error:  # a damaged file, a device that is gone
                self.trouble = f"the model cannot be loaded again: {error}"
                self._on_failure("inference failed", self.trouble, [])
                continue
            with self._lock:
                if turn.over.is_set():
                    return None
                self._model, self.trouble, self.rebuilds = model, "", self.rebuilds + 1
            return model
        return None
