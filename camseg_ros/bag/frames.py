"""The images of a bag as pixels, each with its label."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.labels import MAX_BYTES, LabelPlace, Labels
from camseg_ros.bag.read import BagImage, ImageBag
from camseg_ros.image_conversion import choose_converter
from camseg_ros.images import BadImage, compressed_to_rgb, image_to_rgb

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """What of a bag is read: the image topic (None: the only one), where its labels are, and the seconds from its start to read."""

    topic: str | None = None
    labels: LabelPlace | None = None
    start_s: float | None = None
    end_s: float | None = None

    def open(self, bag: Path) -> ImageBag:
        """The bag's images, what is whole of them.

        Raises:
            DataError: as `ImageBag`.
        """
        others = (self.labels.topic,) if self.labels and self.labels.topic else ()
        return ImageBag(bag, self.topic, other_than=others, salvage=True)


@dataclass(frozen=True)
class LabelledFrame:
    """One image of a bag.

    `index` is its number on its topic. `image` is RGB `(H, W, 3)`, None where the message is no picture, which `problem` then tells;
    `truth` `(H, W)` is its label in train ids, None without one.
    """

    index: int
    stamp_ns: int
    frame_id: str
    image: Ids | None
    truth: Ids | None
    problem: str = ""


def read_frames(
    bag: ImageBag, reading: Reading, start: int = 0, only: Collection[int] | None = None
) -> Iterator[LabelledFrame]:
    """The bag's images from number `start` on, or `only` those with these numbers, as far as they lie in the seconds to read.

    Raises:
        BagDamaged: the bag is damaged; all whole images before that have been yielded.
        DataError: an image has an encoding that is not known or another size than its label, or a label is no label.
    """
    convert = choose_converter()
    places = reading.labels
    labels = places.open(bag.path, salvage=True) if places is not None else None
    with closing(labels) if labels is not None else nullcontext():
        for raw in bag.raw(start):
            at_s = (raw.recorded_ns - bag.start_ns) / 1e9
            if reading.end_s is not None and at_s >= reading.end_s:
                return
            if (reading.start_s is not None and at_s < reading.start_s) or (
                only is not None and raw.index not in only
            ):
                continue
            message = bag.parse(raw)
            where = f"image {raw.index} on {bag.topic} of the bag {bag.path}"
            try:
                fields = message.message
                image = (
                    compressed_to_rgb(fields, MAX_BYTES)
                    if bag.compressed
                    else image_to_rgb(fields, convert, MAX_BYTES)
                )
            except BadImage as error:
                if error.reason == "encoding":
                    raise DataError(f"{where}: {error}") from error
                yield LabelledFrame(
                    raw.index, message.stamp_ns, message.frame_id, None, None, f"{where}: {error}"
                )
                continue
            except ConfigError as error:
                raise DataError(f"{where}: {error}") from error
            yield LabelledFrame(
                raw.index,
                message.stamp_ns,
                message.frame_id,
                image,
                _label(labels, message.stamp_ns, image, where),
            )


def _label(labels: Labels | None, stamp_ns: int, image: Ids, where: str) -> Ids | None:
    truth = labels.at(stamp_ns) if labels is not None else None
    if truth is not None and truth.shape != image.shape[:2]:
        sizes = f"the label is {truth.shape[1]}x{truth.shape[0]}, the image {image.shape[1]}x{image.shape[0]}"
        raise DataError(f"{where}: {sizes}; they must be of one size")
    return truth


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
            raise DataError(
                f"no images on {bag.topic} in {where}; record it again while the camera runs, or choose another stretch"
            )
        recorded_hz = (frames - 1) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else None
        return BagInput(
            path,
            stretch,
            bag.topic,
            bag.compressed,
            frames,
            digest.hexdigest(),
            size,
            largest,
            recorded_hz,
            repeated,
        )
