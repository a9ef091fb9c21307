"""Segment image files, a folder of them or a video into folders of PNGs."""

from __future__ import annotations  # cv2.typing came with OpenCV 4.8; Ubuntu 24.04 has 4.6

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from camseg_core.data.frame_source import open_frames
from camseg_core.errors import DataError
from camseg_core.masks import colorize, overlay
from camseg_core.runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from cv2.typing import MatLike


def segment_files(
    segmenter: Segmenter, source: Path, out: Path, opacity: float = 0.5, limit: int | None = None
) -> Iterator[str]:
    """Segment every frame of `source`; yield a line of text for each, and a last one for all.

    Writes `mask/NAME.png` (class ids), `color/NAME.png` and `overlay/NAME.png` into `out`.

    Raises:
        DataError: the source has no readable frames, or a result cannot be written.
    """
    frames = open_frames(source)
    frames = frames if limit is None else frames.first(limit)
    names = {label.id: label.name for label in segmenter.labels}
    taken: set[str] = set()
    began, count = time.monotonic(), 0
    for count, frame in enumerate(frames, start=1):
        result = segmenter.segment(frame.image)
        name = _file_name(frame.name, taken)
        _write(out / "mask" / f"{name}.png", result.mask)
        over = overlay(frame.image, result.mask, opacity)
        for kind, rgb in (("color", colorize(result.mask)), ("overlay", over)):
            _write(out / kind / f"{name}.png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        ids, pixels = np.unique(result.mask, return_counts=True)
        largest = [
            f"{names.get(int(ids[i]), 'unlabelled')} {pixels[i] / result.mask.size:.0%}"
            for i in np.argsort(-pixels)[:4]
        ]
        spent = f"{sum(result.timings.values()):.0f} ms"
        yield f"{count}/{max(count, frames.count)} {frame.name}: {', '.join(largest)}; {spent}"
    seconds = f"{time.monotonic() - began:.1f} s"
    yield f"{count} frames in {seconds}; masks, colours and overlays are in {out}"


def _file_name(frame: str, taken: set[str]) -> str:
    """Name a frame's files: without its suffix, unless an earlier frame took that name."""
    plain = frame.replace(":", "_")
    name = plain if Path(plain).stem in taken else Path(plain).stem
    taken.add(name)
    return name


def _write(path: Path, image: MatLike) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise DataError(f"cannot write {path}: is the disk full or the folder read-only?")
