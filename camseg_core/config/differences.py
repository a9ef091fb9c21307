"""How two configurations differ, in words."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

LISTED = 3
"""Entries that are named; of more, the number."""


def differences(before: Any, now: Any) -> str:
    """Return the entries in which two dataclasses of one type differ; "" if they do not.

    Of files that say what labels mean, only the name is compared.
    """
    there, here = _entries(asdict(before)), _entries(asdict(now))
    found = [
        f"{name} is {there.get(name, 'missing')} there, {here.get(name, 'missing')} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    more = [f"{len(found) - LISTED} more"] if len(found) > LISTED else []
    return ", ".join([*found[:LISTED], *more])


def _entries(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested dictionaries and lists of them as one, by dotted names."""
    items: Iterable[tuple[object, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
        items = enumerate(value)
    if not items:
        of_labels = name == "classes" or name.endswith((".mapping", ".labels"))
        return {name: Path(value).name if of_labels and isinstance(value, str) else value}
    prefix = f"{name}." if name else ""
    return {
        key: entry
        for part, each in items
        for key, entry in _entries(each, f"{prefix}{part}").items()
    }
