"""The images of a bag as pixels, each with its label."""

from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.labels import MAX_BYTES, LabelPlace, Labels
from camseg_ros.bag.read import ImageBag
from camseg_ros.image_conversion import choose_converter
from camseg_ros.image_reading import BadImage, compressed_to_rgb, image_to_rgb

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


def read_frames(bag: ImageBag, reading: Reading, start: int = 0, only: Collection[int] | None = None) -> Iterator[LabelledFrame]:
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
            if (reading.start_s is not None and at_s < reading.start_s) or (only is not None and raw.index not in only):
                continue
            message = bag.parse(raw)
            where = f"image {raw.index} on {bag.topic} of the bag {bag.path}"
            try:
                fields = message.message
                image = compressed_to_rgb(fields, MAX_BYTES) if bag.compressed else image_to_rgb(fields, convert, MAX_BYTES)
            except BadImage as error:
                if error.reason == "encoding":
                    raise DataError(f"{where}: {error}") from error
                yield LabelledFrame(raw.index, message.stamp_ns, message.frame_id, None, None, f"{where}: {error}")
                continue
            except ConfigError as error:
                raise DataError(f"{where}: {error}") from error
            yield LabelledFrame(raw.index, message.stamp_ns, message.frame_id, image, _label(labels, message.stamp_ns, image, where))


def _label(labels: Labels | None, stamp_ns: int, image: Ids, where: str) -> Ids | None:
    truth = labels.at(stamp_ns) if labels is not None else None
    if truth is not None and truth.shape != image.shape[:2]:
        sizes = f"the label is {truth.shape[1]}x{truth.shape[0]}, the image {image.shape[1]}x{image.shape[0]}"
        raise DataError(f"{where}: {sizes}; they must be of one size")
    return truth
