"""YAML files to dataclasses and back; separate from `reader`, as a vehicle may lack PyYAML."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]

from camseg_core.config.reader import build
from camseg_core.errors import ConfigError

_T = TypeVar("_T")


def load_yaml(
    path: Path | None, cls: type[_T], overrides: Sequence[str] = (), of_list: str | None = None
) -> _T:
    """Read the dataclass `cls` from a YAML file, and apply `overrides` such as `loop.steps=100`.

    Without a file, all entries have their default. Entries that the file leaves out keep theirs,
    see `build`. A file that is a list is read as the entry `of_list`.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or an entry of it or of an override is
            missing, unknown, given twice, or of the wrong type; one line that names both.
    """
    content = None if path is None else read_yaml(path)
    if of_list is not None and isinstance(content, list):
        content = {of_list: content}
    # a file of nothing but comments is empty
    config = build(cls, {} if content is None else content, str(path), ConfigError)
    for override in overrides:
        place, equals, text = override.partition("=")
        names = place.strip().split(".")
        if not equals or not all(names):
            raise ConfigError(f"--set {override}: expected ENTRY=VALUE, such as loop.steps=100")
        try:
            content = _parse(text)
        except ValueError as error:
            raise ConfigError(f"--set {override}: {error}") from error
        for name in reversed(names):
            content = {name: content}
        config = build(cls, content, f"--set {override}", ConfigError, base=config)
    return config


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        ConfigError: it cannot be read, or is not YAML; one line.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a configuration in YAML: {error}") from error


def is_list(path: Path, name: str) -> bool:
    """Whether a file that `load_yaml` can read is a list, or has the entry `name` alone.

    False for a file that is not YAML or cannot be read, which `load_yaml` reports.
    """
    try:
        content = read_yaml(path)
    except ConfigError:
        return False
    return isinstance(content, list) or (isinstance(content, dict) and [*content] == [name])


def to_yaml(instance: Any, width: int = 120) -> str:
    """Write the dataclass as YAML, in the order of its fields; `load_yaml` reads it back.

    Lists and mappings on one line break after the entry that passes `width` characters.
    """
    return str(
        yaml.dump(
            asdict(instance), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width
        )
    )


def _parse(text: str) -> Any:
    """Parse YAML to plain values; a ValueError says in one line what is wrong and where."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark is not None else ""
        raise ValueError(f"{error.problem or error.context}{where}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, except that entries given twice are refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} is given twice "
                f"(in what begins at line {node.start_mark.line + 1})"
            )
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """PyYAML's safe dumper, with lists on one line."""


def _list(dumper: _Dumper, items: Sequence[Any]) -> Any:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(tuple, _list)
_Dumper.add_representer(list, _list)
_Dumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))

_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def _int(loader: _Loader, node: Any) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0) if "x" in text or "b" in text else int(text)


# in YAML 1.1, which PyYAML follows, 010 is 8 and 1:30 is 90; YAML 1.2 has 10, and text
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT,
    re.compile(r"[-+]?(?:0x[0-9a-fA-F][0-9a-fA-F_]*|0b[01][01_]*|[0-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor(_INT, _int)

# in YAML 1.1, 1e-3 is text because it has no dot; YAML 1.2 has it a number
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        _FLOAT,
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )
