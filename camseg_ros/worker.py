"""The inference thread and its watchdog: takes the freshest frames, rebuilds failed engines."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from camseg_core.errors import CamSegError

Message = TypeVar("Message")
Model = TypeVar("Model")

THREAD = "inference"
"""Name of the threads of all workers."""

MAX_BACKOFF_S = 3600.0
"""Upper limit of the doubling backoff; Python cannot wait for a hundred doublings."""

Failure = Literal["inference failed", "inference hung"]


@dataclass(frozen=True)
class Frame(Generic[Message]):
    """A message of one camera and its arrival time (`time.monotonic`, seconds)."""

    camera: str
    message: Message
    received: float


class FrameSlots(Generic[Message]):
    """One slot per camera; a newer frame replaces an older one that still waits. Thread-safe."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self._slots: dict[str, Frame[Message] | None] = dict.fromkeys(cameras)
        self._changed = threading.Condition()

    def put(self, camera: str, message: Message) -> bool:
        """Store a message that has just arrived; True if it replaced an older one."""
        frame = Frame(camera, message, time.monotonic())
        with self._changed:
            replaced = self._slots[camera] is not None
            self._slots[camera] = frame
            self._changed.notify_all()
        return replaced

    def take(self, limit: int, stop: threading.Event) -> list[Frame[Message]]:
        """Wait for frames; return up to `limit`, one per camera, or none once `stop` is set."""
        with self._changed:
            while not stop.is_set() and not any(self._slots.values()):
                self._changed.wait()
            if stop.is_set():
                return []
            taken = [frame for frame in self._slots.values() if frame is not None][:limit]
            for frame in taken:
                # to the end of the queue, so that a fast camera cannot starve the others
                del self._slots[frame.camera]
                self._slots[frame.camera] = None
            return taken

    def clear(self) -> list[Frame[Message]]:
        """Empty the slots and return the frames that waited."""
        with self._changed:
            taken = [frame for frame in self._slots.values() if frame is not None]
            self._slots = dict.fromkeys(self._slots)
            return taken

    def wake(self) -> None:
        """Make every `take` check its `stop` again."""
        with self._changed:
            self._changed.notify_all()


@dataclass(frozen=True)
class Recovery:
    """How to handle an engine that fails; times in seconds."""

    timeout: float
    """Longest time for one batch, without compiling; inference that takes longer counts as hung."""
    rebuilds: int
    """Consecutive rebuilds without an answered frame after which the worker gives up."""
    backoff: float
    """Pause before the second consecutive rebuild; doubles up to `MAX_BACKOFF_S`."""


def inference_runs() -> bool:
    """Return whether a thread of any worker is alive, also one that was abandoned as hung.

    Python must not be finalised then: the engine's own threads would abort the process.
    """
    return any(thread.name == THREAD for thread in threading.enumerate())


