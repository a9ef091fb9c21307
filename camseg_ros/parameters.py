"""Every parameter of the node: name, type, range, default, meaning, and whether it may change while the node runs."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from camseg_core.diffusion.passes import ORDERS
from camseg_core.diffusion.samplers import SAMPLERS
from camseg_core.errors import ConfigError
from camseg_core.runtime.geometry import MODES, OUTPUTS, Fit
from camseg_core.runtime.graphs import AUTO, PRECISIONS
from camseg_core.runtime.providers import PROVIDERS
from camseg_ros.parameter_spec import Spec, Value

MIDDLEWARE_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters that rclpy itself declares; they may stand in the same file."""

CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_UNCONFIGURED = "set it while the node is unconfigured, or restart the node with the new value"
RELOAD = f"it is part of the model as loaded; {_UNCONFIGURED}"
RECONNECT = f"it belongs to the connection to the camera; {_UNCONFIGURED}"
TOPICS = f"it belongs to the topics as published; {_UNCONFIGURED}"
AT_START = "it is read when the node starts; restart the node with the new value"

SPECS: tuple[Spec, ...] = (
    Spec(
        "model",
        "camseg-lite",
        "Name of a bundled model, or a checkpoint folder.",
        fixed_because=RELOAD,
    ),
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
    Spec(
        "warm_up_sizes",
        ("640x480",),
        "Sizes of the images to come, as WIDTHxHEIGHT: the model is warmed up with them, so that the first image need not wait.",
        fixed_because=RELOAD,
    ),
    Spec(
        "max_batch",
        8,
        "Most cameras whose frames go through the model together.",
        limits=(1, 64),
        fixed_because=RELOAD,
    ),
    Spec(
        "threads",
        0,
        "CPU threads for the model; 0 = all cores.",
        limits=(0, 64),
        fixed_because=RELOAD,
    ),
    Spec(
        "sampler",
        "one_step",
        "How the mask is denoised: one_step is the fastest, the others refine it over several steps.",
        choices=tuple(SAMPLERS),
    ),
    Spec("steps", 1, "Denoising steps; more take longer. one_step has one.", limits=(1, 1000)),
    Spec(
        "temperature",
        -1.0,
        "What the noise is scaled by; below 0: the model's own.",
        limits=(-1.0, 10.0),
    ),
    Spec("eta", 0.0, "Share of noise that ddim adds on the way.", limits=(0.0, 1.0)),
    Spec(
        "samples",
        1,
        "Masks drawn of a frame, whose probabilities are averaged; more take longer.",
        limits=(1, 64),
    ),
    Spec(
        "passes",
        1,
        "Passes of the transformer in which a mask is revealed; more take longer.",
        limits=(1, 64),
    ),
    Spec(
        "order",
        ORDERS[0],
        "Which part of the mask is revealed first, with more than one pass.",
        choices=ORDERS,
    ),
    Spec(
        "seed",
        0,
        "Start of the random numbers: the same seed and image give the same mask.",
        limits=(0, 2**32 - 1),
    ),
    Spec(
        "cameras",
        ("",),
        "Names of the cameras; each has its topics under its name. None: one camera without a name.",
        fixed_because=AT_START,
        fixed_for_good=True,
    ),
    Spec(
        "image_topic",
        "image",
        "The camera's images; a relative name stands under the camera's own.",
        per_camera=True,
        fixed_because=RECONNECT,
    ),
    Spec(
        "camera_info_topic",
        "",
        "The camera's calibration; empty: camera_info beside the images.",
        per_camera=True,
        fixed_because=RECONNECT,
    ),
    Spec(
        "image_transport",
        "raw",
        "raw subscribes to sensor_msgs/Image on the topic; compressed to sensor_msgs/CompressedImage (JPEG or PNG) on its /compressed.",
        choices=("raw", "compressed"),
        per_camera=True,
        fixed_because=RECONNECT,
    ),
    Spec(
        "image_reliability",
        "best_effort",
        "QoS of the subscription: best_effort hears every publisher; reliable only reliable ones, and resends lost images.",
        choices=("best_effort", "reliable"),
        per_camera=True,
        fixed_because=RECONNECT,
    ),
    Spec("frame_id", "", "frame_id of what is published; empty: the image's own.", per_camera=True),
    Spec(
        "max_age_ms",
        0.0,
        "Frames older than this when their turn comes are dropped; the age counts from the stamp, from the arrival if that is zero. "
        "0: no limit.",
        limits=(0.0, 600_000.0),
        per_camera=True,
    ),
    Spec(
        "resize_mode",
        MODES[0],
        "How a frame is fitted to the network: letterbox keeps its aspect, stretch does not, crop takes the region roi alone.",
        choices=MODES,
        per_camera=True,
    ),
    Spec(
        "roi",
        (0.0, 0.0, 1.0, 1.0),
        "Region for crop: left, top, right, bottom as shares of the width and height; the rest is unlabelled.",
        limits=(0.0, 1.0),
        per_camera=True,
    ),
    Spec(
        "output_size",
        OUTPUTS[0],
        "camera: masks at the frame's size; network: at the size that the network saw, with camera_info scaled to it.",
        choices=OUTPUTS,
        per_camera=True,
    ),
    Spec(
        "class_groups",
        ("",),
        "Classes that are published as one: 'drivable = road, terrain', or with an id of its own 'drivable:100 = road, terrain'.",
    ),
    Spec(
        "enabled_classes",
        ("",),
        "Names of the classes or groups to publish; all others become unlabelled (255). None: all.",
    ),
    Spec(
        "temporal_carry",
        0.0,
        "Stability over time: the share of what was seen before in each frame's mask, where it is recognised; 0: none, 0.7 is good.",
        limits=(0.0, 0.95),
    ),
    Spec(
        "temporal_max_gap",
        0.5,
        "Seconds between two frames after which the next one starts afresh.",
        limits=(0.001, 60.0),
    ),
    Spec(
        "overlay_opacity",
        0.5,
        "How strongly the classes cover the image in segmentation/overlay.",
        limits=(0.0, 1.0),
    ),
    Spec(
        "output_reliability",
        "reliable",
        "QoS of what is published: reliable suits every subscriber; best_effort is never held up by a slow one.",
        choices=("reliable", "best_effort"),
        fixed_because=TOPICS,
    ),
    Spec(
        "run_length_mask",
        False,
        "Also publish segmentation/mask_rle, the run-length mask that Autoware's segmentation_pointcloud_fusion reads.",
        fixed_because=TOPICS,
    ),
    Spec(
        "max_image_bytes",
        100_000_000,
        "Most bytes that one image may have, as a message and decoded to RGB; larger ones are rejected before they are decoded.",
        limits=(1, 4_000_000_000),
        fixed_because="it guards the node against hostile input; restart the node with the new value",
        fixed_for_good=True,
    ),
    Spec(
        "autostart",
        True,
        "Configure and activate the node by itself; false: a lifecycle manager does.",
        fixed_because=AT_START,
        fixed_for_good=True,
    ),
    Spec(
        "latency_budget_ms",
        250.0,
        "Above this p95 latency, image to mask, /diagnostics warns.",
        limits=(1.0, 600_000.0),
    ),
    Spec(
        "budget_error_after",
        10.0,
        "Seconds above the latency budget after which the warning becomes an error.",
        limits=(0.0, 3600.0),
    ),
    Spec(
        "silent_after",
        3.0,
        "Seconds without an image after which /diagnostics warns.",
        limits=(0.1, 3600.0),
    ),
    Spec(
        "inference_timeout",
        20.0,
        "Seconds after which inference counts as hung and its engine is given up; TensorRT may need minutes for a new image size.",
        limits=(0.1, 3600.0),
    ),
    Spec(
        "max_rebuilds",
        3,
        "How often in a row the engine is built again after it failed, before the node gives up.",
        limits=(0, 100),
    ),
    Spec(
        "rebuild_backoff",
        1.0,
        "Seconds before the second rebuild in a row; they double with each further one.",
        limits=(0.0, 600.0),
    ),
    Spec(
        "exit_on_failure",
        False,
        "When the node gives up its engine, end the process with exit code 1 for a supervisor to restart; false: become unconfigured.",
    ),
    Spec(
        "diagnostics_period",
        1.0,
        "Seconds between two messages on /diagnostics.",
        limits=(0.1, 60.0),
    ),
)

