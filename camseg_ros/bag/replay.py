"""Replays the images of a bag over DDS into a running segmentation node and hands back what it answers. Needs rclpy."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_ros.bag.link import MASK, OVERLAY, Link, Topics
from camseg_ros.bag.player import LONGEST_GAP_S
from camseg_ros.bag.read import BagImage

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FrameResult:
    """What came back for one image.

    `latency_s` is the time from sending the image to having its mask, in s; None where the frame was lost. `mask` is
    `(H, W)` uint8, `overlay` RGB `(H, W, 3)` uint8. `problem` says what is wrong with the answer, or why there is none.
    """

    image: BagImage
    latency_s: float | None = None
    mask: Pixels | None = None
    overlay: Pixels | None = None
    problem: str | None = None

    @property
    def lost(self) -> bool:
        """Whether no mask came back in time."""
        return self.latency_s is None


@dataclass
class _Pending:
    """An image on its way: when it was sent (s, monotonic) and what has come back so far."""

    sent: float
    answered: float | None = None
    mask: Any = None
    overlay: Any = None

    @property
    def complete(self) -> bool:
        return self.mask is not None and self.overlay is not None


class Replay(Link):
    """A camera that waits for the mask and the overlay of every image. A context manager.

    Attributes:
        strays: masks with a stamp that was never sent.
        late: masks that came after their frame had been given up.
    """

    def __init__(self, domain: int, compressed: bool = False, topics: Topics | None = None) -> None:
        """Join the domain.

        Raises:
            CamSegError: the middleware cannot be started.
        """
        super().__init__(domain, compressed, topics or Topics(), (MASK, OVERLAY))
        self.strays = self.late = 0
        self._pending: dict[int, _Pending] = {}
        self._given_up: set[int] = set()

    def __enter__(self) -> "Replay":
        return self

    def play(
        self, images: Iterable[BagImage], timeout_s: float, check: Callable[[], None]
    ) -> Iterator[FrameResult]:
        """Closed loop: send an image, wait for its answer, hand it back; never faster than the images were recorded.

        Args:
            images: in recorded order.
            timeout_s: how long an answer may take before its frame counts as lost, in s.
            check: called now and then; raises to end the replay.

        Raises:
            DataError: the bag is damaged.
        """
        recorded_ns, sent = None, 0.0
        for image in images:
            if recorded_ns is not None:
                gap = min((image.recorded_ns - recorded_ns) / 1e9, LONGEST_GAP_S)
                self.spin_until(lambda: False, sent + gap - time.monotonic(), check)
            recorded_ns, sent = image.recorded_ns, time.monotonic()
            yield self._ask(image, timeout_s, check)

    def _ask(self, image: BagImage, timeout_s: float, check: Callable[[], None]) -> FrameResult:
        pending = self._pending[image.stamp_ns] = _Pending(time.monotonic())
        try:
            self._camera.publish(image.cdr)
            complete = self.spin_until(lambda: pending.complete, timeout_s, check)
        except RuntimeError as error:  # rclpy's RCLError, when the writer is saturated
            return FrameResult(image, problem=f"could not be sent: {error}")
        finally:
            del self._pending[image.stamp_ns]
        if pending.answered is None:
            self._given_up.add(image.stamp_ns)
            return FrameResult(image, problem=f"no mask within {timeout_s:g} s")
        return _result(image, pending, None if complete else f"no overlay within {timeout_s:g} s")

    def _answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        now = time.monotonic()
        pending = self._pending.get(stamp_ns)
        if pending is None:
            if stamp_ns in self._given_up:
                self.late += kind == MASK
            else:
                self.strays += kind == MASK
            return
        setattr(pending, kind, message)
        if kind == MASK:
            pending.answered = now


def _result(image: BagImage, pending: _Pending, problem: str | None) -> FrameResult:
    """The answer as arrays, held against what was sent."""
    mask, wrong_mask = _pixels(pending.mask, "mono8", image)
    overlay, wrong_overlay = (
        _pixels(pending.overlay, "rgb8", image) if pending.overlay is not None else (None, None)
    )
    latency = (pending.answered or 0.0) - pending.sent
    return FrameResult(image, latency, mask, overlay, wrong_mask or wrong_overlay or problem)


def _pixels(message: Any, encoding: str, image: BagImage) -> tuple[Pixels | None, str | None]:
    """The picture in an answer, or None; and what is wrong with it, or None."""
    kind = "mask" if encoding == "mono8" else "overlay"
    channels = 1 if encoding == "mono8" else 3
    width, height = message.width, message.height
    if (
        message.encoding != encoding
        or len(message.data) < message.step * height
        or message.step < width * channels
    ):
        return (
            None,
            f"the {kind} is not a whole {encoding} image but {width}x{height} {message.encoding} of {len(message.data)} bytes",
        )
    rows = np.frombuffer(message.data, np.uint8)[: message.step * height].reshape(
        height, message.step
    )[:, : width * channels]
    pixels = rows.reshape(height, width, channels) if channels > 1 else rows
    if image.size != (width, height):
        sent = "{}x{}".format(*image.size) if image.size else "unreadable"
        return pixels, f"the {kind} is {width}x{height}, the image was {sent}"
    if message.header.frame_id != image.frame_id:
        return (
            pixels,
            f"the {kind} has frame_id {message.header.frame_id!r}, the image had {image.frame_id!r}",
        )
    return pixels, None
