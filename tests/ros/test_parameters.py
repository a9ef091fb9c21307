"""The declarations, the file and the checks hold together; wrong values are told with what would be right."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from rclpy.parameter import Parameter

from camseg_core.errors import ConfigError
from camseg_ros.parameters import SPECS, Parameters, Spec, change
from camseg_ros.share import share_file

BY_NAME = {spec.name: spec for spec in SPECS}
DEFAULTS = Parameters(**{spec.name: spec.default for spec in SPECS})  # type: ignore[arg-type]


def test_fields_and_declarations_agree() -> None:
    assert [(field.name, field.type) for field in fields(Parameters)] == [(spec.name, type(spec.default)) for spec in SPECS]


def test_the_file_holds_every_parameter_with_its_default_and_a_comment() -> None:
    path = share_file("config/segment.param.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    given = content["/**"]["ros__parameters"]
    assert given == {spec.name: spec.default for spec in SPECS}
    for spec in SPECS:
        assert spec.check(given[spec.name]) == spec.default
        assert type(given[spec.name]) is type(spec.default)
    lines = path.read_text(encoding="utf-8").splitlines()
    for spec in SPECS:
        above = lines[next(i for i, line in enumerate(lines) if line.strip().startswith(f"{spec.name}:")) - 1].strip()
        assert above.startswith("#"), spec.name
        assert all(choice in above for choice in spec.choices), spec.name
        for limit in spec.limits or ():
            assert f"{limit:g}" in above.replace(".0", "") or str(limit) in above, spec.name


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_declaration_is_complete_and_takes_its_default(spec: Spec) -> None:
    assert spec.description.endswith(".")
    assert spec.check(spec.default) == spec.default
    descriptor = spec.descriptor()
    assert descriptor.description == spec.description
    assert spec.takes in descriptor.additional_constraints
    assert ("fixed while the node runs: " in descriptor.additional_constraints) == bool(spec.fixed_because)
    if spec.limits:
        (limits,) = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert (limits.from_value, limits.to_value) == spec.limits


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("threads", "many", "parameter 'threads' takes an integer from 0 to 64, got 'many' (a string)"),
        ("threads", 65, "parameter 'threads' takes an integer from 0 to 64, got 65"),
        ("threads", 2.0, "parameter 'threads' takes an integer from 0 to 64, got 2.0 (a number)"),
        ("threads", True, "parameter 'threads' takes an integer from 0 to 64, got True (true/false)"),
        ("overlay_opacity", 1.5, "parameter 'overlay_opacity' takes a number from 0.0 to 1.0, got 1.5"),
        ("overlay_opacity", float("nan"), "parameter 'overlay_opacity' takes a number from 0.0 to 1.0, got nan"),
        ("provider", "gpu", "parameter 'provider' takes one of cpu, cuda, tensorrt, or several with commas between, got 'gpu'"),
        ("provider", "cuda,", "parameter 'provider' takes one of cpu, cuda, tensorrt, or several with commas between, got 'cuda,'"),
        ("precision", "int4", "parameter 'precision' takes one of auto, fp32, fp16, int8, got 'int4'"),
        ("temperature", 11.0, "parameter 'temperature' takes a number from -1.0 to 10.0, got 11.0"),
        ("samples", 0, "parameter 'samples' takes an integer from 1 to 64, got 0"),
        ("order", "best", "parameter 'order' takes one of random, confident, got 'best'"),
        ("eta", -0.5, "parameter 'eta' takes a number from 0.0 to 1.0, got -0.5"),
        ("model", 7, "parameter 'model' takes a string, got 7 (an integer)"),
        ("model", ["a"], "parameter 'model' takes a string, got ['a'] (a list)"),
        ("model", None, "parameter 'model' takes a string, got None (no value)"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(name: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BY_NAME[name].check(value)
    assert str(caught.value) == text


def test_a_list_of_providers_will_do_for_one() -> None:
    for value in ("tensorrt,cuda,cpu", "cuda, cpu", "tensorrt"):
        assert BY_NAME["provider"].check(value) == value


def test_an_integer_will_do_for_a_number() -> None:
    value = BY_NAME["overlay_opacity"].check(1)
    assert (value, type(value)) == (1.0, float)


def test_what_may_change_changes_and_the_rest_says_why_not() -> None:
    changed, answer = change(DEFAULTS, [Parameter("overlay_opacity", value=0.25)])
    assert answer.successful
    assert changed.overlay_opacity == 0.25
    for spec in SPECS:
        if not spec.fixed_because:
            continue
        other = spec.choices[-1] if spec.choices else "other" if isinstance(spec.default, str) else spec.default + 1
        kept, answer = change(DEFAULTS, [Parameter("overlay_opacity", value=0.1), Parameter(spec.name, value=other)])
        assert not answer.successful
        assert f"parameter '{spec.name}' cannot change while the node runs: " in answer.reason
        assert kept is DEFAULTS


def test_setting_the_same_value_again_is_fine_and_a_wrong_one_is_not() -> None:
    assert change(DEFAULTS, [Parameter("model", value="camseg-lite")]) == (DEFAULTS, change(DEFAULTS, [])[1])
    kept, answer = change(DEFAULTS, [Parameter("overlay_opacity", value=2.0)])
    assert kept is DEFAULTS
    assert "takes a number from 0.0 to 1.0, got 2.0" in answer.reason


def test_other_parameters_are_left_to_others() -> None:
    assert change(DEFAULTS, [Parameter("use_sim_time", value=True)])[1].successful


def test_the_file_is_where_the_launch_file_looks() -> None:
    assert share_file("launch/segment.launch.py").parents[1] == share_file("config/segment.param.yaml").parents[1]
    assert isinstance(share_file("config/fastdds.xml"), Path)