BY_NAME: Mapping[str, Spec] = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True)
class CameraParameters:
    """The values that one camera goes by."""

    image_topic: str
    camera_info_topic: str
    image_transport: str
    image_reliability: str
    frame_id: str
    max_age_ms: float
    resize_mode: str
    roi: tuple[float, float, float, float]
    output_size: str

    @property
    def fit(self) -> Fit:
        """How its frames are fitted to the network.

        Raises:
            ConfigError: the resizing mode and the region do not go together.
        """
        return Fit(self.resize_mode, self.roi, self.output_size)


@dataclass(frozen=True)
class Parameters:
    """The checked values, one field for each parameter of `SPECS`."""

    model: str
    provider: str
    precision: str
    engine_cache: str
    warm_up_sizes: tuple[str, ...]
    max_batch: int
    threads: int
    sampler: str
    steps: int
    temperature: float
    eta: float
    samples: int
    passes: int
    order: str
    seed: int
    cameras: tuple[str, ...]
    image_topic: str
    camera_info_topic: str
    image_transport: str
    image_reliability: str
    frame_id: str
    max_age_ms: float
    resize_mode: str
    roi: tuple[float, float, float, float]
    output_size: str
    class_groups: tuple[str, ...]
    enabled_classes: tuple[str, ...]
    temporal_carry: float
    temporal_max_gap: float
    overlay_opacity: float
    output_reliability: str
    run_length_mask: bool
    max_image_bytes: int
    autostart: bool
    latency_budget_ms: float
    budget_error_after: float
    silent_after: float
    inference_timeout: float
    max_rebuilds: int
    rebuild_backoff: float
    exit_on_failure: bool
    diagnostics_period: float
    own: Mapping[str, Value] = field(default_factory=dict)
    """What was given for one camera alone, by `<camera>.<name>`."""

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Of all cameras; the only one may be without a name."""
        return self.cameras or ("",)

    def camera(self, name: str) -> CameraParameters:
        """What the camera of that name goes by: its own value where one was given, the node's where not."""
        values = {
            each.name: self.own.get(f"{name}.{each.name}", getattr(self, each.name))
            for each in fields(CameraParameters)
        }
        return CameraParameters(**values)

    def check_together(self) -> None:
        """Check what no parameter can tell alone.

        Raises:
            ConfigError: cameras have names that topics cannot have, or twice the same; or a resizing mode and region do not go together.
        """
        for name in self.cameras:
            if not CAMERA_NAME.fullmatch(name):
                raise ConfigError(
                    f"parameter 'cameras' has {name!r}: a camera's name is made of letters, digits and _, a letter first"
                )
            if name in BY_NAME or self.cameras.count(name) > 1:
                raise ConfigError(
                    f"parameter 'cameras' has {name!r}, which is {'a parameter' if name in BY_NAME else 'there twice'}"
                )
        for name in self.camera_names:
            try:
                self.camera(name).fit  # noqa: B018  # it raises
            except ConfigError as error:
                raise ConfigError(f"camera '{name}': {error}" if name else str(error)) from error


