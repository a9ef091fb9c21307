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
    """Files differ from what is wanted: a line for each difference. Other errors are one line."""


class ImageError(CamSegError):
    """An image (array, file or message) cannot be read."""


class DataError(CamSegError):
    """A data set or bag is missing, empty or inconsistent."""


class ConfigError(CamSegError):
    """An option or parameter has a value that does not fit."""


def camseg_command() -> str:
    """Return how the `camseg` command is started here, for advice.

    Installed by colcon it is not on PATH: programs are then in `lib/<package>`.
    """
    folder = Path(sys.argv[0]).parent
    return f"ros2 run {folder.name} camseg" if folder.parent.name == "lib" else "camseg"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, OpenCV or an engine says that memory does not suffice."""
    if isinstance(error, MemoryError):
        return True
    texts = ("insufficient memory", "bad_alloc", "bad allocation", "failed to allocate memory")
    return any(text in str(error).lower() for text in texts)


@contextmanager
def memory_for(picture: object) -> Iterator[None]:
    """Turn the error inside, if memory does not suffice, into one that names the picture.

    Raises:
        DataError: memory does not suffice.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(
            f"the memory does not suffice for {picture}: scale it down, or free some memory"
        ) from error
