"""Reads the node's parameters at the start, and answers requests to change them."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.runtime.providers import compiles, provider_list
from camseg_ros.camera import CAMERA_INFO, camera_topic, remapped
from camseg_ros.parameter_spec import MIDDLEWARE_OWN, Spec, Value
from camseg_ros.parameters import BY_NAME, SPECS, Parameters
from camseg_ros.process import rcl_text

CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

DEFAULTS = Parameters()

Check = Callable[[Parameters], None]
"""Raises CamSegError if the values do not fit the loaded model."""


def read(given: Mapping[str, Any]) -> tuple[Parameters, list[str]]:
    """Check the values the user gave, by name; defaults fill in for the others.

    Returns:
        The values, and one warning for each parameter that is unknown or has no effect.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or values do not fit together.
    """
    values = {spec.name: spec.check(given.get(spec.name, spec.ros_default)) for spec in SPECS}
    cameras = values["cameras"]
    assert isinstance(cameras, tuple)
    possible = {
        f"{camera}.{spec.name}": _renamed(spec, f"{camera}.{spec.name}")
        for camera in cameras
        for spec in SPECS
        if spec.per_camera
    }
    own = {name: spec.check(given[name]) for name, spec in possible.items() if name in given}
    warnings = [
        f"unknown parameter '{name}' is ignored; {_hint(name, cameras, possible)}"
        for name in sorted(given)
        if name not in values and name not in own and name.split(".")[0] not in MIDDLEWARE_OWN
    ]
    parameters = Parameters(**values, own=own)  # type: ignore[arg-type]  # `Spec.check` did
    check_together(parameters)
    return parameters, [*warnings, *without_effect(parameters)]


def declare(node: Node) -> tuple[Parameters, list[str]]:
    """Declare every parameter on `node` with the values the user gave.

    `node` must have been created with `automatically_declare_parameters_from_overrides=True`, so
    that values of the wrong type and unknown names are reported by `read`, with a helpful message.

    Returns:
        The values, and the warnings of `read`.

    Raises:
        ConfigError: see `read`.
    """
    given = {name: each.value for name, each in node.get_parameters_by_prefix("").items()}
    parameters, warnings = read(given)
    for spec in SPECS:
        _declare(node, spec, getattr(parameters, spec.name))
    for name, value in parameters.own.items():
        _declare(node, _renamed(BY_NAME[name.rpartition(".")[2]], name), value)
    for name in given.keys() - BY_NAME.keys() - parameters.own.keys():
        if name.split(".")[0] not in MIDDLEWARE_OWN:
            node.undeclare_parameter(name)
    return parameters, warnings


def _hint(name: str, cameras: tuple[Any, ...], possible: Mapping[str, Spec]) -> str:
    """Return advice for an unknown parameter name."""
    camera, _, last = name.rpartition(".")
    if name.split(".")[0] == "qos_overrides":
        return "set image_reliability or output_reliability"
    if camera in cameras and last in BY_NAME:
        return f"'{last}' is the same for all cameras"
    close = difflib.get_close_matches(name, [*BY_NAME, *possible], n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(BY_NAME)}"


def _declare(node: Node, spec: Spec, value: Value) -> None:
    """Declare a parameter with type and range."""
    if node.has_parameter(spec.name):  # from the user's value, without them
        node.undeclare_parameter(spec.name)
    # an empty list has no type in ROS, so declare the default instead
    shown = (list(value) or spec.ros_default) if isinstance(value, tuple) else value
    node.declare_parameter(spec.name, shown, spec.descriptor(), ignore_override=True)


def _renamed(spec: Spec, name: str) -> Spec:
    """Return the spec under the name of a single camera's parameter, if `name` is one."""
    return spec if name == spec.name else replace(spec, name=name, per_camera=False)


def check_together(parameters: Parameters) -> None:
    """Check what involves more than one value.

    Raises:
        ConfigError: a camera's name is invalid or used twice, a topic's name is invalid, resize
            mode and region do not fit together, or neither do providers.
    """
    provider_list(parameters.provider)
    for name in parameters.cameras:
        problem = ""
        if not CAMERA_NAME.fullmatch(name):
            problem = "must hold names of letters, digits and _, starting with a letter"
        elif name in BY_NAME:
            problem = "must not hold the name of a parameter"
        elif parameters.cameras.count(name) > 1:
            problem = "must not hold a name twice"
        if problem:
            raise ConfigError(f"parameter 'cameras' {problem}, got {name!r}")
    for name, each in parameters.by_camera.items():
        _check_topic(name, "image_topic", each.image_topic)
        if each.camera_info_topic:
            _check_topic(name, "camera_info_topic", each.camera_info_topic)
        try:
            each.fit  # noqa: B018  # it raises
        except ConfigError as error:
            raise ConfigError(f"camera '{name}': {error}" if name else str(error)) from error
    _check_distinct(parameters)


