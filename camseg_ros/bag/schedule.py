"""When the images of a bag are due, and the pace that keeps to it without ever sending two in a bunch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from camseg_core.errors import DataError
from camseg_ros.bag.input import BagInput
from camseg_ros.bag.read import BagImage, ImageBag

LONGEST_GAP_S = 2.0
"""A longer pause in the recording is shortened to this, in s."""

CLOSEST = 0.9
"""After a delay two images come no closer than this share of the time that was meant to be between them."""


@dataclass(frozen=True)
class Due:
    """An image and when to send it, in s from the first one's."""

    seconds: float
    image: BagImage


def check_rate(bag: BagInput, rate_hz: float | None, seconds: float | None) -> None:
    """Raises DataError where the images are to be played as recorded, but were recorded all at once."""
    if rate_hz is None and bag.recorded_hz is None and (bag.frames > 1 or seconds is not None):
        raise DataError(f"the rate at which the images of {bag.path} were recorded cannot be told; give the rate to play them at")


def schedule(bag: BagInput, rate_hz: float | None, seconds: float | None) -> Iterator[Due]:
    """The images of a bag and when they are due.

    The bag is opened here, hence in the thread that asks for the first image: SQLite ties a file to its thread.

    Args:
        bag: what to play.
        rate_hz: images per second; None as recorded, with pauses shortened to `LONGEST_GAP_S`.
        seconds: end there, and begin the bag anew where it is shorter; None plays it once.

    Raises:
        DataError: the bag is damaged, or was recorded at no rate and is to be repeated.
    """
    check_rate(bag, rate_hz, seconds)
    rate_at_end = rate_hz or bag.recorded_hz
    with ImageBag(bag.path, bag.topic) as images:
        due, number = 0.0, 0
        while True:
            recorded_ns = None
            for image in bag.stretch.images(images):
                if rate_hz is not None:
                    due = number / rate_hz
                elif recorded_ns is not None:
                    due += min(max((image.recorded_ns - recorded_ns) / 1e9, 0.0), LONGEST_GAP_S)
                elif number and rate_at_end is not None:
                    due += min(1 / rate_at_end, LONGEST_GAP_S)
                if seconds is not None and due >= seconds:
                    return
                yield Due(due, image)
                recorded_ns, number = image.recorded_ns, number + 1
            if seconds is None or not number:
                return


class Pace:
    """Says when the next image is to be sent. What a delay of more than one image's time has cost is not made up for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start: float | None = None
        self._due = self._sent = 0.0
        self.worst_delay_s = 0.0
        """By how much an image was sent later than it was due, at most."""

    def moment(self, due: float) -> float:
        """When to send the image that is due `due` seconds after the first, by the clock."""
        now = self._clock()
        if self._start is None:
            self._start = now - due
            return now
        gap = due - self._due
        if now > self._start + due + gap:
            self.worst_delay_s = max(self.worst_delay_s, now - self._start - due)
            self._start = now - due
        return max(self._start + due, self._sent + CLOSEST * gap)

    def sent(self, due: float, moment: float) -> None:
        """Note that the image that was due then is sent at this moment."""
        if self._start is not None:
            self.worst_delay_s = max(self.worst_delay_s, moment - self._start - due)
        self._due, self._sent = due, moment
