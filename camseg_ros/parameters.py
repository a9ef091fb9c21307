"""Every parameter of the node: name, type, range, default, meaning, and whether it may change while the node runs."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from camseg_core.errors import ConfigError
from camseg_core.model.passes import ORDERS
from camseg_core.model.samplers import SAMPLERS
from camseg_core.runtime.graphs import AUTO, PRECISIONS
from camseg_core.runtime.providers import PROVIDERS

Value = str | int | float

MIDDLEWARE_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters that rclpy itself declares; they may stand in the same file."""


@dataclass(frozen=True)
class Spec:
    """The declaration of one parameter; the type is that of `default`."""

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    several: bool = False
    """Whether a value may be several of the choices, with commas between."""
    limits: tuple[float, float] | None = None
    fixed_because: str = ""
    """Why it cannot change while the node runs; empty if it can."""

    @property
    def takes(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}" + (", or several with commas between" if self.several else "")
        kind = {str: "a string", int: "an integer", float: "a number"}[type(self.default)]
        return f"{kind} from {self.limits[0]} to {self.limits[1]}" if self.limits else kind

    def check(self, value: object) -> Value:
        """`value` in the parameter's type; an integer will do for a number.

        Raises:
            ConfigError: wrong type, not one of the choices, or out of range; names the parameter, what it got and takes.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(self.default):
            raise ConfigError(f"parameter '{self.name}' takes {self.takes}, got {value!r} ({_type_name(value)})")
        assert isinstance(value, str | int | float)
        chosen = [part.strip() for part in value.split(",")] if self.several and isinstance(value, str) else [value]
        if self.choices and not all(each in self.choices for each in chosen):
            raise ConfigError(f"parameter '{self.name}' takes {self.takes}, got {value!r}")
        if self.limits and not (isinstance(value, int | float) and self.limits[0] <= value <= self.limits[1]):
            raise ConfigError(f"parameter '{self.name}' takes {self.takes}, got {value!r}")
        return value

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows; rclpy enforces the range on later changes."""
        changes = f"fixed while the node runs: {self.fixed_because}" if self.fixed_because else "may change while the node runs"
        descriptor = ParameterDescriptor(description=self.description, additional_constraints=f"takes {self.takes}; {changes}")
        if self.limits and isinstance(self.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(self.limits[0]), to_value=int(self.limits[1]))]
        elif self.limits:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(self.limits[0]), to_value=float(self.limits[1]))]
        return descriptor


def _type_name(value: object) -> str:
    names = {bool: "true/false", int: "an integer", float: "a number", str: "a string", type(None): "no value"}
    return names.get(type(value), "a list")


RELOAD = "it is part of the model as loaded; restart the node with the new value"
RECONNECT = "it belongs to the connection to the camera; restart the node with the new value"