Check = Callable[[Parameters], None]
"""Raises ConfigError if the values do not suit what is loaded."""


def declare(node: Node) -> tuple[Parameters, list[str]]:
    """Declare every parameter on `node` and read what the user gave for it.

    `node` must have been made with `automatically_declare_parameters_from_overrides=True`: that is how values of the wrong
    type and unknown names can be seen here and told properly.

    Returns:
        The values, and one warning for each parameter that the node does not know.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or values do not go together.
    """
    values = {spec.name: _declare(node, spec, spec.name) for spec in SPECS}
    cameras = values["cameras"]
    assert isinstance(cameras, tuple)
    possible = {
        f"{camera}.{spec.name}": spec for camera in cameras for spec in SPECS if spec.per_camera
    }
    own = {
        name: _declare(node, spec, name)
        for name, spec in possible.items()
        if node.has_parameter(name)
    }
    warnings = []
    for name in sorted(node.get_parameters_by_prefix("")):
        if name not in values and name not in own and name.split(".")[0] not in MIDDLEWARE_OWN:
            node.undeclare_parameter(name)
            warnings.append(
                f"unknown parameter '{name}' is ignored; {_remedy(name, cameras, possible)}"
            )
    given = Parameters(**values, own=own)  # type: ignore[arg-type]  # each value has its default's type, and a test holds the fields against the defaults
    given.check_together()
    return given, warnings


