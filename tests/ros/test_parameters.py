"""Declarations, file and checks agree; errors name what a parameter accepts."""

import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter

from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime.geometry import Fit
from camseg_ros.middleware import share_file
from camseg_ros.parameter_spec import Spec
from camseg_ros.parameter_updates import (
    change,
    check_together,
    declare,
    read,
    without_effect,
)
from camseg_ros.parameters import BY_NAME, SPECS, CameraParameters, Parameters

DEFAULTS = Parameters()


def test_fields_and_declarations_agree() -> None:
    types = {field.name: field.type for field in fields(Parameters)}
    assert set(types) == {spec.name for spec in SPECS} | {"own"}
    values: dict[str, Any] = {spec.name: spec.check(spec.ros_default) for spec in SPECS}
    assert Parameters(**values) == DEFAULTS
    for spec in SPECS:
        declared = types[spec.name]
        assert (get_origin(declared) or declared) is type(spec.default), spec.name
        if isinstance(spec.default, tuple):
            assert get_args(declared)[0] is type(spec.default[0]), spec.name


def test_a_cameras_fields_are_the_parameters_that_may_differ_between_cameras() -> None:
    assert [field.name for field in fields(CameraParameters)] == [
        spec.name for spec in SPECS if spec.per_camera
    ]
    types = {field.name: field.type for field in fields(Parameters)}
    assert all(field.type == types[field.name] for field in fields(CameraParameters))


