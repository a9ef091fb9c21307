"""What is replayed: a bag's images, with a hash that tells whether two measurements had the same. Needs no ROS."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from camseg_core.errors import DataError
from camseg_ros.bag.read import BagImage, ImageBag


@dataclass(frozen=True)
class Stretch:
    """A part of a bag: seconds after its first message, from `start_s` and before `end_s`; None from its start, to its end."""

    start_s: float | None = None
    end_s: float | None = None

    def images(self, bag: ImageBag) -> Iterator[BagImage]:
        """The images that were recorded in it, in recorded order.

        Raises:
            DataError: the bag is damaged.
        """
        for image in bag:
            at_s = (image.recorded_ns - bag.start_ns) / 1e9
            if self.end_s is not None and at_s >= self.end_s:
                return
            if self.start_s is None or at_s >= self.start_s:
                yield image


WHOLE = Stretch()


@dataclass(frozen=True)
class BagInput:
    """The images of one topic of a bag.

    Attributes:
        path: of the bag.
        stretch: the part of it that is meant by all that follows.
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
    stretch: Stretch
    topic: str
    compressed: bool
    frames: int
    sha256: str
    size: tuple[int, int] | None
    largest_bytes: int
    recorded_hz: float | None
    repeated: int | None


def read_input(path: Path, topic: str | None = None, stretch: Stretch = WHOLE) -> BagInput:
    """Read all images once, one at a time.

    Raises:
        DataError: they cannot be read to the end, or there are none.
    """
    digest, size, largest, repeated, frames = hashlib.sha256(), None, 0, None, 0
    seen: set[tuple[int, str]] = set()
    first_ns = last_ns = 0
    with ImageBag(path, topic) as bag:
        for image in stretch.images(bag):
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
            where = f"the bag {path}" if stretch == WHOLE else f"this stretch of the bag {path}"
            raise DataError(f"no images on {bag.topic} in {where}; record it again while the camera runs, or choose another stretch")
        recorded_hz = (frames - 1) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else None
        return BagInput(path, stretch, bag.topic, bag.compressed, frames, digest.hexdigest(), size, largest, recorded_hz, repeated)