def _remedy(name: str, cameras: tuple[Any, ...], possible: Mapping[str, Spec]) -> str:
    """What to do about a name that no parameter has."""
    camera, _, last = name.rpartition(".")
    if camera in cameras and last in BY_NAME:
        return f"'{last}' is the same for all cameras"
    close = difflib.get_close_matches(name, [*BY_NAME, *possible], n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(BY_NAME)}"


def _declare(node: Node, spec: Spec, name: str) -> Value:
    """Declare the parameter of `spec` under `name` with what the user gave for it, and give its value."""
    spec = _called(spec, name)
    value = spec.check(
        node.get_parameter(name).value if node.has_parameter(name) else spec.ros_default
    )
    if node.has_parameter(name):  # without type and range, from what the user gave
        node.undeclare_parameter(name)
    # an empty list has no type for ROS, so the default stands in its place
    shown = (list(value) or spec.ros_default) if isinstance(value, tuple) else value
    node.declare_parameter(name, shown, spec.descriptor(), ignore_override=True)
    return value


def _called(spec: Spec, name: str) -> Spec:
    """The same parameter by the name that it has for one camera, if `name` is such a one."""
    return spec if name == spec.name else replace(spec, name=name, per_camera=False)


def change(
    current: Parameters,
    wanted: "Sequence[Parameter[Any]]",
    configured: bool,
    suits: Check = lambda _: None,
) -> tuple[Parameters, SetParametersResult]:
    """Answer a request to set parameters: all of `wanted` or none.

    Args:
        current: the values so far.
        wanted: the request; parameters of others are left to them.
        configured: whether a model is loaded and topics are made, so that what belongs to them is fixed.
        suits: has the last word on the new values.

    Returns:
        The values from now on, and the answer, which says why if the request was refused.
    """
    changed, own = dict[str, Value](), dict(current.own)
    try:
        for parameter in wanted:
            spec = BY_NAME.get(parameter.name.rpartition(".")[2])
            if spec is None or (
                parameter.name != spec.name and parameter.name not in own
            ):  # rclpy's own
                continue
            values = changed if parameter.name == spec.name else own
            before = getattr(current, spec.name) if values is changed else own[parameter.name]
            value = _called(spec, parameter.name).check(parameter.value)
            if spec.fixed_because and (configured or spec.fixed_for_good) and value != before:
                when = "runs" if spec.fixed_for_good else "is configured"
                raise ConfigError(
                    f"parameter '{parameter.name}' cannot change while the node {when}: {spec.fixed_because}"
                )
            values[parameter.name] = value
        new = replace(current, **changed, own=own)  # type: ignore[arg-type]
        new.check_together()
        suits(new)
    except ConfigError as error:
        return current, SetParametersResult(successful=False, reason=str(error))
    return new, SetParametersResult(successful=True)
