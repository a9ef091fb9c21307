"""Plays images into the node at their pace, whether it keeps up or not, and times the masks that come back. Needs rclpy."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy

from camseg_core.errors import DataError
from camseg_ros.bag.frames import BagInput
from camseg_ros.bag.link import CHECK_S, MASK, Link, Topics
from camseg_ros.bag.read import BagImage, ImageBag
from camseg_ros.bag.salvage import read_header, with_stamp

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
        raise DataError(
            f"the rate at which the images of {bag.path} were recorded cannot be told; give the rate to play them at"
        )


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


QUIET_S = 1.0
QUIET_LATENCIES = 3
"""No more answers are expected when none has come for so long, and for so many times the longest latency so far."""

KEPT = 0.97
"""The player has kept the rate where it achieved this share of it."""

Key = tuple[int, str]
"""Stamp in ns and frame_id, which tell the frames apart."""


@dataclass
class Played:
    """What happened to the images of one play. Times in s, of `time.monotonic`.

    Attributes:
        sent: images handed to the middleware.
        refused: images that it did not take, not among `sent`.
        latencies_s: from just before an image was sent to having its mask, of every answered image, in the order of the masks.
        asked_hz: the rate they were due at; None for fewer than two.
        achieved_hz: the rate they were sent at; None for fewer than two.
        worst_delay_s: by how much an image was sent too late, at most.
        strays: masks that belong to none of the images.
        interrupted: whether Ctrl-C ended it.
    """

    sent: int = 0
    refused: int = 0
    latencies_s: list[float] = field(default_factory=list)
    asked_hz: float | None = None
    achieved_hz: float | None = None
    worst_delay_s: float = 0.0
    strays: int = 0
    interrupted: bool = False

    @property
    def answered(self) -> int:
        """Images whose mask came."""
        return len(self.latencies_s)

    @property
    def share(self) -> float:
        """Of the images sent, those that were answered."""
        return self.answered / self.sent if self.sent else 0.0

    @property
    def kept(self) -> bool:
        """Whether the player itself kept the rate; if not, the node was not asked what it was meant to be asked."""
        return not self.refused and (
            self.asked_hz is None or (self.achieved_hz or 0.0) >= KEPT * self.asked_hz
        )


class Player(Link):
    """A camera that keeps its pace, and a listener to the masks in a thread of its own. A context manager."""

    def __init__(
        self,
        domain: int,
        compressed: bool,
        topics: Topics,
        mask_reliability: ReliabilityPolicy,
        restamp: bool,
    ) -> None:
        """Join the domain.

        Args:
            domain: the ROS domain.
            compressed: whether the images are `CompressedImage`.
            topics: the names to use; the overlay is not listened to.
            mask_reliability: QoS of the subscription to the mask.
            restamp: give every image the time of its sending as stamp; else their stamps have to be unique.

        Raises:
            CamSegError: the middleware cannot be started.
        """
        super().__init__(
            domain,
            compressed,
            topics,
            (MASK,),
            QoSProfile(depth=10, reliability=mask_reliability),
            raw=True,
        )
        self._restamp = restamp
        self._pending: dict[Key, float] = {}
        self._last_stamp_ns = 0
        self._last_answer = 0.0
        self._played = Played()

    def __enter__(self) -> "Player":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)

    def play(
        self,
        images: Iterable[Due],
        timeout_s: float,
        check: Callable[[], None],
        sending: AbstractContextManager[Any],
    ) -> Played:
        """Send the images when they are due, and wait for what still comes.

        Args:
            images: with their times; ready when asked for.
            timeout_s: how long to wait for answers after the last image, at most.
            check: called now and then; raises where going on is of no use.
            sending: is entered while images are sent, and left before the wait for the last answers.

        Raises:
            DataError: the bag is damaged.
        """
        self._pending.clear()
        played = self._played = Played()
        stop = threading.Event()
        listener = threading.Thread(target=self._listen, args=(stop,), name="listener", daemon=True)
        listener.start()
        try:
            with sending:
                self._send(images, played, check)
        except KeyboardInterrupt:  # what was measured so far counts
            played.interrupted = True
        finally:
            stop.set()
            listener.join()
        ended = self._last_answer = max(time.monotonic(), self._last_answer)

        def over() -> bool:
            longest = max(played.latencies_s, default=None)
            quiet = (
                timeout_s
                if longest is None
                else min(timeout_s, max(QUIET_S, QUIET_LATENCIES * longest))
            )
            return not self._pending or time.monotonic() - self._last_answer > quiet

        self.spin_until(over, ended + timeout_s - time.monotonic(), check)
        self._pending.clear()
        return played

    def _send(self, images: Iterable[Due], played: Played, check: Callable[[], None]) -> None:
        pace = Pace()
        first: tuple[float, float] | None = None
        for due in images:
            moment = pace.moment(due.seconds)
            key, cdr = self._prepare(due, moment)
            check()
            while (left := moment - time.monotonic()) > 0:
                time.sleep(min(left, CHECK_S))
                check()
            now = time.monotonic()
            self._pending[key] = now
            try:
                self._camera.publish(cdr)
            except RuntimeError:  # rclpy's RCLError, when the writer is saturated
                del self._pending[key]
                played.refused += 1
                continue
            pace.sent(due.seconds, now)
            played.sent += 1
            if first is None:
                first = due.seconds, now
            elif due.seconds > first[0]:
                played.asked_hz = (played.sent - 1) / (due.seconds - first[0])
                played.achieved_hz = (played.sent - 1) / (now - first[1])
            played.worst_delay_s = pace.worst_delay_s

    def _prepare(self, due: Due, moment: float) -> tuple[Key, bytes]:
        """What the mask will be known by, and the message to send at `moment`; made before, so that the moment can be kept."""
        image = due.image
        # A node may have been told to put a frame_id of its own in the place of the images'; its answer to the greeting shows it.
        renamed = self._greeted.get(MASK, "greeting")
        frame_id = image.frame_id if renamed == "greeting" else renamed
        if not self._restamp:
            return (image.stamp_ns, frame_id), image.cdr
        at = time.time_ns() + round((moment - time.monotonic()) * 1e9)
        self._last_stamp_ns = stamp_ns = max(at, self._last_stamp_ns + 1)
        return (stamp_ns, frame_id), with_stamp(image.cdr, stamp_ns)

    def _listen(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._executor.spin_once(timeout_sec=CHECK_S)

    def _header(self, message: Any) -> Key:
        return read_header(message)

    def _answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        now = time.monotonic()
        sent = self._pending.pop((stamp_ns, frame_id), None)
        if sent is None:
            self._played.strays += 1
            return
        self._last_answer = now
        self._played.latencies_s.append(now - sent)
