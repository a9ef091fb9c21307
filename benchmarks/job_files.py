"""The files in a job's folder beside its trainings: time, commits, versions, and finished parts."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from document import current_commit

from camseg_core.errors import ConfigError
from camseg_core.evaluation.robustness_suite import REVISION
from camseg_core.long_runs import atomic_write

CODE = ("camseg_core", "benchmarks", "config")
"""The folders that decide a result."""


@contextmanager
def measured(folder: Path, every: float = 10.0) -> Iterator[list[float]]:
    """Yield a list whose one number becomes the seconds spent, those before a kill included.

    A kill loses at most the last `every` seconds.
    """
    path, began, over = folder / "seconds", time.monotonic(), threading.Event()
    before = float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0
    seconds = [before]

    def note() -> None:
        seconds[0] = before + time.monotonic() - began
        with atomic_write(path) as temporary:
            temporary.write_text(str(seconds[0]), encoding="utf-8")

    def watch() -> None:
        while not over.wait(every):
            note()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seconds
    finally:
        over.set()
        watcher.join()
        note()


def commits_of(folder: Path) -> list[str]:
    """Return the commits at which the work in a job's folder was done, in order."""
    path = folder / "commits"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def note_commit(folder: Path) -> None:
    """Add the current commit to those of the folder."""
    commit, known = current_commit(*CODE), commits_of(folder)
    if commit not in known:
        with atomic_write(folder / "commits") as temporary:
            temporary.write_text("\n".join([*known, commit]), encoding="utf-8")


def check_versions(folder: Path) -> None:
    """Check that what is in a job's folder was made with the same disturbances and libraries.

    Parts of one result must not differ in them. A folder that was begun before this was kept is
    taken as it is.

    Raises:
        ConfigError: they are others now.
    """
    path = folder / "versions.json"
    now = {"disturbances": REVISION, "numpy": np.__version__, "opencv": cv2.__version__}
    begun = {**now} if not path.is_file() else json.loads(path.read_text(encoding="utf-8"))
    if begun != now:
        raise ConfigError(
            f"{folder} must be resumed with what it was begun with, {begun}, but there is {now}: "
            "remove it, or use another --run"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(now), encoding="utf-8")


def kept_in(path: Path, make: Callable[[], Any]) -> Any:
    """Return what the file at `path` holds, or what `make` returns, which is then written to it."""
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))