SPECS: tuple[Spec, ...] = (
    Spec("model", "camseg-lite", "Name of a bundled model, or a checkpoint folder.", fixed_because=RELOAD),
    Spec(
        "provider",
        "cpu",
        "Where the model runs, the first that starts of those named; cuda and tensorrt need onnxruntime-gpu.",
        choices=tuple(PROVIDERS),
        several=True,
        fixed_because=RELOAD,
    ),
    Spec(
        "precision",
        AUTO,
        "What the model computes in; auto takes the best for the provider of what the checkpoint folder has (camseg export makes others).",
        choices=(AUTO, *PRECISIONS),
        fixed_because=RELOAD,
    ),
    Spec(
        "engine_cache",
        "",
        "Folder in which TensorRT keeps the engines that it builds; empty: none, they are built at every start.",
        fixed_because=RELOAD,
    ),
    Spec("threads", 0, "CPU threads for the model; 0 = all cores.", limits=(0, 64), fixed_because=RELOAD),
    Spec(
        "sampler",
        "one_step",
        "How the mask is denoised: one_step is the fastest, the others refine it over several steps.",
        choices=tuple(SAMPLERS),
        fixed_because=RELOAD,
    ),
    Spec("steps", 1, "Denoising steps; more take longer. one_step has one.", limits=(1, 1000), fixed_because=RELOAD),
    Spec(
        "temperature",
        -1.0,
        "What the noise is scaled by; below 0: the model's own.",
        limits=(-1.0, 10.0),
        fixed_because=RELOAD,
    ),
    Spec("eta", 0.0, "Share of noise that ddim adds on the way.", limits=(0.0, 1.0), fixed_because=RELOAD),
    Spec("samples", 1, "Masks drawn of a frame, whose probabilities are averaged; more take longer.", limits=(1, 64), fixed_because=RELOAD),
    Spec("passes", 1, "Passes of the transformer in which a mask is revealed; more take longer.", limits=(1, 64), fixed_because=RELOAD),
    Spec(
        "order",
        ORDERS[0],
        "Which part of the mask is revealed first, with more than one pass.",
        choices=ORDERS,
        fixed_because=RELOAD,
    ),
    Spec(
        "seed", 0, "Start of the random numbers: the same seed and image give the same mask.", limits=(0, 2**32 - 1), fixed_because=RELOAD
    ),
    Spec(
        "image_transport",
        "raw",
        "raw subscribes to sensor_msgs/Image on 'image'; compressed to sensor_msgs/CompressedImage (JPEG or PNG) on 'image/compressed'.",
        choices=("raw", "compressed"),
        fixed_because=RECONNECT,
    ),
    Spec(
        "image_reliability",
        "best_effort",
        "QoS of the subscription: best_effort hears every publisher; reliable only reliable ones, and resends lost images.",
        choices=("best_effort", "reliable"),
        fixed_because=RECONNECT,
    ),
    Spec("overlay_opacity", 0.5, "How strongly the classes cover the image in segmentation/overlay.", limits=(0.0, 1.0)),
    Spec(
        "max_image_bytes",
        100_000_000,
        "Most bytes that one image may have, as a message and decoded to RGB; larger ones are rejected before they are decoded.",
        limits=(1, 4_000_000_000),
        fixed_because="it guards the node against hostile input; restart the node with the new value",
    ),
    Spec(
        "diagnostics_period",
        1.0,
        "Seconds between two messages on /diagnostics.",
        limits=(0.1, 60.0),
        fixed_because="the timer is made at start; restart the node with the new value",
    ),
)


@dataclass(frozen=True)
class Parameters:
    """The checked values, one field for each parameter of `SPECS`."""

    model: str
    provider: str
    precision: str
    engine_cache: str
    threads: int
    sampler: str
    steps: int
    temperature: float
    eta: float
    samples: int
    passes: int
    order: str
    seed: int
    image_transport: str
    image_reliability: str
    overlay_opacity: float
    max_image_bytes: int
    diagnostics_period: float


def declare(node: Node) -> tuple[Parameters, list[str]]:
    """Declare every parameter on `node` and read what the user gave for it.

    `node` must have been made with `automatically_declare_parameters_from_overrides=True`: that is how values of the wrong
    type and unknown names can be seen here and told properly.

    Returns:
        The values, and one warning for each parameter that the node does not know.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """
    values: dict[str, Value] = {}
    for spec in SPECS:
        values[spec.name] = spec.default
        if node.has_parameter(spec.name):
            values[spec.name] = spec.check(node.get_parameter(spec.name).value)
            node.undeclare_parameter(spec.name)
        node.declare_parameter(spec.name, values[spec.name], spec.descriptor(), ignore_override=True)
    warnings = []
    for name in sorted(node.get_parameters_by_prefix("")):
        if name not in values and name.split(".")[0] not in MIDDLEWARE_OWN:
            node.undeclare_parameter(name)
            close = difflib.get_close_matches(name, values, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(values)}"
            warnings.append(f"unknown parameter '{name}' is ignored; {remedy}")
    return Parameters(**values), warnings  # type: ignore[arg-type]  # each value has its default's type, and a test holds the fields against the defaults


def change(current: Parameters, wanted: "Sequence[Parameter[Any]]") -> tuple[Parameters, SetParametersResult]:
    """Answer a request to set parameters while the node runs: all of `wanted` or none.

    Returns:
        The values from now on, and the answer, which says why if the request was refused.
    """
    by_name = {spec.name: spec for spec in SPECS}
    changed: dict[str, Value] = {}
    for parameter in wanted:
        spec = by_name.get(parameter.name)
        if spec is None:  # rclpy's own
            continue
        try:
            value = spec.check(parameter.value)
        except ConfigError as error:
            return current, SetParametersResult(successful=False, reason=str(error))
        if spec.fixed_because and value != getattr(current, spec.name):
            reason = f"parameter '{spec.name}' cannot change while the node runs: {spec.fixed_because}"
            return current, SetParametersResult(successful=False, reason=reason)
        changed[spec.name] = value
    return replace(current, **changed), SetParametersResult(successful=True)  # type: ignore[arg-type]
