"""Files that nobody ever finds half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; when the block ends, the file is moved to `path` in one step.

    The content is on the disk before the name is, so neither a kill nor a power cut leaves a broken file under that name. If the
    block raises, what it wrote is removed and what stood at `path` stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