def test_the_file_holds_every_parameter_with_its_default_and_a_comment() -> None:
    text = share_file("config/segment.param.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert list(content) == ["/**"]
    given = content["/**"]["ros__parameters"]
    assert list(given) == [spec.name for spec in SPECS]
    lines = text.splitlines()
    for spec in SPECS:
        assert given[spec.name] == spec.ros_default
        assert type(given[spec.name]) is type(spec.ros_default)
        (place,) = (
            number for number, line in enumerate(lines) if line.startswith(f"    {spec.name}:")
        )
        start = place
        while lines[start - 1].strip().startswith("#"):
            start -= 1
        above = " ".join(line.strip(" #") for line in lines[start:place])
        assert above, f"{spec.name} has no comment above it"
        assert all(choice in above for choice in spec.choices), spec.name
        # limits of many digits stand there with all of them
        assert all(str(limit) in above for limit in spec.limits or ()), spec.name


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_declaration_is_complete_and_takes_its_default(spec: Spec) -> None:
    assert spec.description.endswith(".")
    value = spec.check(spec.ros_default)
    assert value == (() if spec.default == ("",) else spec.default)
    descriptor = spec.descriptor()
    assert descriptor.description == spec.description
    assert spec.takes in descriptor.additional_constraints
    when = "runs" if spec.fixed_for_good else "is configured"
    assert (f"fixed while the node {when}: " in descriptor.additional_constraints) == bool(
        spec.fixed_because
    )
    assert (f"<camera>.{spec.name}" in descriptor.additional_constraints) == spec.per_camera
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert [(limits.from_value, limits.to_value) for limits in ranges] == (
        [spec.limits] if spec.limits and not isinstance(spec.default, tuple) else []
    )


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "threads",
            "many",
            "parameter 'threads' must be an integer from 0 to 64, got 'many' (a string)",
        ),
        ("threads", 65, "parameter 'threads' must be an integer from 0 to 64, got 65"),
        ("threads", 2.0, "parameter 'threads' must be an integer from 0 to 64, got 2.0 (a number)"),
        (
            "threads",
            True,
            "parameter 'threads' must be an integer from 0 to 64, got True (true/false)",
        ),
        (
            "overlay_opacity",
            1.5,
            "parameter 'overlay_opacity' must be a number from 0.0 to 1.0, got 1.5",
        ),
        (
            "overlay_opacity",
            float("nan"),
            "parameter 'overlay_opacity' must be a number from 0.0 to 1.0, got nan",
        ),
        (
            "provider",
            "gpu",
            "parameter 'provider' must be one of auto, cpu, openvino, openvino:GPU, openvino:NPU, "
            "openvino:AUTO, cuda, tensorrt, or several separated by commas, got 'gpu'",
        ),
        (
            "provider",
            "cuda,",
            "parameter 'provider' must be one of auto, cpu, openvino, openvino:GPU, openvino:NPU, "
            "openvino:AUTO, cuda, tensorrt, or several separated by commas, got 'cuda,'",
        ),
        (
            "precision",
            "int4",
            "parameter 'precision' must be one of auto, fp32, bf16, fp16, int8, got 'int4'",
        ),
        (
            "temperature",
            11.0,
            "parameter 'temperature' must be a number from -1.0 to 10.0, got 11.0",
        ),
        ("samples", 0, "parameter 'samples' must be an integer from 1 to 64, got 0"),
        ("order", "best", "parameter 'order' must be one of random, confident, got 'best'"),
        ("eta", -0.5, "parameter 'eta' must be a number from 0.0 to 1.0, got -0.5"),
        ("model", 7, "parameter 'model' must be a string, got 7 (an integer)"),
        ("model", ["a"], "parameter 'model' must be a string, got ['a'] (a list)"),
        ("model", None, "parameter 'model' must be a string, got None (no value)"),
        ("autostart", 1, "parameter 'autostart' must be true/false, got 1 (an integer)"),
        (
            "run_length_mask",
            "true",
            "parameter 'run_length_mask' must be true/false, got 'true' (a string)",
        ),
        ("cameras", "left", "parameter 'cameras' must be a list of strings, got 'left' (a string)"),
        (
            "cameras",
            ["left", 2],
            "parameter 'cameras' must be a list of strings, got ['left', 2] (a list)",
        ),
        ("cameras", b"left", "parameter 'cameras' must be a list of strings, got b'left' (a list)"),
        (
            "roi",
            [0.0, 1.0],
            "parameter 'roi' must be a list of 4 numbers from 0.0 to 1.0, got [0.0, 1.0] (a list)",
        ),
        (
            "roi",
            [0, 0, 1, True],
            "parameter 'roi' must be a list of 4 numbers from 0.0 to 1.0, "
            "got [0, 0, 1, True] (a list)",
        ),
        (
            "roi",
            [0, 0, 1, 1.5],
            "parameter 'roi' must be a list of 4 numbers from 0.0 to 1.0, got [0, 0, 1, 1.5]",
        ),
        (
            "roi",
            0.5,
            "parameter 'roi' must be a list of 4 numbers from 0.0 to 1.0, got 0.5 (a number)",
        ),
    ],
)
def test_a_wrong_value_is_rejected_with_the_accepted_ones(
    name: str, value: object, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        BY_NAME[name].check(value)
    assert str(caught.value) == text


def test_the_error_for_a_long_value_is_short() -> None:
    with pytest.raises(ConfigError) as caught:
        BY_NAME["provider"].check("x" * 100_000)
    assert len(str(caught.value)) < 400


def test_several_providers_are_accepted() -> None:
    for value in ("tensorrt,cuda,cpu", "cuda, cpu", "tensorrt", "openvino:GPU,openvino"):
        assert BY_NAME["provider"].check(value) == value


def test_an_integer_is_accepted_as_a_number_also_in_a_list() -> None:
    value = BY_NAME["overlay_opacity"].check(1)
    assert (value, type(value)) == (1.0, float)
    for given in ([0, 0, 1, 1], array.array("q", [0, 0, 1, 1]), (0.0, 0, 1, 1.0)):
        region = BY_NAME["roi"].check(given)
        assert region == (0.0, 0.0, 1.0, 1.0)
        assert isinstance(region, tuple)
        assert all(type(entry) is float for entry in region)


@pytest.mark.parametrize("given", [[""], [], ["", "  "], ()])
def test_a_list_of_blank_strings_means_none(given: object) -> None:
    assert BY_NAME["enabled_classes"].check(given) == ()
    assert BY_NAME["cameras"].check(["", "left"]) == ("left",)


def test_without_names_there_is_one_camera_without_a_name() -> None:
    assert DEFAULTS.camera_names == ("",)
    assert DEFAULTS.camera("").image_topic == "image"
    assert replace(DEFAULTS, cameras=("left", "right")).camera_names == ("left", "right")


def test_a_camera_uses_its_own_value_or_else_that_of_the_node() -> None:
    given = replace(
        DEFAULTS,
        cameras=("left", "right"),
        frame_id="rig",
        own={
            "left.image_topic": "/left/raw",
            "left.resize_mode": "crop",
            "left.roi": (0.0, 0.5, 1.0, 1.0),
            "right.frame_id": "r",
        },
    )
    left, right = given.camera("left"), given.camera("right")
    assert (left.image_topic, left.frame_id, left.fit.mode, left.fit.roi) == (
        "/left/raw",
        "rig",
        "crop",
        (0.0, 0.5, 1.0, 1.0),
    )
    assert (right.image_topic, right.frame_id, right.fit.mode, right.fit.roi) == (
        "image",
        "r",
        "letterbox",
        (0.0, 0.0, 1.0, 1.0),
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"cameras": ("front left",)},
            "'cameras' must hold names of letters, digits and _, starting with a letter, "
            "got 'front left'",
        ),
        ({"cameras": ("1st",)}, "starting with a letter, got '1st'"),
        ({"cameras": ("a/b",)}, "starting with a letter, got 'a/b'"),
        ({"cameras": ("left", "right", "left")}, "must not hold a name twice, got 'left'"),
        ({"cameras": ("model",)}, "must not hold the name of a parameter, got 'model'"),
        ({"image_topic": "no topic"}, "'image_topic' must be a valid topic name, got 'no topic': "),
        ({"image_topic": "/a//b"}, "got '/a//b': topic name must not contain repeated '/'"),
        ({"image_topic": ""}, "got '': topic name must not be empty"),
        ({"image_topic": "{foo}/image"}, "unknown substitution: {foo}"),
        (
            {"cameras": ("left",), "own": {"left.camera_info_topic": "info/"}},
            "'camera_info_topic' of camera 'left' must be a valid topic name, got 'info/'",
        ),
        ({"resize_mode": "crop", "roi": (0.5, 0.0, 0.5, 1.0)}, "0 <= left < right <= 1"),
        (
            {
                "cameras": ("left",),
                "own": {"left.resize_mode": "crop", "left.roi": (0.5, 0.0, 0.5, 1.0)},
            },
            "camera 'left': roi must be left, top, right, bottom",
        ),
        (
            {"cameras": ("left", "right"), "image_topic": "/camera/image"},
            "cameras 'left' and 'right' both read all of /camera/image; set left.image_topic and",
        ),
        (
            {
                "cameras": ("left", "right"),
                "own": {"left.image_topic": "/a/image/compressed", "right.image_topic": "/a/image"},
            },
            "cameras 'left' and 'right' both read all of /a/image",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=".") as caught:
        check_together(replace(DEFAULTS, **values))
    assert text in str(caught.value)


def test_values_that_go_together_are_taken() -> None:
    check_together(replace(DEFAULTS, resize_mode="crop", roi=(0.0, 0.0, 0.5, 1.0)))
    check_together(replace(DEFAULTS, cameras=("left", "Right_2")))
    halves = {"left.roi": (0.0, 0.0, 0.5, 1.0), "right.roi": (0.5, 0.0, 1.0, 1.0)}
    common = {"cameras": ("left", "right"), "image_topic": "/image", "resize_mode": "crop"}
    check_together(replace(DEFAULTS, **common, own=halves))
    check_together(replace(DEFAULTS, image_topic="~/image", camera_info_topic="{node}/info"))


def other_value(spec: Spec) -> Any:
    """A good value that is not the default."""
    if isinstance(spec.default, tuple):
        return ["other"] if isinstance(spec.default[0], str) else [0.0, 0.0, 0.5, 0.5]
    if isinstance(spec.default, bool):
        return not spec.default
    return (
        spec.choices[-1]
        if spec.choices
        else "other"
        if isinstance(spec.default, str)
        else spec.default + 1
    )


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if spec.fixed_because], ids=lambda spec: spec.name
)
def test_what_is_fixed_while_configured_says_why_and_what_to_do(spec: Spec) -> None:
    wanted = [
        Parameter("overlay_opacity", value=0.1),
        Parameter(spec.name, value=other_value(spec)),
    ]
    kept, answer = change(DEFAULTS, wanted, configured=True)
    assert not answer.successful
    assert kept is DEFAULTS
    when = "runs" if spec.fixed_for_good else "is configured"
    assert answer.reason.startswith(
        f"parameter '{spec.name}' cannot change while the node {when}: "
    )
    assert "restart the node" in answer.reason
    changed, answer = change(DEFAULTS, wanted, configured=False)
    assert answer.successful != spec.fixed_for_good
    assert (changed is DEFAULTS) == spec.fixed_for_good


@pytest.mark.parametrize(
    "spec",
    [spec for spec in SPECS if not spec.fixed_because and spec.name != "roi"],
    ids=lambda spec: spec.name,
)
def test_everything_else_changes_while_the_node_runs(spec: Spec) -> None:
    value = other_value(spec)
    value = 0.25 if spec.limits and spec.limits[1] <= 1 else value
    changed, answer = change(DEFAULTS, [Parameter(spec.name, value=value)], configured=True)
    assert answer.successful, answer.reason
    assert getattr(changed, spec.name) == (tuple(value) if isinstance(value, list) else value)


def test_a_region_counts_from_the_change_to_crop_on() -> None:
    region, crop = (
        Parameter("roi", value=[0.0, 0.5, 1.0, 1.0]),
        Parameter("resize_mode", value="crop"),
    )
    alone, answer = change(DEFAULTS, [region], configured=True)
    assert answer.successful
    assert alone.camera("").fit == Fit("letterbox")
    assert "parameter 'roi' has no effect" in without_effect(alone)[0]
    for before, wanted in ((alone, [crop]), (DEFAULTS, [region, crop])):
        changed, answer = change(before, wanted, configured=True)
        assert answer.successful
        assert changed.camera("").fit.roi == (0.0, 0.5, 1.0, 1.0)


def test_setting_the_same_value_again_is_fine_and_a_wrong_one_is_not() -> None:
    same = [
        Parameter("model", value="camseg-lite"),
        Parameter("cameras", value=[""]),
        Parameter("warm_up_sizes", value=["640x480"]),
    ]
    assert change(DEFAULTS, same, configured=True) == (DEFAULTS, change(DEFAULTS, [], True)[1])
    kept, answer = change(DEFAULTS, [Parameter("overlay_opacity", value=2.0)], configured=True)
    assert kept is DEFAULTS
    assert "must be a number from 0.0 to 1.0, got 2.0" in answer.reason


def test_a_value_that_does_not_suit_what_is_loaded_is_refused_with_its_reason() -> None:
    asked: list[Parameters] = []

    def suits(wanted: Parameters) -> None:
        asked.append(wanted)
        if wanted.steps == 7:
            raise ConfigError("seven steps do not suit")

    kept, answer = change(
        DEFAULTS, [Parameter("steps", value=7), Parameter("seed", value=3)], True, suits
    )
    assert (kept is DEFAULTS, answer.successful, answer.reason) == (
        True,
        False,
        "seven steps do not suit",
    )
    assert (asked[0].steps, asked[0].seed) == (7, 3)
    for error in (ModelError("missing graphs"), OSError("no such folder")):

        def fails(_: Parameters, error: Exception = error) -> None:
            raise error

        kept, answer = change(DEFAULTS, [Parameter("steps", value=7)], True, fails)
        assert (kept is DEFAULTS, answer.successful) == (True, False)
        assert str(error) in answer.reason
    assert change(DEFAULTS, [Parameter("steps", value=8)], True, suits)[0].steps == 8


def test_a_cameras_own_value_changes_by_its_own_name() -> None:
    given = replace(
        DEFAULTS,
        cameras=("left", "right"),
        own={"left.frame_id": "l", "left.image_topic": "/l", "left.max_age_ms": 5.0},
    )
    changed, answer = change(
        given,
        [Parameter("left.frame_id", value="new"), Parameter("frame_id", value="rig")],
        configured=True,
    )
    assert answer.successful
    assert (changed.camera("left").frame_id, changed.camera("right").frame_id) == ("new", "rig")
    assert given.camera("left").frame_id == "l", "the values before are not touched"
    _, answer = change(given, [Parameter("left.image_topic", value="/other")], configured=True)
    assert answer.reason.startswith(
        "parameter 'left.image_topic' cannot change while the node is configured: "
    )
    changed, answer = change(
        given, [Parameter("left.image_topic", value="/other")], configured=False
    )
    assert changed.camera("left").image_topic == "/other"
    _, answer = change(given, [Parameter("left.max_age_ms", value=-1.0)], configured=True)
    assert (
        answer.reason
        == "parameter 'left.max_age_ms' must be a number from 0.0 to 600000.0, got -1.0"
    )


def test_other_parameters_are_left_to_others() -> None:
    for name in (
        "use_sim_time",
        "right.frame_id",
        "x.model",
    ):
        assert change(DEFAULTS, [Parameter(name, value=True)], configured=True) == (
            DEFAULTS,
            change(DEFAULTS, [], True)[1],
        )


@contextmanager
def node_given(values: dict[str, Any]) -> Iterator[Node]:
    """A node that was given these values by the user."""
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = Node(
        "declaring",
        parameter_overrides=overrides,
        automatically_declare_parameters_from_overrides=True,
    )
    yield node
    node.destroy_node()


def test_without_anything_given_all_have_their_defaults(ros: None) -> None:
    with node_given({}) as node:
        assert declare(node) == (DEFAULTS, [])
        assert {name: node.get_parameter(name).value for name in BY_NAME} == {
            spec.name: spec.ros_default for spec in SPECS
        }
        assert node.describe_parameter("roi").additional_constraints.startswith(
            "a list of 4 numbers from 0.0 to 1.0; may change"
        )


def test_what_was_given_is_taken_in_the_declared_type(ros: None) -> None:
    values = {
        "threads": 3,
        "overlay_opacity": 1,
        "roi": [0, 0, 1, 1],
        "cameras": ["left", ""],
        "autostart": False,
        "left.roi": [0, 0, 1, 1],
    }
    with node_given(values) as node:
        given, warnings = declare(node)
        assert warnings == []
        assert (given.threads, given.overlay_opacity, given.cameras, given.autostart) == (
            3,
            1.0,
            ("left",),
            False,
        )
        assert given.roi == given.camera("left").roi == (0.0, 0.0, 1.0, 1.0)
        assert list(node.get_parameter("roi").value) == [0.0, 0.0, 1.0, 1.0]
        assert (
            node.get_parameter("left.roi").type_
            == node.get_parameter("roi").type_
            == Parameter.Type.DOUBLE_ARRAY
        )
        assert node.get_parameter("overlay_opacity").type_ == Parameter.Type.DOUBLE


def test_an_error_names_the_parameter_as_given(ros: None) -> None:
    with (
        node_given({"cameras": ["left"], "left.image_transport": "theora"}) as node,
        pytest.raises(ConfigError) as caught,
    ):
        declare(node)
    assert (
        str(caught.value)
        == "parameter 'left.image_transport' must be one of raw, compressed, got 'theora'"
    )
    with (
        node_given({"cameras": ["left", "left"]}) as node,
        pytest.raises(ConfigError, match="must not hold a name twice, got 'left'"),
    ):
        declare(node)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("overlay_opacit", "did you mean 'overlay_opacity'?"),
        ("left.image_topik", "did you mean 'left.image_topic'?"),
        ("lefd.image_topic", "did you mean 'left.image_topic'?"),
        ("left.seed", "'seed' is the same for all cameras"),
        ("zzz", "known are model, provider, "),
    ],
)
def test_an_unknown_name_is_ignored_with_what_was_perhaps_meant(
    ros: None, name: str, remedy: str
) -> None:
    with node_given({"cameras": ["left"], name: "x", "use_sim_time": False}) as node:
        _, (warning,) = declare(node)
        assert warning.startswith(f"unknown parameter '{name}' is ignored; {remedy}")
        assert not node.has_parameter(name)


def test_the_file_is_where_the_launch_file_looks() -> None:
    assert (
        share_file("launch/segment.launch.py").parents[1]
        == share_file("config/segment.param.yaml").parents[1]
    )
    assert isinstance(share_file("config/fastdds.xml"), Path)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"steps": 4}, "steps"),
        ({"temperature": 0.5}, "temperature"),
        ({"sampler": "ancestral", "temperature": 0.5}, "temperature"),
        ({"sampler": "ancestral", "temperature": 0.5, "steps": 4}, ""),
        ({"sampler": "dpm_solver", "steps": 4, "eta": 1.0}, "eta"),
        ({"sampler": "ddim", "steps": 4, "eta": 1.0}, ""),
        ({"order": "confident"}, "order"),
        ({"order": "confident", "passes": 2}, ""),
        ({"roi": (0.0, 0.2, 1.0, 0.9)}, "roi"),
        ({"roi": (0.0, 0.2, 1.0, 0.9), "resize_mode": "crop"}, ""),
        ({"cameras": ("a", "b"), "own": {"b.roi": (0.0, 0.2, 1.0, 0.9)}}, "b.roi"),
        (
            {
                "cameras": ("a", "b"),
                "own": {"a.resize_mode": "crop"},
                "roi": (0.0, 0.2, 1.0, 0.9),
            },
            "",
        ),
        ({"temporal_max_gap": 2.0}, "temporal_max_gap"),
        ({"engine_cache": "/tmp/x"}, ""),
        ({"engine_cache": "/tmp/x", "provider": "cuda,cpu"}, "engine_cache"),
        ({"engine_cache": "/tmp/x", "provider": "openvino:GPU,cpu"}, ""),
        ({"engine_cache": "/tmp/x", "provider": "tensorrt,cpu"}, ""),
        ({"max_batch": 2}, "max_batch"),
        ({"max_rebuilds": 0, "rebuild_backoff": 9.0}, "rebuild_backoff"),
        ({"threads": 2, "seed": 7, "samples": 3}, ""),
    ],
)
def test_a_value_that_changes_nothing_is_reported(values: dict[str, Any], name: str) -> None:
    texts = without_effect(replace(DEFAULTS, **values))
    assert len(texts) == bool(name), texts
    assert not name or texts[0].startswith(f"parameter '{name}' has no effect (")


def test_the_shipped_defaults_all_have_an_effect() -> None:
    assert without_effect(DEFAULTS) == []


def test_qos_overrides_are_answered_with_the_parameters_that_set_it() -> None:
    _, (warning,) = read({"qos_overrides./mask.publisher.reliability": "best_effort"})
    assert warning.endswith("is ignored; set image_reliability or output_reliability")


def test_a_region_counts_only_with_crop_and_may_be_set_in_any_order() -> None:
    region = (0.0, 0.5, 1.0, 1.0)
    given, warnings = read({"roi": region, "resize_mode": "crop", "cameras": ["left", "right"]})
    assert not warnings
    assert given.camera("left").fit.roi == region
    changed, answer = change(given, [Parameter("resize_mode", value="letterbox")], configured=True)
    assert answer.successful
    assert changed.camera("left").fit == Fit("letterbox")
    _, (warning,) = read({"roi": region})
    assert warning.startswith("parameter 'roi' has no effect")


def test_names_that_yaml_reads_as_true_are_asked_for_in_quotes() -> None:
    with pytest.raises(ConfigError, match="put y, n, yes, no, on and off in quotes"):
        read({"cameras": [False, "s"]})
