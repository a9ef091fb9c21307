"""Progress over frames on stderr: a bar on a terminal, a few lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

LINES = 10
"""Number of progress lines if stderr is not a terminal."""


def shown_progress(frames: Iterable[T], total: int, task: str = "evaluate") -> Iterator[T]:
    """Yield the `total` frames and show their consumer's progress; `task` labels the bar."""
    if sys.stderr.isatty():
        return _bar(frames, total, task)
    return _lines(frames, total)


def _bar(frames: Iterable[T], total: int, task: str) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(frames, total=total, description=task)


def _lines(frames: Iterable[T], total: int) -> Iterator[T]:
    began, step = time.monotonic(), max(1, -(-total // LINES))
    for done, frame in enumerate(frames, start=1):
        yield frame
        if done % step == 0 or done == total:
            left = (time.monotonic() - began) * (total - done) / done
            sys.stderr.write(f"{done}/{total} frames, about {left:.0f} s left\n")
