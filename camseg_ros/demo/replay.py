"""Replays a bag into the node one image at a time, and counts the answers. Needs rclpy."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import DataError, ImageError
from camseg_core.evaluation.report.page import thumbnail
from camseg_core.labels import CITYSCAPES, UNLABELLED, UNLABELLED_COLOR
from camseg_ros.bag.frames import decode
from camseg_ros.bag.link import MASK, MAX_GAP_S, OVERLAY, Link, Topics
from camseg_ros.bag.read import BagImage, ImageBag, mean_rate_hz
from camseg_ros.image_conversion import choose_converter

Pixels = npt.NDArray[np.uint8]

MAX_WIDTH = 640
"""Wider pictures are scaled down to this for the page, in pixels."""


@dataclass(frozen=True)
class Answer:
    """The answer to one image.

    `rgb` is the image's pixels `(H, W, 3)` uint8, None if it cannot be read. `latency_s` is the
    time from sending it to receiving its mask, None if the frame was lost. `mask` is `(H, W)`
    uint8, `overlay` RGB `(H, W, 3)` uint8. `problem` is what is wrong with the answer, or why it is
    missing.
    """

    image: BagImage
    latency_s: float | None = None
    mask: Pixels | None = None
    overlay: Pixels | None = None
    problem: str | None = None
    rgb: Pixels | None = None

    @property
    def lost(self) -> bool:
        """Whether no mask came in time."""
        return self.latency_s is None


class Replay(Link):
    """A camera that waits for the mask and the overlay of every image.

    Attributes:
        strays: masks with a stamp that was never sent.
        late: masks that came after their frame had been given up.
    """

    def __init__(self, domain: int, compressed: bool, topics: Topics) -> None:
        """Join the domain.

        Raises:
            CamSegError: the middleware cannot be started.
        """
        super().__init__(domain, compressed, topics, (MASK, OVERLAY))
        self.strays = self.late = 0
        self._pending: dict[int, dict[str, tuple[float, Any]]] = {}
        self._given_up: set[int] = set()

    def __enter__(self) -> "Replay":
        return self

    def play(
        self,
        images: Iterable[BagImage],
        read: Callable[[BagImage], Pixels],
        timeout_s: float,
        check: Callable[[], None],
    ) -> Iterator[Answer]:
        """Send each image after the answer to the last, never faster than they were recorded.

        An image that cannot be read is sent as well, but the node cannot answer it.

        Args:
            images: images in recorded order.
            read: returns an image's pixels `(H, W, 3)`, or raises ImageError.
            timeout_s: how long an answer may take before its frame counts as lost.
            check: called regularly; raises to end the replay.

        Raises:
            DataError: the bag is damaged.
        """
        recorded_ns, sent = None, 0.0
        for image in images:
            if recorded_ns is not None:
                gap = min((image.recorded_ns - recorded_ns) / 1e9, MAX_GAP_S)
                self.spin_until(lambda: False, sent + gap - time.monotonic(), check)
            recorded_ns, sent = image.recorded_ns, time.monotonic()
            try:
                rgb = read(image)
            except ImageError as error:
                self._camera.publish(image.cdr)
                yield Answer(image, problem=str(error))
                continue
            yield self._ask(image, rgb, timeout_s, check)

    def _ask(
        self, image: BagImage, rgb: Pixels, timeout_s: float, check: Callable[[], None]
    ) -> Answer:
        came = self._pending[image.stamp_ns] = {}
        sent = time.monotonic()
        try:
            self._camera.publish(image.cdr)
            self.spin_until(lambda: len(came) == 2, timeout_s, check)
        except RuntimeError as error:  # rclpy's RCLError, if the writer is saturated
            return Answer(image, problem=f"could not be sent: {error}", rgb=rgb)
        finally:
            del self._pending[image.stamp_ns]
        if MASK not in came:
            self._given_up.add(image.stamp_ns)
            return Answer(image, problem=f"no mask within {timeout_s:g} s", rgb=rgb)
        answered, message = came[MASK]
        mask, problem = _pixels(message, MASK, image)
        overlay: Pixels | None = None
        wrong: str | None = f"no overlay within {timeout_s:g} s"
        if OVERLAY in came:
            overlay, wrong = _pixels(came[OVERLAY][1], OVERLAY, image)
        return Answer(image, answered - sent, mask, overlay, problem or wrong, rgb)

    def _on_answer(self, message: Any, stamp_ns: int, frame_id: str, kind: str) -> None:
        if stamp_ns in self._pending:
            self._pending[stamp_ns][kind] = time.monotonic(), message
        elif stamp_ns in self._given_up:
            self.late += kind == MASK
        else:
            self.strays += kind == MASK


def reader(bag: ImageBag) -> Callable[[BagImage], Pixels]:
    """Return a function that decodes an image of the bag, and raises ImageError if it cannot."""
    converter = choose_converter()
    return lambda image: decode(image.message, bag.compressed, converter)


def first_size(bag: ImageBag, count: int) -> tuple[int, int]:
    """Return width and height of the first readable image among the first `count`.

    Raises:
        DataError: there is none.
    """
    read, reason = reader(bag), "it is empty"
    for number, image in enumerate(islice(bag, count)):
        try:
            height, width, _ = read(image).shape
        except ImageError as error:
            reason = reason if number else str(error)
            continue
        return width, height
    raise DataError(f"none of the first {count} images on {bag.topic} can be read: {reason}")


def _pixels(message: Any, kind: str, image: BagImage) -> tuple[Pixels | None, str | None]:
    """Return the pixels of an answer, or None, and what is wrong with it, or None."""
    encoding, channels = ("mono8", 1) if kind == MASK else ("rgb8", 3)
    width, height, size = message.width, message.height, len(message.data)
    complete = size >= message.step * height and message.step >= width * channels
    if message.encoding != encoding or not complete:
        return None, (
            f"the {kind} is not a complete {encoding} image but {width}x{height} "
            f"{message.encoding} of {size} bytes"
        )
    padded = np.frombuffer(message.data, np.uint8)[: message.step * height]
    rows = padded.reshape(height, message.step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels) if channels > 1 else rows
    if image.size != (width, height):
        sent = "{}x{}".format(*image.size) if image.size else "unreadable"
        return pixels, f"the {kind} is {width}x{height}, the image was {sent}"
    found = message.header.frame_id
    if found != image.frame_id:
        return pixels, f"the {kind} has frame_id {found!r}, the image had {image.frame_id!r}"
    return pixels, None


@dataclass(frozen=True)
class DemoFrame:
    """A frame for the page; the pictures are data URIs."""

    index: int
    stamp_s: float
    latency_ms: float
    image: str
    mask: str
    overlay: str


@dataclass(frozen=True)
class ClassCoverage:
    """A class: its share of all masks (0..1), and the number of frames that have it."""

    name: str
    color: tuple[int, int, int]
    share: float
    frames: int


@dataclass
class DemoCounts:
    """The results so far; keeps the pictures of the frames whose index is in `show`."""

    show: Collection[int]
    latencies_ms: list[float | None] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    shown: list[DemoFrame] = field(default_factory=list)
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._pixels = np.zeros(256, np.int64)
        self._frames = np.zeros(256, np.int64)
        self._recorded_ns: list[int] = []  # of the first frame and of the last

    @property
    def sent(self) -> int:
        """Frames sent to the node."""
        return len(self.latencies_ms)

    @property
    def answered(self) -> int:
        """Frames whose mask came in time."""
        return sum(latency is not None for latency in self.latencies_ms)

    @property
    def lost(self) -> int:
        """Unanswered frames, except those without a readable image."""
        return self.sent - self.answered - len(self.unreadable)

    @property
    def recorded_hz(self) -> float | None:
        """Mean rate at which the frames sent were recorded; None if that is unknown."""
        return mean_rate_hz(self._recorded_ns, self.sent)

    def add(self, answer: Answer) -> None:
        """Count one frame."""
        index, rgb = answer.image.index, answer.rgb
        latency_ms = None if answer.latency_s is None else answer.latency_s * 1e3
        self.latencies_ms.append(latency_ms)
        self._recorded_ns = [*self._recorded_ns[:1], answer.image.recorded_ns]
        if answer.lost and rgb is None:
            self.unreadable.append(f"frame {index}: {answer.problem}")
        elif answer.problem:
            self.problems.append(f"frame {index}: {answer.problem}")
        if answer.mask is None or latency_ms is None:
            return
        height, width = answer.mask.shape
        self.size = self.size or (width, height)
        counts = np.bincount(answer.mask.reshape(-1), minlength=256)
        self._pixels += counts
        self._frames += counts > 0
        if index in self.show and rgb is not None and answer.overlay is not None:
            pictures = (thumbnail(each, MAX_WIDTH) for each in (rgb, answer.mask, answer.overlay))
            self.shown.append(DemoFrame(index, answer.image.stamp_ns / 1e9, latency_ms, *pictures))

    def percentile_ms(self, percent: float) -> float | None:
        """Return a percentile of the latency in ms; None if no frame was answered."""
        answered = [latency for latency in self.latencies_ms if latency is not None]
        return float(np.percentile(answered, percent)) if answered else None

    def classes(self) -> list[ClassCoverage]:
        """Return the classes that occur, the largest share first."""
        total = max(int(self._pixels.sum()), 1)
        known = [(label.id, label.name, label.color) for label in CITYSCAPES]
        known.append((UNLABELLED, "unlabelled", UNLABELLED_COLOR))
        found = [
            ClassCoverage(name, color, self._pixels[i] / total, int(self._frames[i]))
            for i, name, color in known
            if self._pixels[i]
        ]
        return sorted(found, key=lambda each: -each.share)
