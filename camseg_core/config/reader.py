"""Builds dataclasses from parsed JSON or YAML; checks every entry against its field's type."""

import difflib
import logging
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from camseg_core.errors import CamSegError

_T = TypeVar("_T")

logger = logging.getLogger(__name__)
_reported: set[tuple[str, str]] = set()
"""Lines already logged about renamed entries, by source."""

_LARGEST = sys.float_info.max

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 60


def renamed_from(name: str, values: Mapping[object, object] | None = None) -> dict[str, object]:
    """Return field metadata that lets files use an entry's old `name` and its old `values`.

    `build` then logs one line with the new ones. An example:
    `steps: int = field(default=1, metadata=renamed_from("iterations"))`.
    """
    return {"renamed_from": name, "renamed_values": values or {}}


def build(
    cls: type[_T], content: object, source: str, error: type[CamSegError], base: _T | None = None
) -> _T:
    """Build the dataclass `cls` from what a JSON or YAML parser returned.

    Fields may be bool, int, float, str, `Literal`, enums (given by value), tuples, `Mapping[str,
    ...]` of these, dataclasses, any of these `| None`, or a tuple `|` something else. Entries left
    out keep their default; in a nested dataclass, the default that the outer one gives it.

    Args:
        cls: a dataclass whose fields are annotated with the above.
        content: a mapping by field name.
        source: begins every message, such as the path of the file.
        error: what is raised.
        base: an instance whose values entries left out keep, in place of the defaults.

    Raises:
        CamSegError: as `error`; an entry is missing, unknown, of the wrong type, or refused by its
            dataclass. The message is one line and names the entry, such as `loop.steps`.
    """
    return _Reader(source, error).read(cls, content, "", MISSING if base is None else base)


class _Reader:
    """Reads entries; holds what every message needs."""

    def __init__(self, source: str, error: type[CamSegError]) -> None:
        self._source, self._error = source, error

    def read(self, cls: type[_T], content: object, place: str, base: Any) -> _T:
        """Read the entry at the dotted `place`; `base` is an instance to start from, or MISSING."""
        if not isinstance(content, Mapping):
            raise self._wrong(
                f"{place or 'the file'} must be entries with values, got {_show(content)}"
            )
        hints = get_type_hints(cls)
        known: dict[str, Field[Any]] = {
            field.name: field
            for field in fields(cls)  # type: ignore[arg-type]
            if field.init
        }
        content = self._with_new_names(content, known, place)
        self._refuse_unknown(content, list(known), place)
        inherited = {
            name: _default(field) if base is MISSING else getattr(base, name)
            for name, field in known.items()
        }
        values = {
            name: self._convert(hints[name], value, _join(place, name), inherited[name])
            for name, value in content.items()
        }
        values = {
            name: value for name, value in {**inherited, **values}.items() if value is not MISSING
        }
        missing = [_join(place, name) for name in known if name not in values]
        if missing:
            how_many = "one" if len(missing) == 1 else len(missing)
            raise self._wrong(
                f"{place or 'the file'} lacks {how_many} of its entries: {', '.join(missing)}"
            )
        try:
            return cls(**values)
        except (CamSegError, ValueError) as refusal:  # the dataclass's checks do not know the place
            raise self._wrong(f"{place}: {refusal}" if place else str(refusal)) from refusal

    def _wrong(self, what: str) -> CamSegError:
        return self._error(f"{self._source}: {what}")

    def _with_new_names(
        self, content: Mapping[Any, Any], known: Mapping[str, Field[Any]], place: str
    ) -> Mapping[Any, Any]:
        """`content` with renamed entries and values under their new names, each reported once."""
        content = dict(content)
        for name, field in known.items():
            old: Any = field.metadata.get("renamed_from")
            if old in content:
                if name in content:
                    raise self._wrong(
                        f"{_join(place, name)} is given twice: {old} is its old name, remove it"
                    )
                content[name] = content.pop(old)
                self._report(f"{_join(place, old)} is now called {name}")
            value = content.get(name)
            for before, now in field.metadata.get("renamed_values", {}).items():
                if type(value) is type(before) and value == before:
                    content[name] = now
                    self._report(f"{_join(place, name)}: {before} is now called {now}")
        return content

    def _report(self, text: str) -> None:
        if (self._source, text) not in _reported:
            _reported.add((self._source, text))
            logger.warning("%s: %s", self._source, text)

    def _refuse_unknown(self, content: Mapping[Any, object], known: list[str], place: str) -> None:
        unknown = [str(name) for name in content if name not in known]
        if not unknown:
            return
        close = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
        remedy = (
            f"did you mean {', '.join(_join(place, name) for name in close)}?"
            if close
            else "misspelt, or written by a newer camseg? Entries here: " + ", ".join(known)
        )
        raise self._wrong(
            f"unknown entries {', '.join(_join(place, name) for name in unknown)}: {remedy}"
        )

    def _convert(self, hint: Any, value: Any, place: str, inherited: Any) -> Any:
        """Return `value` as `hint` wants it; `inherited` is the field's default, or MISSING."""
        origin, options = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            if value is None and NoneType in options:
                return None
            hints = [option for option in options if option is not NoneType]
            lists = [option for option in hints if get_origin(option) is tuple]
            if len(hints) > 1:  # a list, or something else
                hints = lists if isinstance(value, list | tuple) else [*({*hints} - {*lists})]
            (hint,) = hints
            return self._convert(hint, value, place, MISSING if inherited is None else inherited)
        if is_dataclass(hint):
            assert isinstance(hint, type)
            return self.read(hint, value, place, inherited)
        if origin is Mapping:
            return self._mapping(options[1], value, place)
        if origin is tuple:
            return self._tuple(options, value, place)
        if origin is Literal:
            return self._choice({option: option for option in options}, value, place)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._choice({member.value: member for member in hint}, value, place)
        return self._scalar(hint, value, place)

    def _tuple(self, options: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise self._wrong(f"{place} must be a list, got {_show(value)}")
        hints = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(value) != len(hints):
            raise self._wrong(f"{place} must be a list of {len(hints)}, got {_show(value)}")
        return tuple(
            # one of several instances is named by its number, from 1
            self._convert(hint, item, f"{place}[{i}]" if is_dataclass(hint) else place, MISSING)
            for i, (hint, item) in enumerate(zip(hints, value, strict=True), start=1)
        )

    def _mapping(self, hint: Any, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise self._wrong(f"{place} must be values by name, got {_show(value)}")
        return {
            name: self._convert(hint, item, _join(place, name), MISSING)
            for name, item in value.items()
        }

    def _choice(self, choices: dict[Any, Any], value: Any, place: str) -> Any:
        for option, chosen in choices.items():
            if type(option) is type(value) and option == value:
                return chosen
        raise self._wrong(
            f"{place} must be one of {', '.join(map(str, choices))}, got {_show(value)}"
        )

    def _scalar(self, hint: Any, value: Any, place: str) -> Any:
        if hint not in (bool, int, float, str):
            raise TypeError(f"{place}: fields of type {hint} cannot be read")
        accepted = (int, float) if hint is float else hint
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise self._wrong(f"{place} must be of type {hint.__name__}, got {_show(value)}")
        if hint is float and not -_LARGEST <= value <= _LARGEST:  # nor NaN
            raise self._wrong(f"{place} must be a finite number, got {value}")
        return hint(value)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _show(value: object) -> str:
    """Return the value as one short line."""
    return "nothing" if value is None else _shortener.repr(value)
