"""A request to stop a long run between two steps, so that its state is saved first."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

_WORDS = {signal.SIGINT: "SIGINT, as from Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopRequest:
    """Notices, inside `with`, SIGINT, SIGTERM or a file named `stop` in the run's folder.

    After a request, SIGINT has its previous effect again. A signal that the process ignores (as
    under nohup) stays ignored. Python handles signals in the main thread only; in other threads
    only the file works. An old `stop` file is removed at the start.
    """

    def __init__(self, run: Path) -> None:
        self._file = run / "stop"
        self._reason: str | None = None
        self._logged = False
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in _WORDS:
                previous = signal.getsignal(number)
                if previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
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
        """The reason to stop, or None. The first reason stays."""
        if self._reason is None and self._file.is_file():
            self._reason = f"the file {self._file}"
        if self._reason is not None and not self._logged:
            # not in the signal handler, which may interrupt another log line
            self._logged = True
            self._restore(signal.SIGINT)
            logger.info(
                "asked to stop by %s: stopping after this step; Ctrl-C now stops at once, unsaved",
                self._reason,
            )
        return self._reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._reason = self._reason or _WORDS[signal.Signals(number)]
        self._restore(signal.SIGINT)

    def _restore(self, number: signal.Signals) -> None:
        if number in self._previous:
            previous = self._previous.pop(number)
            # None: the previous handler was installed by C code
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
