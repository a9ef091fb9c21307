"""Helpers for long runs: outputs checked early, atomic writes, stop requests, progress."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from camseg_core.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNALS = {signal.SIGINT: "SIGINT, as from Ctrl-C", signal.SIGTERM: "SIGTERM"}

UNKNOWN_STEP = 100
"""Frames between progress lines if the total is unknown."""

PROGRESS_LINES = 10
"""Number of progress lines if stderr is not a terminal."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; the file is renamed to `path` when the block ends.

    The content is synced to disk before the rename, so neither a kill nor a power cut leaves a
    broken file under that name. If the block raises, `path` stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of what is written to errors that name no file, as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def writable_folder(folder: Path, option: str) -> Path:
    """Make `folder` if it is missing, check that files can be made in it, and return it.

    Raises:
        ConfigError: they cannot; the message begins with `option`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(
            f"{option} {folder} must be a folder that can be written to: {why}; name another"
        ) from error


def writable_file(path: Path, option: str, read: Iterable[Path | None] = ()) -> Path:
    """Make the folder of `path`, check that the file can be written, and return `path`.

    A file that exists keeps its content.

    Args:
        path: the file to write.
        option: the option that names it.
        read: files and folders that the command reads or writes besides.

    Raises:
        ConfigError: it cannot be written, is one of the files of `read`, or would replace a file in
            one of its folders, unless that is an earlier result; the message begins with `option`.
    """
    target = Path(os.path.realpath(path))  # which no loop of links stops
    new_or_result = not os.path.exists(target) or target.suffix.lower() in (".json", ".html")
    for each in (path for path in read if path is not None):
        real = Path(os.path.realpath(each))
        if target == real or (real in target.parents and not new_or_result):
            raise ConfigError(
                f"{option} {path} must not replace what the command reads or writes besides, "
                f"{each}; name another file"
            )
    writable_folder(path.parent, f"{option} {path}: its folder")
    try:
        there = path.exists()
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
        return path
    except OSError as error:
        raise ConfigError(
            f"{option} {path} must be a file that can be written: {error.strerror}; name another"
        ) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a path to make a folder at; it is renamed to `path` when the block ends.

    It is in a new folder beside `path`, so nothing else is there. If the block raises, that is
    removed and `path` stays as it was.

    Raises:
        OSError: the folder beside `path` cannot be made.
        DataError: at the end, there is something at `path`; the new folder is kept then.
    """
    beside = Path(tempfile.mkdtemp(prefix=f"{path.name[:50]}.partial-", dir=path.parent))
    partial = beside / path.name
    try:
        yield partial
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    try:
        partial.rename(path)  # replaces an empty folder
    except OSError as error:
        raise DataError(
            f"{path} must be new or empty, but something was put there meanwhile "
            f"({error.strerror}): all is in {partial}, move it from there"
        ) from error
    beside.rmdir()


@contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Yield an empty folder that gets the name `folder` when the block ends.

    If the block raises, neither is left.

    Raises:
        ConfigError: see `require_new`, or it cannot be written; the message begins with `option`.
        DataError: see `atomic_folder`.
    """
    require_new(folder, option)
    target = Path(os.path.realpath(folder))
    writable_folder(target.parent, option)
    with atomic_folder(target) as partial:
        partial.mkdir()
        yield partial


def require_new(folder: Path, option: str) -> None:
    """Check that `folder` does not exist, or is empty.

    Raises:
        ConfigError: it has content, or is a file or a loop of links; the message begins with
            `option`.
    """
    loop = os.path.islink(os.path.realpath(folder))
    if loop or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigError(
            f"{option} {folder} must be new or empty: name another folder, or remove it"
        )


class StopRequest:
    """Inside `with`, notices SIGINT, SIGTERM and a file named `stop` in the run's folder.

    After a request, SIGINT has its previous effect again. A signal that the process ignores (as
    under nohup) stays ignored. Python handles signals in the main thread only; in other threads
    only the file works. An old `stop` file is removed at the start.
    """

    def __init__(self, run: Path) -> None:
        self._file = run / "stop"
        self._reason: str | None = None
        self._logged = False
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                previous = signal.getsignal(number)
                if previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self._previous):
            self._restore(number)

    @property
    def requested(self) -> str | None:
        """The reason to stop, or None. The first reason stays."""
        if self._reason is None and self._file.is_file():
            self._reason = f"the file {self._file}"
        if self._reason is not None and not self._logged:
            # not in the signal handler, which may interrupt another log line
            self._logged = True
            self._restore(signal.SIGINT)
            logger.info(
                "asked to stop by %s: stopping after this step; Ctrl-C now stops at once, unsaved",
                self._reason,
            )
        return self._reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._reason = self._reason or _SIGNALS[signal.Signals(number)]
        self._restore(signal.SIGINT)

    def _restore(self, number: signal.Signals) -> None:
        if number in self._previous:
            previous = self._previous.pop(number)
            # None: the previous handler was installed by C code
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


def shown_progress(frames: Iterable[T], total: int, task: str = "evaluate") -> Iterator[T]:
    """Yield the frames, and show progress as they are consumed; `task` labels the bar.

    `total` is the expected number, 0 if unknown; it may be wrong.
    """
    if sys.stderr.isatty():
        return _bar(frames, total, task)
    return _lines(frames, total)


def _bar(frames: Iterable[T], total: int, task: str) -> Iterator[T]:
    # imported here because not every installation that writes files has rich
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(frames, total=total or None, description=task)


def _lines(frames: Iterable[T], total: int) -> Iterator[T]:
    began, step = time.monotonic(), -(-total // PROGRESS_LINES) or UNKNOWN_STEP
    for done, frame in enumerate(frames, start=1):
        yield frame
        if done > total:
            if done % UNKNOWN_STEP == 0:
                sys.stderr.write(f"{done} frames\n")
        elif done % step == 0 or done == total:
            left = (time.monotonic() - began) * (total - done) / done
            sys.stderr.write(f"{done}/{total} frames, about {left:.0f} s left\n")
