"""A heartbeat in a thread of its own, so that the node is watched, and reports, whatever its other threads are stuck in."""

import threading
from collections.abc import Callable


class Monitor(threading.Thread):
    """Calls `beat` every `period()` seconds until `stop`.

    A beat that raises is handed to `on_error` and does not end the others.
    """

    def __init__(self, period: Callable[[], float], beat: Callable[[], None], on_error: Callable[[Exception], None]) -> None:
        super().__init__(name="monitor", daemon=True)
        self._period, self._beat, self._on_error = period, beat, on_error
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._period()):
            try:
                self._beat()
            except Exception as error:  # a watchdog that dies of what it watches is none
                self._on_error(error)

    def stop(self, timeout: float) -> None:
        """End, after the beat that runs now, for which up to `timeout` seconds are waited."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout)