class WorkerSession:
    """The lifetime of one inference thread.

    Attributes:
        over: set when the thread is stopped or abandoned.
        busy_since: when it began its batch (`time.monotonic`); None between batches.
        frames: those of its batch that are not answered or refused yet, in order.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self.busy_since: float | None = None
        self.frames: list[Frame] = []  # type: ignore[type-arg]


Handle = Callable[[Model, list[Frame[Message]], WorkerSession], Model | None]
"""Answers frames with the model unless the session ends meanwhile, and removes those that it has
answered or refused from the session's `frames`. Returns the model to continue
with, which may be another one with other settings, or None if the model was not used and nothing is
known about its state."""


class InferenceWorker(Generic[Message, Model]):
    """Processes the freshest frames of all cameras with a model, in its own thread.

    If the model raises, the same thread rebuilds it. If it hangs, the thread is abandoned, since
    Python cannot kill a thread; a new thread builds a new model, and late results of the old one
    are discarded.

    Args:
        slots: where frames wait.
        model: the loaded model.
        load: loads the model again; an exception counts as a failed rebuild.
        handle: processes a batch. A `CamSegError` blames the frames and causes no rebuild.
        on_failure: receives the kind of failure, its text and the unanswered frames.
        on_give_up: receives the text of the last failure, once; the worker has then ended.
        max_batch: most frames in a batch.
        together: whether a model takes several frames at once; else they come one by one.
        recovery: returns the current settings; called each time, so they may change.
        compiling_s: returns the seconds that a model spent compiling since a moment
            (`time.monotonic`); they do not count as hanging.

    Attributes:
        rebuilds: number of successful rebuilds.
        trouble: why no model is available at the moment; empty if one is.
    """

    def __init__(
        self,
        slots: FrameSlots[Message],
        model: Model,
        load: Callable[[], Model],
        handle: Handle[Model, Message],
        on_failure: Callable[[Failure, str, list[Frame[Message]]], None],
        on_give_up: Callable[[str], None],
        max_batch: int,
        recovery: Callable[[], Recovery],
        compiling_s: Callable[[Model, float], float] = lambda *_: 0.0,
        together: Callable[[Model], bool] = lambda _: True,
    ) -> None:
        self._together = together
        self._slots, self._max_batch, self._compiling_s = slots, max_batch, compiling_s
        self._load, self._handle, self._recovery = load, handle, recovery
        self._on_failure, self._on_give_up = on_failure, on_give_up
        self._model: Model | None = model
        self._consecutive = 0
        self._lock = threading.Lock()
        self.rebuilds, self.trouble = 0, ""
        self._new_session()

    @property
    def model(self) -> Model | None:
        """The model in use; None during a rebuild and after giving up."""
        return self._model

    def start(self) -> None:
        """Start the thread, once. After `stop`, create a new worker."""
        self._thread.start()

    def check(self) -> None:
        """Watchdog: abandon a hung thread and start another. Call it regularly."""
        with self._lock:
            session, timeout = self._session, self._recovery().timeout
            since, model = session.busy_since, self._model
            if session.over.is_set() or since is None or model is None:
                return
            if time.monotonic() - since - self._compiling_s(model, since) <= timeout:
                return
            session.over.set()
            self._model, self.trouble = None, f"inference did not return for {timeout:g} s"
            self._new_session()
        self._on_failure("inference hung", self.trouble, [*session.frames])
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Stop; False if the batch in progress has not ended after `timeout` seconds."""
        with self._lock:
            self._session.over.set()
        self._slots.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def take_unanswered(self) -> list[Frame[Message]]:
        """Return the frames of the batch that `stop` ended; none the next time."""
        with self._lock:
            frames, self._session.frames = self._session.frames, []
        return frames

    def _new_session(self) -> None:
        self._session = WorkerSession()
        # a daemon, so that hung inference cannot keep the process alive
        self._thread = threading.Thread(
            target=self._run, args=(self._session,), name=THREAD, daemon=True
        )

    def _run(self, session: WorkerSession) -> None:
        while not session.over.is_set():
            model = self._model if self._model is not None else self._rebuild(session)
            if model is None:
                return
            most = self._max_batch if self._together(model) else 1  # none waits for another
            frames = self._slots.take(most, session.over)
            if not frames:
                return
            session.frames, session.busy_since = list(frames), time.monotonic()
            used, failure, broken = None, "", False
            try:
                used = self._handle(model, frames, session)
            except CamSegError as error:
                failure = str(error)
            except Exception as error:  # an engine may raise anything; the stream must go on
                failure, broken = f"{type(error).__name__}: {error}", True
            with self._lock:
                if session.over.is_set():  # `take_unanswered` or the watchdog has the frames
                    return
                unanswered, session.frames, session.busy_since = session.frames, [], None
                if used is not None:
                    self._model, self._consecutive = used, 0
                if broken:
                    self._model, self.trouble = None, failure
            if failure:
                self._on_failure("inference failed", failure, unanswered)

    def _rebuild(self, session: WorkerSession) -> Model | None:
        """Load the model again, with backoff; None if the session ends or rebuilds run out."""
        while not session.over.is_set():
            recovery, done = self._recovery(), self._consecutive
            if done >= recovery.rebuilds:
                session.over.set()
                count = f"{done} consecutive rebuild{'s' * (done != 1)}"
                self._on_give_up(f"gave up after {count}: {self.trouble}")
                return None
            self._consecutive += 1
            pause = min(recovery.backoff * 2 ** (done - 1), MAX_BACKOFF_S) if done else 0.0
            if session.over.wait(pause):
                return None
            try:
                model = self._load()
            except Exception as error:  # such as a damaged file or a missing device
                self.trouble = f"the model cannot be reloaded: {error}"
                self._on_failure("inference failed", self.trouble, [])
                continue
            with self._lock:
                if session.over.is_set():
                    return None
                self._model, self.trouble, self.rebuilds = model, "", self.rebuilds + 1
            return model
        return None
