"""What one parameter of the node is: its type, range, choices and meaning, and the check of a value against them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from camseg_core.errors import ConfigError

Value = bool | str | int | float | tuple[str, ...] | tuple[float, ...]

TYPE_NAMES = {
    bool: "true/false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "no value",
}


@dataclass(frozen=True)
class Spec:
    """The declaration of one parameter; the type is that of `default`.

    A list of strings has the default `("",)`: ROS cannot tell an empty list's type, so blank entries stand for none.
    """

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    several: bool = False
    """Whether a value may be several of the choices, with commas between."""
    limits: tuple[float, float] | None = None
    per_camera: bool = False
    """Whether it may also be given for one camera, as `<camera>.<name>`."""
    fixed_because: str = ""
    """Why it cannot change while the node is configured; empty if it can."""
    fixed_for_good: bool = False
    """Whether it cannot change while the node is unconfigured either."""

    @property
    def takes(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}" + (
                ", or several with commas between" if self.several else ""
            )
        if isinstance(self.default, tuple):
            kind = (
                "a list of strings"
                if isinstance(self.default[0], str)
                else f"a list of {len(self.default)} numbers"
            )
        else:
            kind = TYPE_NAMES[type(self.default)]
        return f"{kind} from {self.limits[0]} to {self.limits[1]}" if self.limits else kind

    def check(self, value: object) -> Value:
        """`value` in the parameter's type; an integer will do for a number, and a list loses its blank strings.

        Raises:
            ConfigError: wrong type, not one of the choices, or out of range; names the parameter, what it got and takes.
        """
        if isinstance(self.default, tuple):
            return self._check_list(value)
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(self.default):
            raise self._refusal(value, f" ({_type_name(value)})")
        assert isinstance(value, bool | str | int | float)
        chosen = (
            [part.strip() for part in value.split(",")]
            if self.several and isinstance(value, str)
            else [value]
        )
        if self.choices and not all(each in self.choices for each in chosen):
            raise self._refusal(value)
        if not self._within(value):
            raise self._refusal(value)
        return value

    def _check_list(self, value: object) -> tuple[str, ...] | tuple[float, ...]:
        entries = (
            None
            if isinstance(value, str | bytes) or not isinstance(value, Sequence)
            else list(value)
        )
        assert isinstance(self.default, tuple)
        if isinstance(self.default[0], str):
            if entries is None or not all(isinstance(entry, str) for entry in entries):
                raise self._refusal(value, f" ({_type_name(value)})")
            return tuple(entry for entry in entries if entry.strip())
        if (
            entries is None
            or len(entries) != len(self.default)
            or not all(type(entry) in (int, float) for entry in entries)
        ):
            raise self._refusal(value, f" ({_type_name(value)})")
        if not all(map(self._within, entries)):
            raise self._refusal(entries)
        return tuple(map(float, entries))

    def _within(self, value: object) -> bool:
        return not self.limits or (
            isinstance(value, int | float) and self.limits[0] <= value <= self.limits[1]
        )

    def _refusal(self, value: object, kind: str = "") -> ConfigError:
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        return ConfigError(f"parameter '{self.name}' takes {self.takes}, got {shown}{kind}")

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows; rclpy enforces the range on later changes."""
        if self.fixed_because:
            changes = f"fixed while the node {'runs' if self.fixed_for_good else 'is configured'}: {self.fixed_because}"
        else:
            changes = "may change while the node runs"
        constraints = f"takes {self.takes}; {changes}"
        if self.per_camera:
            constraints += f"; for one camera: <camera>.{self.name}"
        descriptor = ParameterDescriptor(
            description=self.description, additional_constraints=constraints
        )
        if self.limits and isinstance(self.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.limits[0]), to_value=int(self.limits[1]))
            ]
        elif self.limits and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(self.limits[0]), to_value=float(self.limits[1]))
            ]
        return descriptor

    @property
    def ros_default(self) -> Any:
        """The default as rclpy takes it."""
        return list(self.default) if isinstance(self.default, tuple) else self.default


def _type_name(value: object) -> str:
    return TYPE_NAMES.get(type(value), "a list")
