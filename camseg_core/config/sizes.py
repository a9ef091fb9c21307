"""Checks of the sizes in a model's configuration."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from camseg_core.errors import ModelError

MOST = 2**16
"""The largest size that is taken: far beyond what fits into memory."""


def check_sizes(
    config: Any, may_be_zero: Collection[str] = (), without: Collection[str] = ()
) -> None:
    """Check every whole number of a dataclass, alone or in a tuple.

    Args:
        config: an instance; fields of other types are left out.
        may_be_zero: names of the fields that may be 0.
        without: names of the fields that have no limit.

    Raises:
        ModelError: one is below 1, or above `MOST`.
    """
    for name in (field.name for field in fields(config) if field.name not in without):
        value = getattr(config, name)
        sizes = value if isinstance(value, tuple) else (value,)
        if not all(type(size) is int for size in sizes):
            continue
        least = 0 if name in may_be_zero else 1
        if not all(least <= size <= MOST for size in sizes):
            shown = list(value) if isinstance(value, tuple) else value
            raise ModelError(f"{name} must be from {least} to {MOST}, got {shown}")
