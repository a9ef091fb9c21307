"""The optional decoder that notices damage within JPEG images."""

from functools import cache
from types import ModuleType


@cache
def simplejpeg() -> ModuleType | None:
    """Return the package, or None if it is not installed: rosdep does not have it."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
