"""The project's own errors. Each says what must hold, what was found, where, and what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CamSegError(Exception):
    """Base of the errors that the project raises on purpose; the text can be shown to a user."""


class ModelError(CamSegError):
    """A checkpoint folder is missing, incomplete, damaged, or lacks what is asked for."""


class ModelDifferences(ModelError):
    """Files differ from what is expected; one line per difference, unlike other errors."""


class ImageError(CamSegError):
    """An image (array, file or message) cannot be read."""


class DataError(CamSegError):
    """A data set or bag is missing, empty or inconsistent."""


class ConfigError(CamSegError):
    """An option or parameter has a value that does not fit."""


def camseg_command() -> str:
    """Return how to start the `camseg` command here, for messages.

    A colcon installation does not put it on PATH: its programs are in `lib/<package>`.
    """
    folder = Path(sys.argv[0]).parent
    return f"ros2 run {folder.name} camseg" if folder.parent.name == "lib" else "camseg"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, OpenCV or an engine means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    texts = ("insufficient memory", "bad_alloc", "bad allocation", "failed to allocate memory")
    return any(text in str(error).lower() for text in texts)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def memory_for(picture: object) -> Iterator[None]:
    """Turn an out-of-memory error inside the block into one that names the picture.

    Raises:
        DataError: there is not enough memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(
            f"not enough memory for {picture}: scale it down, or free some memory"
        ) from error


def absent(path: Path) -> str:
    """Return the path of a file that is not there, with what stands in its place."""
    if path.is_dir():
        return f"{path} (a folder)"
    return f"{path} (a link to nothing)" if path.is_symlink() else str(path)
