"""Ending a training on request between two steps, so that its state is saved and nothing is lost."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

_WORDS = {signal.SIGINT: "SIGINT, as from Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopRequest:
    """Listens, inside `with`, for a wish to stop: SIGINT or SIGTERM, or a file named `stop` in the run's folder.

    Once there is such a wish, SIGINT acts as it would have without this class: at once. A signal that the process ignores (as under
    nohup) stays ignored. Signals are heard in the main thread only, as Python has it; elsewhere the file still works. A `stop` file
    left over from before is removed at the start.
    """

    def __init__(self, run: Path) -> None:
        self._file = run / "stop"
        self._reason: str | None = None
        self._told = False
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in _WORDS:
                previous = signal.getsignal(number)
                if previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self._previous):
            self._restore(number)

    @property
    def requested(self) -> str | None:
        """Why to stop, or None; once there is a reason it stays."""
        if self._reason is None and self._file.is_file():
            self._reason = f"the file {self._file}"
        if (
            self._reason is not None and not self._told
        ):  # told here: a signal handler may interrupt anything, such as another log line
            self._told = True
            self._restore(signal.SIGINT)
            logger.info(
                "asked to stop by %s: ending after this step; Ctrl-C now stops at once, without saving",
                self._reason,
            )
        return self._reason

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._reason = self._reason or _WORDS[signal.Signals(number)]
        self._restore(signal.SIGINT)

    def _restore(self, number: signal.Signals) -> None:
        if number in self._previous:
            previous = self._previous.pop(number)
            signal.signal(
                number, signal.SIG_DFL if previous is None else previous
            )  # None: it was installed by C code
