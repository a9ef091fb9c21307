"""Reads ahead in a thread of its own, by a bounded number of items."""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

WAIT_S = 0.1


class _End:
    """The last thing in the queue; with the error that ended the reading, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class ReadAhead(Generic[Item]):
    """The items of an iterator, up to `size` of them read ahead. A context manager; the iterator runs in its thread alone."""

    def __init__(self, items: Iterator[Item], size: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(size)
        self._full, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> "ReadAhead[Item]":
        """Begin to read, and return when as much is read as there is room for."""
        self._thread.start()
        self._full.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        """The items, in order; raises what the iterator raised."""
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            end = _End()
        except BaseException as error:  # raised again where the items are wanted
            end = _End(error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._put(end)
        self._full.set()

    def _put(self, item: Item | _End) -> bool:
        """Wait for room; False where nobody wants the items any more."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=WAIT_S)
                if self._queue.full():
                    self._full.set()
                return True
            except queue.Full:
                self._full.set()
        return False
