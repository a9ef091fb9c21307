"""How far a walk over frames is, on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from camseg_core.data.sample import Sample

LINES = 10
"""How many lines tell of the whole where there is no terminal."""


def shown_progress(samples: Iterable[Sample], total: int) -> Iterator[Sample]:
    """The samples, `total` of them, with the progress of whoever takes them."""
    if sys.stderr.isatty():
        return _bar(samples, total)
    return _lines(samples, total)


def _bar(samples: Iterable[Sample], total: int) -> Iterator[Sample]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(samples, total=total, description="evaluate")


def _lines(samples: Iterable[Sample], total: int) -> Iterator[Sample]:
    began, step = time.monotonic(), max(1, -(-total // LINES))
    for done, sample in enumerate(samples, start=1):
        yield sample
        if done % step == 0 or done == total:
            left = (time.monotonic() - began) * (total - done) / done
            sys.stderr.write(f"{done}/{total} frames, about {left:.0f} s left\n")
