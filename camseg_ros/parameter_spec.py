"""The declaration of one parameter: checks values, describes itself to ROS and as JSON schema."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from camseg_core.diffusion.sampling import OPTIONS
from camseg_core.errors import ConfigError

Value = bool | str | int | float | tuple[str, ...] | tuple[float, ...]

NO_STRINGS = ("",)
"""Default of an empty list of strings: ROS cannot infer the type of []; blanks are ignored."""

TYPE_NAMES = {
    bool: "true/false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "no value",
}
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}

MIDDLEWARE_OWN = ("use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares itself; they may be in the same file."""

MAX_SHOWN = 200
"""Longest part of a value that an error repeats."""


@dataclass(frozen=True)
class Spec:
    """The declaration of one parameter; its type is that of `default`."""

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    several: bool = False
    """Whether a value may be several choices, separated by commas."""
    limits: tuple[float, float] | None = None
    per_camera: bool = False
    """Whether it may also be given for one camera, as `<camera>.<name>`."""
    fixed_because: str = ""
    """Why it cannot change while the node is configured; empty if it can."""
    fixed_for_good: bool = False
    """Whether it cannot change while the node is unconfigured either."""

    @property
    def takes(self) -> str:
        """Description of the valid values."""
        if self.choices:
            listed = ", or several separated by commas" if self.several else ""
            return f"one of {', '.join(self.choices)}{listed}"
        if not isinstance(self.default, tuple):
            kind = TYPE_NAMES[type(self.default)]
        elif isinstance(self.default[0], str):
            kind = "a list of strings"
        else:
            kind = f"a list of {len(self.default)} numbers"
        return f"{kind} from {self.limits[0]} to {self.limits[1]}" if self.limits else kind

    @property
    def fixed_while(self) -> str:
        """When the parameter cannot change: "runs", "is configured", or empty for never."""
        return "" if not self.fixed_because else "runs" if self.fixed_for_good else "is configured"

    @property
    def ros_default(self) -> Any:
        """The default in the form that rclpy takes."""
        return list(self.default) if isinstance(self.default, tuple) else self.default

    def check(self, value: object) -> Value:
        """Return `value` in the parameter's type. Accepts an integer as number; drops blank strings
        of a list.

        Raises:
            ConfigError: wrong type, not one of the choices, or out of range.
        """
        if isinstance(self.default, tuple):
            return self._check_list(value)
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(self.default):
            raise self._error(value, with_type=True)
        assert isinstance(value, bool | str | int | float)
        chosen: Sequence[object] = [value]
        if self.several and isinstance(value, str):
            chosen = [part.strip() for part in value.split(",")]
        if self.choices and not all(each in self.choices for each in chosen):
            raise self._error(value)
        if not self._within(value):
            raise self._error(value)
        return value

    def _check_list(self, value: object) -> tuple[str, ...] | tuple[float, ...]:
        assert isinstance(self.default, tuple)
        entry_types = (str,) if isinstance(self.default[0], str) else (int, float)
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise self._error(value, with_type=True)
        if not all(type(entry) in entry_types for entry in value):
            raise self._error(value, with_type=True)
        if str in entry_types:
            return tuple(entry for entry in value if entry.strip())
        if len(value) != len(self.default):
            raise self._error(value, with_type=True)
        if not all(map(self._within, value)):
            raise self._error(list(value))
        return tuple(map(float, value))

    def _within(self, value: object) -> bool:
        if not self.limits:
            return True
        return isinstance(value, int | float) and self.limits[0] <= value <= self.limits[1]

    def _error(self, value: object, with_type: bool = False) -> ConfigError:
        shown = repr(value)
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
        kind = f" ({TYPE_NAMES.get(type(value), 'a list')})" if with_type else ""
        words = isinstance(self.default, tuple) and isinstance(self.default[0], str)
        if words and isinstance(value, Sequence) and any(isinstance(each, bool) for each in value):
            kind += "; put y, n, yes, no, on and off in quotes"
        return ConfigError(f"parameter '{self.name}' must be {self.takes}, got {shown}{kind}")

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows; rclpy enforces the range on later changes."""
        changes = "may change while the node runs"
        if self.fixed_because:
            changes = f"fixed while the node {self.fixed_while}: {self.fixed_because}"
        constraints = f"{self.takes}; {changes}"
        if self.per_camera:
            constraints += f"; for one camera: <camera>.{self.name}"
        descriptor = ParameterDescriptor(
            description=self.description, additional_constraints=constraints
        )
        if self.limits and isinstance(self.default, int):
            low, high = map(int, self.limits)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        elif self.limits and isinstance(self.default, float):
            least, most = map(float, self.limits)
            descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
        return descriptor

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the parameter's value."""
        described = {"description": self.description, "default": self.ros_default}
        if not isinstance(self.default, tuple):
            return {**described, "type": JSON_TYPES[type(self.default)], **self._json_range()}
        items = {"type": JSON_TYPES[type(self.default[0])], **self._json_range()}
        listed = {**described, "type": "array", "items": items}
        if isinstance(self.default[0], str):
            return listed
        return {**listed, "minItems": len(self.default), "maxItems": len(self.default)}

    def _json_range(self) -> dict[str, Any]:
        if self.limits:
            return {"minimum": self.limits[0], "maximum": self.limits[1]}
        if self.several:
            one = "|".join(self.choices)  # letters, digits and _ need no escape in a pattern
            return {"pattern": rf"^\s*({one})\s*(,\s*({one})\s*)*$"}
        return {"enum": list(self.choices)} if self.choices else {}


def parameter(default: Value, description: str, **spec: Any) -> Any:
    """Return the dataclass field of a parameter; see `Spec` for the keywords."""
    value = () if default == NO_STRINGS else default
    return field(default=value, metadata={"spec": Spec("", default, description, **spec)})


def sampling_parameter(name: str) -> Any:
    """Return the dataclass field of one of the sampling options, as `Sampling` declares it."""
    option = next(each for each in OPTIONS if each.name == name)
    default, text, least = option.default, option.help, option.minimum
    if default is None:  # ROS has no None
        default, text, least = -1.0, f"{text} Below 0: the model's own.", -1.0
    most = option.maximum if option.node_maximum is None else option.node_maximum
    limits = None if least is None or most is None else (option.kind(least), option.kind(most))
    return parameter(default, text, choices=option.choices, limits=limits)


def file_schema(specs: Iterable[Spec]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a parameter file with these parameters under `/**`
    or the node's name.

    It rejects what `Spec.check` rejects, with two exceptions of JSON itself: it accepts 2.0 for the
    integer 2, and it has no NaN. Parameters of one camera are in a mapping under the camera's name.
    Entries of other nodes are ignored.
    """
    specs = list(specs)
    camera = {
        "type": "object",
        "description": "Values for the camera of this name.",
        "properties": {spec.name: spec.json_schema() for spec in specs if spec.per_camera},
        "additionalProperties": False,
    }
    middleware = {name: {"type": "boolean"} for name in MIDDLEWARE_OWN}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of camseg_ros",
        "$comment": "Generated by `python -m camseg_ros.parameters`; do not edit.",
        "type": "object",
        "properties": {"/**": {"$ref": "#/$defs/node"}, "segmentation": {"$ref": "#/$defs/node"}},
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"ros__parameters": {"$ref": "#/$defs/parameters"}},
                "required": ["ros__parameters"],
                "additionalProperties": False,
            },
            "parameters": {
                "type": "object",
                "properties": {**{spec.name: spec.json_schema() for spec in specs}, **middleware},
                "additionalProperties": camera if camera["properties"] else False,
            },
        },
    }
