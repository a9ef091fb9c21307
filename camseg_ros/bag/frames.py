"""Reads the images of a bag as pixels, each with its label."""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.data.frame_source import LeaveOut
from camseg_core.data.image_header import damage, decoder_messages, is_jpeg, orientation
from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.command import TOLERANCE_MS
from camseg_ros.bag.labels import MAX_BYTES, Ids, Labels, LabelSource
from camseg_ros.bag.pairs import NO_LABEL, Pairs
from camseg_ros.bag.read import WHOLE, ImageBag, TimeRange
from camseg_ros.compressed_images import JPEG_DAMAGE, Decoded, decode_compressed
from camseg_ros.image_conversion import Converter, choose_converter
from camseg_ros.images import BadImage, image_to_rgb, range_problem

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a bag: the image topic (None: the only one), its labels, a time range.

    `white_level` is the value of white in 16-bit images; 0 means 65535.
    """

    topic: str | None = None
    labels: LabelSource | None = None
    within: TimeRange = WHOLE
    white_level: int = 0

    def open(self, bag: Path) -> ImageBag:
        """Open the images of a bag, which may be damaged.

        Raises:
            DataError: as `ImageBag`.
        """
        exclude = (self.labels.topic,) if self.labels and self.labels.topic else ()
        return ImageBag(bag, self.topic, exclude=exclude, salvage=True)


def label_source(named: str, tolerance_ms: float | None = None) -> LabelSource:
    """Return the labels that an option names: a topic, which begins with /, or a folder.

    `tolerance_ms` is how far the stamps of image and label may differ, `TOLERANCE_MS` if None.
    """
    tolerance_ns = round(1e6 * (TOLERANCE_MS if tolerance_ms is None else tolerance_ms))
    if named.startswith("/") and not Path(named).is_dir():
        return LabelSource(named, None, tolerance_ns)
    return LabelSource(None, Path(os.path.realpath(named)), tolerance_ns)


@dataclass(frozen=True)
class DecodedFrame:
    """One image of a bag as pixels.

    `index` is its number on its topic. `image` is RGB `(H, W, 3)`, or None if the message cannot
    be decoded, with the reason in `problem`. `truth` `(H, W)` is its label in train ids, or None.
    `follows`: it continues the video of the image before it in the bag, which could be decoded, has
    the same frame_id, and no later stamp. (Bags are read in the order of recording.)
    """

    index: int
    stamp_ns: int
    frame_id: str
    image: Ids | None
    truth: Ids | None
    problem: str = ""
    follows: bool = False


def read_frames(
    bag: ImageBag,
    options: ReadOptions,
    start: int = 0,
    only: Collection[int] | None = None,
    pairs: Pairs | None = None,
    leave_out: LeaveOut | None = None,
) -> Iterator[DecodedFrame]:
    """Decode the images of the time range from number `start` on, or `only` those numbers.

    `pairs` are those of `LabelSource.pair`, if known already. With `leave_out`, labels that cannot
    be used are left out, and it is called with the error of each.

    Raises:
        BagDamaged: the bag is damaged; every image before the damage has been yielded.
        DataError: an image has an unknown encoding or, without `leave_out`, another size than its
            label, or its label does not hold class ids.
    """
    converter, white, brightest = choose_converter(), options.white_level, 0
    labels, doubt = None, ""
    last: DecodedFrame | None = None
    if options.labels is not None:
        labels, pairs = options.labels.open(bag.path), pairs or options.labels.pair(bag)
    try:
        with closing(labels) if labels is not None else nullcontext():
            for raw in bag.raw(start, options.within):
                if only is not None and raw.index not in only:
                    continue
                message = bag.parse(raw)
                header = raw.index, message.stamp_ns, message.frame_id
                where = f"image {raw.index} on {bag.topic} of the bag {bag.path}"
                try:
                    decoded = decode_whole(message.message) if bag.compressed else None
                    image = (
                        image_to_rgb(message.message, converter, MAX_BYTES, white)
                        if decoded is None
                        else decoded.to_rgb(converter, white)
                    )
                    if not white:
                        doubt, brightest = (
                            range_problem(message.message, MAX_BYTES, brightest)
                            if decoded is None
                            else decoded.range_problem(brightest)
                        )
                except BadImage as error:
                    if error.reason == "encoding":
                        raise DataError(f"{where}: {error}") from error
                    yield DecodedFrame(*header, None, None, f"{where}: {error}")
                    last = None
                    continue
                except ConfigError as error:
                    raise DataError(f"{where}: {error}") from error
                number = pairs.of(raw.index) if pairs is not None else NO_LABEL
                tag = orientation(bytes(message.message.data)) if bag.compressed else 1
                note = f"; the EXIF orientation tag of an image ({tag}) is ignored in bags"
                try:
                    truth = _label(labels, number, image, where, note if tag > 1 else "")
                except DataError as error:
                    if leave_out is None:
                        raise
                    leave_out(error)
                    truth = None
                follows = (
                    last is not None
                    and (last.index + 1, last.frame_id) == (raw.index, message.frame_id)
                    and last.stamp_ns <= message.stamp_ns
                )
                last = DecodedFrame(*header, image, truth, follows=follows)
                yield last
    finally:  # also where the caller needs no more frames
        if doubt:
            logger.warning("%s of the bag %s: %s", bag.topic, bag.path, doubt)


def wanted_frames(
    bag: ImageBag,
    options: ReadOptions,
    wanted: Collection[int],
    pairs: Pairs | None = None,
    leave_out: LeaveOut | None = None,
) -> Iterator[DecodedFrame]:
    """Decode the images `wanted` as `read_frames` does; nothing behind the last of them is read."""
    left = {*wanted}
    for frame in read_frames(bag, options, only=left.copy(), pairs=pairs, leave_out=leave_out):
        yield frame
        left.discard(frame.index)
        if not left:
            return


def decode_whole(message: Any) -> Decoded:
    """Decode a `CompressedImage`, see `decode_compressed`; refuse one with damage inside.

    Raises:
        ImageError: the message cannot be decoded.
    """
    with decoder_messages() as messages:
        decoded = decode_compressed(message, MAX_BYTES)
    content = bytes(message.data)
    problem = "" if is_jpeg(content) else damage(content)  # a JPEG was checked as it was decoded
    costly = [each for each in messages if _costs_pixels(each)]
    if costly and not problem:
        problem = f"is damaged ({costly[0]})"
    if problem:
        raise BadImage("corrupt", f"compressed image {problem}")
    return decoded


def _costs_pixels(message: str) -> bool:
    """Return whether a decoder's message is about lost pixels, not about a profile or padding."""
    if message.startswith("Corrupt JPEG"):
        return JPEG_DAMAGE.search(message) is not None
    return not message.startswith("libpng warning")


def decode(message: Any, compressed: bool, converter: Converter, white: int = 0) -> Ids:
    """Convert an `Image` or, if `compressed`, a `CompressedImage` to RGB `(H, W, 3)`.

    `white` is its value in images of 16 bits; 0 for 65535.

    Raises:
        ImageError: the message cannot be decoded.
        ConfigError: its encoding needs a package that is not installed.
    """
    if compressed:
        return decode_whole(message).to_rgb(converter, white)
    return image_to_rgb(message, converter, MAX_BYTES, white)


def _label(labels: Labels | None, number: int, image: Ids, where: str, note: str) -> Ids | None:
    truth = labels.read(number) if labels is not None and number != NO_LABEL else None
    if truth is not None and truth.shape != image.shape[:2]:
        (label_height, label_width), (height, width) = truth.shape, image.shape[:2]
        raise DataError(
            f"{where}: the label is {label_width}x{label_height}, the image {width}x{height}; "
            f"they must have the same size{note}"
        )
    return truth
