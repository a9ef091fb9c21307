"""What is replayed: a bag's images, with a hash that tells whether two measurements had the same. Needs no ROS."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from camseg_core.errors import DataError
from camseg_ros.bag.read import ImageBag


@dataclass(frozen=True)
class BagInput:
    """The images of one topic of a bag.

    Attributes:
        path: of the bag.
        topic: the image topic.
        compressed: whether it holds `CompressedImage` messages.
        frames: how many images.
        sha256: of the serialized messages in recorded order.
        size: width and height of the first image that says so; None where none does.
        largest_bytes: of the largest message.
        recorded_hz: the mean rate as recorded; None where it cannot be told.
        repeated: the index of the first image whose stamp and frame_id another one had before; None where all are unique.
    """

    path: Path
    topic: str
    compressed: bool
    frames: int
    sha256: str
    size: tuple[int, int] | None
    largest_bytes: int
    recorded_hz: float | None
    repeated: int | None


def read_input(path: Path, topic: str | None) -> BagInput:
    """Read the whole bag once, one image at a time.

    Raises:
        DataError: it cannot be read to its end, or has no images.
    """
    digest, size, largest, repeated, frames = hashlib.sha256(), None, 0, None, 0
    seen: set[tuple[int, str]] = set()
    with ImageBag(path, topic) as bag:
        for image in bag:
            digest.update(image.cdr)
            size = size or image.size
            largest = max(largest, len(image.cdr))
            key = image.stamp_ns, image.frame_id
            if repeated is None and key in seen:
                repeated = image.index
            seen.add(key)
            frames += 1
        if not frames:
            raise DataError(f"no images on {bag.topic} in the bag {path}; record it again while the camera runs")
        recorded_hz = 1e3 / bag.interval_ms if bag.interval_ms else None
        return BagInput(path, bag.topic, bag.compressed, frames, digest.hexdigest(), size, largest, recorded_hz, repeated)
