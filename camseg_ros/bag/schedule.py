"""Decides which images of a bag to send when, and reads them ahead of time."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from camseg_core.errors import DataError
from camseg_ros.bag.read import WHOLE, BagImage, ImageBag, TimeRange

T = TypeVar("T")

MAX_GAP_S = 2.0
"""Longer pauses of the recording are shortened to this."""

MIN_GAP_SHARE = 0.9
"""After a delay, the smallest gap between two images as a share of their planned gap."""


@dataclass(frozen=True)
class BagInput:
    """The images of one topic of a bag, within a time range.

    Attributes:
        path: the bag.
        within: the time range.
        topic: the image topic.
        compressed: whether it holds `CompressedImage` messages.
        frames: number of images.
        sha256: hash of the serialized messages in recorded order.
        size: width and height of the first image whose header is readable; None if no image's is.
        largest_bytes: size of the largest message.
        recorded_hz: mean recorded rate; None if all images were recorded at the same time.
        repeated: index of the first image whose stamp and frame_id occurred before; None if unique.
    """

    path: Path
    within: TimeRange
    topic: str
    compressed: bool
    frames: int
    sha256: str
    size: tuple[int, int] | None
    largest_bytes: int
    recorded_hz: float | None
    repeated: int | None


def read_input(path: Path, topic: str | None = None, within: TimeRange = WHOLE) -> BagInput:
    """Read all images once, one at a time.

    Raises:
        DataError: the bag is damaged, or has no images in the time range.
    """
    digest, size, largest, repeated, frames = hashlib.sha256(), None, 0, None, 0
    seen: set[tuple[int, str]] = set()
    first_ns = last_ns = 0
    with ImageBag(path, topic) as bag:
        for image in bag.images(within):
            digest.update(image.cdr)
            size = size or image.size
            largest = max(largest, len(image.cdr))
            key = image.stamp_ns, image.frame_id
            if repeated is None and key in seen:
                repeated = image.index
            seen.add(key)
            first_ns, last_ns = first_ns or image.recorded_ns, image.recorded_ns
            frames += 1
        if not frames:
            where = f"the bag {path}" if within == WHOLE else f"this time range of the bag {path}"
            raise DataError(
                f"no images on {bag.topic} in {where}; record it again while the camera runs, "
                "or choose another time range"
            )
        span_s = (last_ns - first_ns) / 1e9
        recorded_hz = (frames - 1) / span_s if span_s > 0 else None
        found = path, within, bag.topic, bag.compressed, frames, digest.hexdigest()
        return BagInput(*found, size, largest, recorded_hz, repeated)


@dataclass(frozen=True)
class ScheduledImage:
    """An image and when to send it, in s after the first one."""

    due_s: float
    image: BagImage


def check_rate(bag: BagInput, rate_hz: float | None, seconds: float | None) -> None:
    """Raise DataError if the recorded rate is needed but unknown."""
    if rate_hz is None and bag.recorded_hz is None and (bag.frames > 1 or seconds is not None):
        raise DataError(
            f"the images of {bag.path} were all recorded at one time, so their rate is unknown; "
            "give a rate"
        )


def schedule(
    bag: BagInput, rate_hz: float | None, seconds: float | None
) -> Iterator[ScheduledImage]:
    """Yield the images of a bag and when they are due.

    Opens the bag in the thread that asks for the first image: SQLite ties a file to its thread.

    Args:
        bag: what to play.
        rate_hz: images per second; None for the recorded times, with pauses cut to `MAX_GAP_S`.
        seconds: stop after this time, repeating a shorter bag; None plays it once.

    Raises:
        DataError: the bag is damaged, or its recorded rate is needed but unknown.
    """
    check_rate(bag, rate_hz, seconds)
    rate_at_end = rate_hz or bag.recorded_hz
    with ImageBag(bag.path, bag.topic) as images:
        due, number = 0.0, 0
        while True:
            recorded_ns = None
            for image in images.images(bag.within):
                if rate_hz is not None:
                    due = number / rate_hz
                elif recorded_ns is not None:
                    due += min(max((image.recorded_ns - recorded_ns) / 1e9, 0.0), MAX_GAP_S)
                elif number and rate_at_end is not None:
                    due += min(1 / rate_at_end, MAX_GAP_S)
                if seconds is not None and due >= seconds:
                    return
                yield ScheduledImage(due, image)
                recorded_ns, number = image.recorded_ns, number + 1
            if seconds is None or not number:
                return


class Pace:
    """Decides when to send the next image. A delay longer than one gap is not made up for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start: float | None = None
        self._due = self._sent = 0.0
        self.worst_delay_s = 0.0
        """How much too late an image was sent, at most."""

    def moment(self, due: float) -> float:
        """Return when to send the image due `due` seconds after the first, on the clock."""
        now = self._clock()
        if self._start is None:
            self._start = now - due
            return now
        gap = due - self._due
        if now > self._start + due + gap:
            self.worst_delay_s = max(self.worst_delay_s, now - self._start - due)
            self._start = now - due
        return max(self._start + due, self._sent + MIN_GAP_SHARE * gap)

    def sent(self, due: float, moment: float) -> None:
        """Record when the image due at `due` was sent."""
        if self._start is not None:
            self.worst_delay_s = max(self.worst_delay_s, moment - self._start - due)
        self._due, self._sent = due, moment


@contextmanager
def read_ahead(items: Iterator[T], size: int) -> Iterator[Iterator[T]]:
    """Give the items of an iterator, up to `size` of them read ahead in a thread of its own.

    Enters when `size` items are read. Iterating raises what the iterator raised, in its place.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        ahead = deque(reader.submit(next, items, end) for _ in range(size))

        def read() -> Iterator[T]:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(reader.submit(next, items, end))
                yield item  # type: ignore[misc]

        try:
            wait(ahead)
            yield read()
        finally:
            for future in ahead:
                future.cancel()
            reader.submit(getattr(items, "close", lambda: None)).result()
