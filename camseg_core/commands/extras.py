"""Imports of what only some commands need, with an error that says how to get it."""

from collections.abc import Iterator
from contextlib import contextmanager

from camseg_core.errors import ConfigError


@contextmanager
def packages_for(task: str, extra: str) -> Iterator[None]:
    """For the imports of what `task` needs, which the project's `extra` brings.

    Raises:
        ConfigError: a package is not installed; the message says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "camseg_core"):
            raise
        raise ConfigError(f"{task} needs {package}, which is not installed: pip install '.[{extra}]' in the project's folder") from error
