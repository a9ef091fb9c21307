"""Segment image files, a folder of them or a video into folders of PNGs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from camseg_core.data.frame_source import IMAGE_SUFFIXES, LeaveOut, SourceFrame, open_frames
from camseg_core.data.image_files import write_image
from camseg_core.errors import ConfigError, DataError, memory_for
from camseg_core.labels import color_table
from camseg_core.masks import colorize, overlay
from camseg_core.runtime.segmenter import Segmenter

RESULTS = ("mask", "color", "overlay")
"""The folders of the results."""


def segment_files(
    segmenter: Segmenter,
    source: Path,
    out: Path,
    opacity: float = 0.5,
    limit: int | None = None,
    leave_out: LeaveOut | None = None,
) -> Iterator[str]:
    """Segment every frame of `source`; yield a line of text for each, and a last one for all.

    Writes `mask/NAME.png` (class ids), `color/NAME.png` and `overlay/NAME.png` into `out`.

    With `leave_out`, pictures that cannot be read, or are too large for the memory, are skipped,
    and it is called with the error of each. Without it, the first error is raised.

    Raises:
        ConfigError: results would replace frames, see `check_apart`.
        DataError: the source has no readable frames, or a result cannot be written.
    """
    check_apart(source, out)
    frames = open_frames(source, leave_out=leave_out)
    frames = frames if limit is None else frames.first(limit)
    names = {label.id: label.name for label in segmenter.labels}
    colors = color_table(segmenter.labels)
    taken: set[str] = set()
    began, count = time.monotonic(), 0
    for frame in frames:
        try:
            with memory_for(_named(frame)):
                result = segmenter.segment(frame.image)
        except DataError as error:
            if leave_out is None:
                raise
            leave_out(error)
            continue
        count += 1
        name = _file_name(frame.name, taken)
        over = overlay(frame.image, result.mask, opacity, colors)
        drawn = result.mask, colorize(result.mask, colors), over
        for folder, picture in zip(RESULTS, drawn, strict=True):
            write_image(out / folder / f"{name}.png", picture)
        ids, pixels = np.unique(result.mask, return_counts=True)
        largest = [
            f"{names.get(int(ids[i]), 'unlabelled')} {pixels[i] / result.mask.size:.0%}"
            for i in np.argsort(-pixels)[:4]
        ]
        spent = f"{sum(result.timings.values()):.0f} ms"
        yield f"{count}/{max(count, frames.count)} {frame.name}: {', '.join(largest)}; {spent}"
    seconds = f"{time.monotonic() - began:.1f} s"
    noun = "frame" if count == 1 else "frames"
    yield f"{count} {noun} in {seconds}; masks, colours and overlays are in {out}"
    others = sum(path.stem not in taken for path in (out / RESULTS[0]).glob("*.png"))
    if others:
        yield f"masks of other runs there: {others}; another --out keeps runs apart"


def check_apart(source: Path, out: Path) -> None:
    """Check that no result is written into the folder that frames are read from.

    Raises:
        ConfigError: it would be: masks would replace pictures of the same names.
    """
    read = os.path.realpath(source if source.is_dir() else source.parent)
    for name in RESULTS:
        if os.path.realpath(out / name) == read:
            raise ConfigError(
                f"--out {out} must not make {name}/ the folder of the frames, {read}: they would "
                "be replaced; name another folder"
            )


def _named(frame: SourceFrame) -> str:
    height, width = frame.image.shape[:2]
    return f"{frame.name} of {width}x{height} pixels"


def _file_name(frame: str, taken: set[str]) -> str:
    """Name a frame's files: without the suffix of an image, unless an earlier one took that name.

    Frames of a video have none, even if the video's name has dots.
    """
    plain = frame.replace(":", "_")
    path = Path(plain)
    short = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else plain
    name = plain if short in taken else short
    taken.add(name)
    return name
