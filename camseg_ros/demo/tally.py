"""What the demo counts and keeps while frames come back. Its memory does not grow with the pictures."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from camseg_core.evaluation.report.page import thumbnail
from camseg_core.labels import CITYSCAPES, UNLABELLED, UNLABELLED_COLOR
from camseg_ros.bag.replay import FrameResult

WIDEST = 640
"""Pictures on the page are scaled down to this width, in pixels."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ShownFrame:
    """A frame for the page; the pictures are data URIs."""

    index: int
    stamp_s: float
    latency_ms: float
    image: str
    mask: str
    overlay: str


@dataclass(frozen=True)
class ClassShare:
    """How much of all masks a class covers (0..1), and in how many frames it was seen."""

    name: str
    color: tuple[int, int, int]
    share: float
    frames: int


@dataclass
class Tally:
    """The results so far. `show` are the indices of the frames to keep pictures of."""

    show: Collection[int]
    latencies_ms: list[float | None] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    shown: list[ShownFrame] = field(default_factory=list)
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._pixels = np.zeros(256, np.int64)
        self._frames = np.zeros(256, np.int64)

    @property
    def sent(self) -> int:
        """Frames sent to the node."""
        return len(self.latencies_ms)

    @property
    def answered(self) -> int:
        """Frames whose mask came back in time."""
        return sum(latency is not None for latency in self.latencies_ms)

    @property
    def lost(self) -> int:
        """Frames that should have come back and did not: all that were not answered, but those that hold no picture."""
        return self.sent - self.answered - len(self.unreadable)

    def add(self, result: FrameResult, rgb: Pixels | None) -> None:
        """Count one frame. `rgb` is its picture, None where it holds none (a damaged message)."""
        index = result.image.index
        latency_ms = None if result.latency_s is None else result.latency_s * 1e3
        self.latencies_ms.append(latency_ms)
        if result.lost and rgb is None:
            self.unreadable.append(f"frame {index}: not a readable image in the bag")
        elif result.problem:
            self.problems.append(f"frame {index}: {result.problem}")
        if result.mask is None:
            return
        height, width = result.mask.shape
        self.size = self.size or (width, height)
        counts = np.bincount(result.mask.reshape(-1), minlength=256)
        self._pixels += counts
        self._frames += counts > 0
        if (
            index in self.show
            and rgb is not None
            and result.overlay is not None
            and latency_ms is not None
        ):
            pictures = (thumbnail(each, WIDEST) for each in (rgb, result.mask, result.overlay))
            self.shown.append(ShownFrame(index, result.image.stamp_ns / 1e9, latency_ms, *pictures))

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile of the latency in ms; None where no frame was answered."""
        answered = [latency for latency in self.latencies_ms if latency is not None]
        return float(np.percentile(answered, percent)) if answered else None

    def classes(self) -> list[ClassShare]:
        """The classes that were seen, the largest first."""
        total = max(int(self._pixels.sum()), 1)
        known = [(label.id, label.name, label.color) for label in CITYSCAPES] + [
            (UNLABELLED, "unlabelled", UNLABELLED_COLOR)
        ]
        seen = [
            ClassShare(name, color, self._pixels[i] / total, int(self._frames[i]))
            for i, name, color in known
            if self._pixels[i]
        ]
        return sorted(seen, key=lambda each: -each.share)
