"""Plays images into the node at their pace and times the masks that come back. Needs rclpy."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy

from camseg_ros.bag.link import CHECK_S, MASK, Link, Topics
from camseg_ros.bag.read import BagImage
from camseg_ros.bag.storage import read_header, with_stamp

QUIET_S = 1.0
QUIET_LATENCIES = 3
"""The wait for the last answers ends when none has come for `QUIET_S` and for `QUIET_LATENCIES`
times the longest latency so far."""

KEPT_SHARE = 0.97
"""The player has kept the rate if it achieved this share of it."""

MIN_GAP_SHARE = 0.9
"""After a delay, the smallest gap between two images as a share of their planned gap."""

FrameKey = tuple[int, str]
"""Stamp in ns and frame_id, which identify a frame."""


@dataclass(frozen=True)
class ScheduledImage:
    """An image and when to send it, in s after the first one."""

    due_s: float
    image: BagImage


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


@dataclass
class Playback:
    """What happened to the images of one playback. Times are in s.

    Attributes:
        sent: images handed to the middleware.
        refused: images that the middleware refused, not counted in `sent`.
        latencies_s: from just before sending an image to receiving its mask, in order of the masks.
        asked_hz: planned rate; None for fewer than two images.
        achieved_hz: actual rate; None for fewer than two images.
        worst_delay_s: how much too late an image was sent, at most.
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
        """Number of images whose mask came."""
        return len(self.latencies_s)

    @property
    def answered_share(self) -> float:
        """Share of the sent images that were answered."""
        return self.answered / self.sent if self.sent else 0.0

    @property
    def rate_kept(self) -> bool:
        """Whether the player kept the rate; if not, the node was not measured at that rate."""
        return not self.refused and (
            self.asked_hz is None or (self.achieved_hz or 0.0) >= KEPT_SHARE * self.asked_hz
        )


class Player(Link):
    """A camera that keeps its pace, and a listener to the masks in a thread of its own."""

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
            topics: the topics to use; does not subscribe to the overlay.
            mask_reliability: QoS of the subscription to the mask.
            restamp: stamp every image with the time it is sent; else its stamp must be unique.

        Raises:
            CamSegError: the middleware cannot be started.
        """
        qos = QoSProfile(depth=10, reliability=mask_reliability)
        super().__init__(domain, compressed, topics, (MASK,), qos, raw=True)
        self._restamp = restamp
        self._pending: dict[FrameKey, float] = {}
        self._last_stamp_ns = 0
        self._last_answer = 0.0
        self.playback = Playback()
        """The last playback, also if it ended with an error."""

    def __enter__(self) -> "Player":
        return self

    def play(
        self,
        images: Iterable[ScheduledImage],
        timeout_s: float,
        check: Callable[[], None],
        sending: AbstractContextManager[Any],
    ) -> Playback:
        """Send the images when they are due, then wait for the last answers.

        Args:
            images: images with their times, which must be available without delay.
            timeout_s: how long to wait for answers after the last image, at most.
            check: called regularly; raises to end the playback.
            sending: context to enter while images are sent, not while waiting for the last answers.

        Raises:
            DataError: the bag is damaged.
        """
        self._pending.clear()
        playback = self.playback = Playback()
        stop = threading.Event()
        listener = threading.Thread(target=self._listen, args=(stop,), name="listener", daemon=True)
        listener.start()
        try:
            with sending:
                self._send(images, playback, check)
        except KeyboardInterrupt:  # what was measured so far counts
            playback.interrupted = True
        finally:
            stop.set()
            listener.join()
        ended = self._last_answer = max(time.monotonic(), self._last_answer)

        def over() -> bool:
            longest = max(playback.latencies_s, default=timeout_s)
            quiet = min(timeout_s, max(QUIET_S, QUIET_LATENCIES * longest))
            return not self._pending or time.monotonic() - self._last_answer > quiet

        try:
            self.spin_until(over, ended + timeout_s - time.monotonic(), check)
        except KeyboardInterrupt:
            playback.interrupted = True
        self._pending.clear()
        return playback

    def _send(
        self, images: Iterable[ScheduledImage], playback: Playback, check: Callable[[], None]
    ) -> None:
        pace = Pace()
        first: tuple[float, float] | None = None
        for scheduled in images:
            due = scheduled.due_s
            moment = pace.moment(due)
            key, cdr = self._prepare(scheduled, moment)
            check()
            while (left := moment - time.monotonic()) > 0:
                time.sleep(min(left, CHECK_S))
                check()
            now = time.monotonic()
            self._pending[key] = now
            try:
                self._camera.publish(cdr)
            except RuntimeError:  # rclpy's RCLError, if the writer is saturated
                del self._pending[key]
                playback.refused += 1
                continue
            pace.sent(due, now)
            playback.sent += 1
            if first is None:
                first = due, now
            elif due > first[0]:
                playback.asked_hz = (playback.sent - 1) / (due - first[0])
                playback.achieved_hz = (playback.sent - 1) / (now - first[1])
            playback.worst_delay_s = pace.worst_delay_s

    def _prepare(self, scheduled: ScheduledImage, moment: float) -> tuple[FrameKey, bytes]:
        """Return the key of the mask to expect and the message to send at `moment`."""
        image = scheduled.image
        # The answer to the greeting shows whether the node replaces the frame_id.
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

    def _header(self, message: Any) -> FrameKey:
        return read_header(message)

    def _on_answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        now = time.monotonic()
        sent = self._pending.pop((stamp_ns, frame_id), None)
        if sent is None:
            self.playback.strays += 1
            return
        self._last_answer = now
        self.playback.latencies_s.append(now - sent)
