"""Every parameter of the node: name, type, range, default, meaning, and whether it may change while
the node runs.

Run as a program, it prints the JSON schema: `python -m camseg_ros.parameters >
config/segment.schema.json`.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

from camseg_core.diffusion.sampling import OPTIONS, Sampling
from camseg_core.runtime.engine import ASKED_PRECISIONS, AUTO
from camseg_core.runtime.geometry import MODES, OUTPUTS, WHOLE, Fit
from camseg_core.runtime.providers import PROVIDERS
from camseg_ros.parameter_spec import (
    NO_STRINGS,
    Spec,
    Value,
    file_schema,
    parameter,
    sampling_parameter,
)

_UNCONFIGURED = "set it while the node is unconfigured, or restart the node with the new value"
RELOAD = f"it is part of the loaded model; {_UNCONFIGURED}"
RECONNECT = f"it is part of the connection to the camera; {_UNCONFIGURED}"
TOPICS = f"it is part of the published topics; {_UNCONFIGURED}"
RESTART = "restart the node with the new value"
AT_START = {"fixed_because": f"it is read when the node starts; {RESTART}", "fixed_for_good": True}
GUARD = {"fixed_because": f"it guards against hostile input; {RESTART}", "fixed_for_good": True}


@dataclass(frozen=True)
class CameraParameters:
    """The parameters that may differ between cameras."""

    image_topic: str = parameter(
        "image",
        "Image topic; a relative name is prefixed with the camera's name.",
        fixed_because=RECONNECT,
    )
    camera_info_topic: str = parameter(
        "",
        "Calibration topic; empty: camera_info in the namespace of the image topic.",
        fixed_because=RECONNECT,
    )
    image_transport: str = parameter(
        "raw",
        "raw subscribes to sensor_msgs/Image on the image topic; compressed to "
        "sensor_msgs/CompressedImage (JPEG, PNG or WebP) on its /compressed.",
        choices=("raw", "compressed"),
        fixed_because=RECONNECT,
    )
    image_reliability: str = parameter(
        "best_effort",
        "QoS of the subscription: best_effort receives from every publisher; reliable only from "
        "reliable ones, which resend lost images.",
        choices=("best_effort", "reliable"),
        fixed_because=RECONNECT,
    )
    frame_id: str = parameter("", "frame_id of the outputs; empty: that of the image.")
    max_age_ms: float = parameter(
        0.0,
        "Drop frames older than this when their turn comes. The age counts from the stamp, or from "
        "the arrival if the stamp is zero. 0: no limit.",
        limits=(0.0, 600_000.0),
    )
    white_level: int = parameter(
        0,
        "White in images of 16 bits, such as 4095 for a camera of 12 bits. 0: 65535, with a "
        "warning if that looks wrong.",
        limits=(0, 65535),
    )
    resize_mode: str = parameter(
        MODES[0],
        "How to fit a frame to the network: letterbox keeps the aspect ratio, stretch does not, "
        "crop uses only the region roi.",
        choices=MODES,
    )
    roi: tuple[float, float, float, float] = parameter(
        (0.0, 0.0, 1.0, 1.0),
        "Region for crop: left, top, right, bottom as fractions; the rest is unlabelled.",
        limits=(0.0, 1.0),
    )
    output_size: str = parameter(
        OUTPUTS[0],
        "camera: masks of the frame's size; network: of the network's input size, with camera_info "
        "scaled to match.",
        choices=OUTPUTS,
    )

    @cached_property
    def fit(self) -> Fit:
        """How frames are fitted to the network; `roi` only counts with `resize_mode` crop.

        Raises:
            ConfigError: the region is empty.
        """
        roi = self.roi if self.resize_mode == "crop" else WHOLE
        return Fit(self.resize_mode, roi, self.output_size)


@dataclass(frozen=True)
class Parameters(CameraParameters):
    """Checked values of all parameters; those of `CameraParameters` are the cameras' defaults."""

    model: str = parameter(
        "camseg-lite",
        "Name of a bundled model, or path of a checkpoint folder.",
        fixed_because=RELOAD,
    )
    provider: str = parameter(
        AUTO,
        "Where the model runs: the first of the listed providers that starts; auto is the fastest "
        "that is installed. cpu is ONNX Runtime's; cuda and tensorrt need onnxruntime-gpu.",
        choices=tuple(PROVIDERS),
        several=True,
        fixed_because=RELOAD,
    )
    precision: str = parameter(
        AUTO,
        "Precision of the model; auto chooses the fastest for the provider among those in the "
        "checkpoint folder (camseg export adds others). bf16 needs openvino.",
        choices=ASKED_PRECISIONS,
        fixed_because=RELOAD,
    )
    engine_cache: str = parameter(
        "",
        "Folder for what OpenVINO and TensorRT compile; empty: compile at every start.",
        fixed_because=RELOAD,
    )
    warm_up_sizes: tuple[str, ...] = parameter(
        ("640x480",),
        "Expected image sizes, WIDTHxHEIGHT; the model is warmed up with them so that the first "
        "image is not delayed.",
        fixed_because=RELOAD,
    )
    max_batch: int = parameter(
        8,
        "Largest number of cameras whose frames go through the model together, where the engine "
        "gains from it: OpenVINO on a CPU does not.",
        limits=(1, 64),
        fixed_because=RELOAD,
    )
    threads: int = parameter(
        0, "CPU threads of the model; 0: all cores.", limits=(0, 64), fixed_because=RELOAD
    )
    sampler: str = sampling_parameter("sampler")
    steps: int = sampling_parameter("steps")
    temperature: float = sampling_parameter("temperature")
    eta: float = sampling_parameter("eta")
    samples: int = sampling_parameter("samples")
    passes: int = sampling_parameter("passes")
    order: str = sampling_parameter("order")
    seed: int = sampling_parameter("seed")
    cameras: tuple[str, ...] = parameter(
        NO_STRINGS,
        "Names of the cameras, which prefix their topics. None: one unnamed camera.",
        **AT_START,
    )
    class_groups: tuple[str, ...] = parameter(
        NO_STRINGS,
        "Classes to publish as one: 'people = person, rider', or with its own id "
        "'people:100 = person, rider'. Those that the model lacks are skipped.",
    )
    enabled_classes: tuple[str, ...] = parameter(
        NO_STRINGS,
        "Names of the classes or groups to publish; all others become unlabelled (255). None: all.",
    )
    temporal_carry: float = parameter(
        0.0,
        "Temporal smoothing: weight of earlier frames where the optical flow finds the same "
        "content; 0: off, 0.7 is a good value.",
        limits=(0.0, 0.95),
    )
    temporal_max_gap: float = parameter(
        0.5,
        "Seconds between two frames after which earlier ones are forgotten.",
        limits=(0.001, 60.0),
    )
    overlay_opacity: float = parameter(
        0.5, "Opacity of the class colours in segmentation/overlay.", limits=(0.0, 1.0)
    )
    output_reliability: str = parameter(
        "reliable",
        "QoS of the outputs: reliable suits every subscriber; with best_effort a slow one cannot "
        "block the node.",
        choices=("reliable", "best_effort"),
        fixed_because=TOPICS,
    )
    run_length_mask: bool = parameter(
        False,
        "Also publish segmentation/mask_rle, the run-length mask for Autoware's "
        "segmentation_pointcloud_fusion.",
        fixed_because=TOPICS,
    )
    max_image_bytes: int = parameter(
        100_000_000,
        "Largest size of one image in bytes, as a message and decoded to RGB; larger ones are "
        "rejected before decoding.",
        limits=(1, 4_000_000_000),
        **GUARD,
    )
    autostart: bool = parameter(
        True,
        "Configure and activate at start; false: wait for a lifecycle manager.",
        **AT_START,
    )
    latency_budget_ms: float = parameter(
        250.0,
        "p95 latency from image to mask above which /diagnostics warns.",
        limits=(1.0, 600_000.0),
    )
    budget_error_after: float = parameter(
        10.0,
        "Seconds above the latency budget after which the warning becomes an error.",
        limits=(0.0, 3600.0),
    )
    silent_after: float = parameter(
        3.0, "Seconds without an image after which /diagnostics warns.", limits=(0.1, 3600.0)
    )
    inference_timeout: float = parameter(
        20.0,
        "Seconds after which inference counts as hung and the engine is rebuilt; the time in which "
        "graphs are compiled does not count.",
        limits=(0.1, 3600.0),
    )
    max_rebuilds: int = parameter(
        3,
        "Consecutive rebuilds of a failed engine before the node gives up.",
        limits=(0, 100),
    )
    rebuild_backoff: float = parameter(
        1.0,
        "Seconds before the second consecutive rebuild; doubled for each further one.",
        limits=(0.0, 600.0),
    )
    exit_on_failure: bool = parameter(
        False,
        "When the node gives up on the engine: true: exit with code 1, so that a supervisor "
        "restarts it; false: become unconfigured.",
    )
    diagnostics_period: float = parameter(
        1.0, "Seconds between two messages on /diagnostics.", limits=(0.1, 60.0)
    )
    own: Mapping[str, Value] = field(default_factory=dict)
    """Values given for one camera only, by `<camera>.<name>`."""

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of all cameras; the only one may be unnamed."""
        return self.cameras or ("",)

    @cached_property
    def by_camera(self) -> Mapping[str, CameraParameters]:
        """The values of each camera: its own if given, else the common ones."""
        return {name: self.camera(name) for name in self.camera_names}

    @cached_property
    def sampling(self) -> Sampling:
        """The sampling options as the model takes them."""
        values = {option.name: getattr(self, option.name) for option in OPTIONS}
        values["temperature"] = None if self.temperature < 0 else self.temperature
        return Sampling(**values, streams=self.temporal_carry > 0)

    def camera(self, name: str) -> CameraParameters:
        """Return the values of one camera: its own if given, else the common ones."""
        values = {
            each.name: self.own.get(f"{name}.{each.name}", getattr(self, each.name))
            for each in fields(CameraParameters)
        }
        return CameraParameters(**values)


def _specs() -> tuple[Spec, ...]:
    """The declarations, those of cameras behind `cameras`."""
    declared = {each.name: each.metadata["spec"] for each in fields(Parameters) if each.metadata}
    own = [each.name for each in fields(CameraParameters)]
    names = [name for name in declared if name not in own]
    place = names.index("cameras") + 1
    names[place:place] = own
    return tuple(replace(declared[name], name=name, per_camera=name in own) for name in names)


SPECS: tuple[Spec, ...] = _specs()
BY_NAME: Mapping[str, Spec] = {spec.name: spec for spec in SPECS}


def schema_text() -> str:
    """Return the content of `config/segment.schema.json`."""
    return json.dumps(file_schema(SPECS), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
