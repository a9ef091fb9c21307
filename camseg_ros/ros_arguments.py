"""What `--ros-args` gives a node, read before the node exists.

rclpy reads parameters only through a node, which is a participant in the middleware already. This
follows rcl's rules, so that most mistakes are found first; the node then asks rcl all the same.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from camseg_core.errors import ConfigError

PARAMETERS_KEY = "ros__parameters"
EVERY_NODE = "/**"
FORM = f"must hold parameters, as in {EVERY_NODE}: {{{PARAMETERS_KEY}: {{model: camseg-lite}}}}"

_NAME = r"(?!\d)(?!\w*__)\w+"
"""A node's name, or a part of a namespace, with `re.ASCII`."""

_TRUE = ("Y", "y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("N", "n", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_INTEGER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")


@dataclass
class RosArguments:
    """The arguments of one node.

    Attributes:
        node: the node's full name, such as `/front/segmentation`.
        values: the parameters given for it, by name; later arguments win.
        entries: for each parameter file, the names of nodes that it has parameters for.
    """

    node: str
    values: dict[str, Any] = field(default_factory=dict)
    entries: dict[Path, list[str]] = field(default_factory=dict)


class NotUnderstood(Exception):
    """The arguments have a form that this module does not read."""


class _WrongForm(NotUnderstood):
    """YAML that is no parameter file."""


def parse(arguments: Sequence[str], default_name: str) -> RosArguments:
    """Read the arguments of a command line for the node with this default name.

    Raises:
        ConfigError: the node's name or namespace is invalid; see also `read_file`.
        NotUnderstood: they are invalid, or have a form that only rcl reads.
    """
    name, namespace = None, None
    files: dict[Path, list[str]] = {}
    given: dict[str, dict[str, Any]] = {}
    for option, value in _options(arguments):
        if option in ("-r", "--remap"):
            rule, _, target = (part.strip() for part in value.partition(":="))
            if rule.endswith((":__node", ":__name", ":__ns")):
                raise NotUnderstood(f"a rule for one node only: {value}")
            if rule in ("__node", "__name"):  # as in rcl, the first rule counts
                name = _checked_name(target) if name is None else name
            elif rule == "__ns":
                namespace = _checked_namespace(target) if namespace is None else namespace
        elif option in ("-p", "--param"):
            left, assigned, text = value.partition(":=")
            node, _, parameter = left.strip().rpartition(":")
            if not assigned or not parameter:
                raise NotUnderstood(value)
            given.setdefault(node or EVERY_NODE, {})[parameter] = _value(_compose(text))
        elif option == "--params-file":
            path = Path(value)
            found = read_file(path)
            files[path] = list(found)
            for node, values in found.items():
                given.setdefault(node, {}).update(values)
    result = RosArguments(f"{namespace or ''}/{name or default_name}", entries=files)
    for node, values in given.items():
        if matches(node, result.node):
            result.values.update(values)
    return result


def _checked_name(name: str) -> str:
    if not re.fullmatch(_NAME, name, re.ASCII):
        form = "must have letters, digits and single _, not a digit first"
        raise ConfigError(f"the node's name {form}, got {name!r}; write {_valid(name)}")
    return name


def _checked_namespace(namespace: str) -> str:
    """Return the namespace; empty for the root."""
    if not re.fullmatch(rf"/|(/{_NAME})+", namespace, re.ASCII):
        form = "must be / or like /robot/front: letters, digits and single _, no / at the end"
        parts = [_valid(part) for part in namespace.strip("~/").split("/") if part]
        better = "/" + "/".join(parts)
        raise ConfigError(f"the namespace {form}, got {namespace!r}; write {better}")
    return namespace.rstrip("/")


def _valid(name: str) -> str:
    """Return the most similar name that rcl takes."""
    valid = re.sub(r"[\W_]+", "_", name, flags=re.ASCII).strip("_")
    return f"_{valid}" if valid[:1].isdigit() else valid or "segmentation"


