"""Plays images into the node at their pace, whether it keeps up or not, and times the masks that come back. Needs rclpy."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy

from camseg_ros.bag.cdr_header import read_header, with_stamp
from camseg_ros.bag.link import CHECK_S, MASK, Link, Topics
from camseg_ros.bag.schedule import Due, Pace

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
        return not self.refused and (self.asked_hz is None or (self.achieved_hz or 0.0) >= KEPT * self.asked_hz)


class Player(Link):
    """A camera that keeps its pace, and a listener to the masks in a thread of its own. A context manager."""

    def __init__(self, domain: int, compressed: bool, topics: Topics, mask_reliability: ReliabilityPolicy, restamp: bool) -> None:
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
        super().__init__(domain, compressed, topics, (MASK,), QoSProfile(depth=10, reliability=mask_reliability), raw=True)
        self._restamp = restamp
        self._pending: dict[Key, float] = {}
        self._last_stamp_ns = 0
        self._last_answer = 0.0
        self._played = Played()

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)

    def play(self, images: Iterable[Due], timeout_s: float, check: Callable[[], None], sending: AbstractContextManager[Any]) -> Played:
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
            quiet = timeout_s if longest is None else min(timeout_s, max(QUIET_S, QUIET_LATENCIES * longest))
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
