"""Warnings that come with every frame, said now and then."""

import threading
import time
from typing import Protocol

PERIOD_S = 5.0
"""The same kind of trouble is logged once in so many seconds; `/diagnostics` has every one in its counts."""


class Logger(Protocol):
    """What is needed of a logger."""

    def warning(self, message: str) -> object: ...


class ThrottledLog:
    """Warns of each kind of trouble once in a while. May be called from any thread."""

    def __init__(self, logger: Logger) -> None:
        self._logger, self._lock = logger, threading.Lock()
        self._said: dict[str, float] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log `text`, unless a text of the same `kind` was logged just before."""
        now = time.monotonic()
        with self._lock:
            # kinds may name what comes from outside: those said long ago are forgotten, or they would be more and more
            self._said = {said: when for said, when in self._said.items() if now - when < PERIOD_S}
            if kind in self._said:
                return
            self._said[kind] = now
        self._logger.warning(text)