def read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Return the parameters in a parameter file, by the names of the nodes that they are for.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has no parameters. rcl would take an
            empty file, or one with text, for a file without parameters.
        NotUnderstood: it has tags or anchors, which rcl reads in its own way.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        text = path.read_text(encoding="utf-8")
        if _only_for_rcl(text):
            raise NotUnderstood(f"{path} has tags or anchors")
        for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
            found.update(_nodes(document))
    except OSError as error:
        raise ConfigError(f"parameter file {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"parameter file {path} must be YAML: {reason}") from error
    except _WrongForm as error:
        raise ConfigError(f"parameter file {path} {FORM}, but {error}") from error
    if not found:
        raise ConfigError(f"parameter file {path} {FORM}, but has none")
    return found


def unmatched(arguments: Sequence[str], node: str) -> list[str]:
    """Return one sentence for each parameter file without an entry for the node of this name."""
    texts = []
    for option, value in _options(arguments):
        if option != "--params-file":
            continue
        try:
            entries = list(read_file(Path(value)))
        except (ConfigError, NotUnderstood):  # reported elsewhere
            continue
        if not any(matches(entry, node) for entry in entries):
            texts.append(
                f"parameter file {value} has no effect: it has no entry for this node, {node}, "
                f"only for {', '.join(entries)}; rename one to {node} or {EVERY_NODE}"
            )
    return texts


def matches(entry: str, node: str) -> bool:
    """Return whether an entry of a parameter file, such as `/**`, is for the node of this name."""
    rooted = entry if entry.startswith("/") else f"/{entry}"
    pattern = "".join(
        r"(/\w+)" if part == "/*" else part if part == "*" else re.escape(part)
        for part in re.split(r"(/\*|\*)", rooted)
    )
    return re.fullmatch(pattern, node) is not None


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options between `--ros-args` and `--` that take a value, with the value."""
    inside, words = False, iter(arguments)
    for word in words:
        if word in ("--ros-args", "--"):
            inside = word == "--ros-args"
        elif inside and word in ("-r", "--remap", "-p", "--param", "--params-file"):
            yield word, next(words, "")


def _only_for_rcl(text: str) -> bool:
    """Return whether YAML has tags or anchors, which rcl takes or refuses in its own way."""
    kinds = (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken)
    return any(isinstance(token, kinds) for token in yaml.scan(text))


def _compose(text: str) -> yaml.Node:
    try:
        if _only_for_rcl(text):
            raise NotUnderstood(f"YAML with tags or anchors: {text[:40]}")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise NotUnderstood(str(error)) from error
    if node is None:
        raise NotUnderstood("no value")
    return node


def _nodes(node: yaml.Node, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each node's name in a parameter file, with its parameters."""
    for key, value in _entries(node):
        if key == PARAMETERS_KEY:
            yield path, dict(_parameters(value))
        else:
            yield from _nodes(value, f"{path}/{key.strip('/')}" if path else key)


def _parameters(node: yaml.Node, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the parameters of a mapping, with the names of nested ones joined by dots."""
    for key, value in _entries(node):
        if isinstance(value, yaml.MappingNode):
            yield from _parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _value(value)


def _entries(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _WrongForm(f"has no mapping at line {node.start_mark.line + 1}")
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _WrongForm(f"the key at line {key.start_mark.line + 1} is no name")
        yield key.value, value


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(each) for each in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise _WrongForm(f"has a mapping within a list at line {node.start_mark.line + 1}")
    text = node.value
    if node.style in ("'", '"'):
        return text
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        octal = re.fullmatch(r"[+-]?0[0-7]+", text)
        return int(text, 8 if octal else 0)
    number = _number(text)
    return text if number is None else number


def _number(text: str) -> float | None:
    """Return the number that C's `strtod` reads; None if it reads none, or one out of range."""
    if re.fullmatch(r"[+-]?\.(nan|NaN|NAN|inf|Inf|INF)", text):
        return float(text.replace(".", ""))
    try:
        hexadecimal = "x" in text.lower()
        value = float.fromhex(text) if hexadecimal else float("" if "_" in text else text)
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(value) and "inf" not in text.lower() else value