def _check_distinct(parameters: Parameters) -> None:
    """Check that no two cameras give the same part of the same image.

    Raises:
        ConfigError: two do: the mask of one would be that of the other.
    """
    readers: dict[tuple[str, Any], str] = {}
    for name, each in parameters.by_camera.items():
        topic = camera_topic(name, each.image_topic).removesuffix("/compressed")
        other = readers.setdefault((topic, each.fit), name)
        if other != name:
            both = f"cameras '{other}' and '{name}' both read all of {topic}"
            remedy = f"set {other}.image_topic and {name}.image_topic, or regions that differ"
            raise ConfigError(f"cameras must have images of their own; {both}; {remedy}")


def _check_topic(camera: str, parameter: str, topic: str) -> None:
    """Check a topic's name before namespace and remapping.

    Raises:
        ConfigError: rcl would refuse it.
    """
    try:
        validate_full_topic_name(expand_topic_name(camera_topic(camera, topic), "node", "/"))
    except Exception as error:  # each function has types of its own
        where = f" of camera '{camera}'" if camera else ""
        why = re.sub(r".*nvalid(?: topic name)?: ", "", rcl_text(error).splitlines()[0])
        text = f"parameter '{parameter}'{where} must be a valid topic name, got {topic!r}"
        raise ConfigError(f"{text}: {why.rstrip(':')}") from error


def without_effect(parameters: Parameters) -> list[str]:
    """Return one sentence for each value that differs from its default but changes nothing."""
    found = dict(parameters.sampling.without_effect)
    cropped = [name for name, each in parameters.by_camera.items() if each.resize_mode == "crop"]
    if not cropped:
        found["roi"] = "it needs resize_mode: crop"
    for name in set(parameters.camera_names) - set(cropped):
        found[f"{name}.roi"] = f"it needs {name}.resize_mode: crop"
    if parameters.temporal_carry == 0:
        found["temporal_max_gap"] = "it needs temporal_carry above 0"
    if not compiles(provider_list(parameters.provider)):
        found["engine_cache"] = "only the providers openvino and tensorrt use it"
    if len(parameters.camera_names) == 1:
        found["max_batch"] = "there is one camera"
    if parameters.max_rebuilds < 2:
        found["rebuild_backoff"] = "it needs max_rebuilds of 2 or more"
    texts = []
    for name, why in found.items():
        default = getattr(DEFAULTS, name.rpartition(".")[2])
        value = parameters.own.get(name, getattr(parameters, name, default))
        if value != default:
            texts.append(f"parameter '{name}' has no effect ({value}): {why}")
    return texts


def unused_remappings(node: Node, parameters: Parameters) -> list[str]:
    """Return one sentence for each remapping of an input topic that no camera uses.

    `-r image:=TOPIC` has no effect where `image_topic` is set, or where cameras have names;
    `camera_info` likewise.
    """
    cameras, texts = parameters.by_camera, []
    for default, parameter, of in (
        ("image", "image_topic", {name: each.image_topic for name, each in cameras.items()}),
        (
            CAMERA_INFO,
            "camera_info_topic",
            {name: each.camera_info_topic or CAMERA_INFO for name, each in cameras.items()},
        ),
    ):
        used = {camera_topic(name, topic) for name, topic in of.items()}
        for topic in sorted({default, *(camera_topic(name, default) for name in cameras)} - used):
            if target := remapped(node, topic):
                texts.append(
                    f"the remapping {topic}:={target} has no effect: the {default} topics are "
                    f"{', '.join(sorted(used))}; remap those, or set {parameter}"
                )
    return texts


def change(
    current: Parameters,
    wanted: "Sequence[Parameter[Any]]",
    configured: bool,
    check: Check = lambda _: None,
) -> tuple[Parameters, SetParametersResult]:
    """Answer a request to set parameters: accept all of `wanted` or none.

    Args:
        current: the values so far.
        wanted: the request; parameters of rclpy itself are ignored.
        configured: whether a model is loaded and topics exist, so that their parameters are fixed.
        check: final check of the new values.

    Returns:
        The values from now on, and the answer, which has the reason if the request is rejected.
    """
    common, own = dict[str, Value](), dict(current.own)
    try:
        for parameter in wanted:
            name = parameter.name
            spec = BY_NAME.get(name.rpartition(".")[2])
            if spec is None or (name != spec.name and name not in own):  # rclpy's own
                continue
            value = _renamed(spec, name).check(parameter.value)
            before = own[name] if name in own else getattr(current, name)
            if spec.fixed_because and (configured or spec.fixed_for_good) and value != before:
                when = f"cannot change while the node {spec.fixed_while}"
                raise ConfigError(f"parameter '{name}' {when}: {spec.fixed_because}")
            (own if name in own else common)[name] = value
        new = replace(current, **common, own=own)  # type: ignore[arg-type]
        check_together(new)
        check(new)
    except Exception as error:  # else the request would never be answered
        known = isinstance(error, CamSegError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        return current, SetParametersResult(successful=False, reason=reason)
    return new, SetParametersResult(successful=True)
