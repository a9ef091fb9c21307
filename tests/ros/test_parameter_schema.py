"""The schema rejects exactly what `Spec.check` rejects."""

import math
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
import yaml

from camseg_core.errors import ConfigError
from camseg_ros.middleware import share_file
from camseg_ros.parameter_spec import Spec, file_schema
from camseg_ros.parameters import SPECS, schema_text

SCHEMA = file_schema(SPECS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class PerCamera(Spec):
    """A parameter that each camera may have on its own."""

    per_camera: bool = True


def takes(validator: Any, name: str, value: object) -> bool:
    return bool(validator.is_valid({"/**": {"ros__parameters": {name: value}}}))


def test_it_is_a_valid_schema() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_shipped_schema_is_what_the_declarations_and_the_command_give() -> None:
    shipped = share_file("config/segment.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), (
        "run python -m camseg_ros.parameters > config/segment.schema.json"
    )
    printed = subprocess.run(
        [sys.executable, "-m", "camseg_ros.parameters"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert printed.stdout.decode() == shipped


def test_the_shipped_parameter_file_names_the_schema_and_keeps_to_it() -> None:
    lines = share_file("config/segment.param.yaml").read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", lines)
    assert named is not None
    assert share_file(f"config/{named[1]}").samefile(share_file("config/segment.schema.json"))
    VALIDATOR.validate(yaml.safe_load(lines))


def candidates(spec: Spec) -> list[object]:
    """Values of every type, and those around the parameter's choices and limits."""
    found: list[object] = [
        True,
        False,
        None,
        "",
        "x",
        "1",
        0,
        1,
        -1,
        7,
        2**70,
        0.5,
        -0.5,
        1e300,
        math.inf,
        -math.inf,
        {},
        {"a": 1},
    ]
    found += [
        [],
        [""],
        ["a", "b"],
        ["a", 1],
        [[]],
        [1],
        [0.25] * 4,
        [0, 0, 1, 1],
        [0, 0, 1, 1.5],
        [False, 0, 1, 1],
        [0.5] * 3,
        [0.5] * 5,
    ]
    found += [list(spec.default) if isinstance(spec.default, tuple) else spec.default]
    for choice in spec.choices:
        found += [
            choice,
            f" {choice}",
            f"{choice}\n",
            choice.upper(),
            f"{choice},",
            f",{choice}",
            f"{choice}{choice}",
            f"{choice}x",
            [choice],
        ]
        found += [
            f"{choice}{between}{other}"
            for other in spec.choices
            for between in (",", ", ", " ,\t", ";", " ", ",,")
        ]
    for limit in spec.limits or ():
        found += [
            limit,
            limit + 1,
            limit - 1,
            limit + 0.5,
            limit - 0.5,
            math.nextafter(limit, math.inf),
            math.nextafter(limit, -math.inf),
        ]
    return found


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_value_is_refused_exactly_where_the_node_refuses_it(spec: Spec) -> None:
    for value in candidates(spec):
        try:
            spec.check(value)
            right = True
        except ConfigError:
            right = False
        if type(spec.default) is int and isinstance(value, float) and value.is_integer():
            continue  # to JSON, 2.0 is the integer 2
        assert takes(VALIDATOR, spec.name, value) == right, (spec.name, value)


def test_lists_and_truth_values_have_their_types() -> None:
    region = Spec("region", (0.0, 0.0, 1.0, 1.0), "Four.", limits=(0.0, 1.0))
    names: Any = Spec("names", ("",), "Some.")  # type: ignore[arg-type]
    properties = file_schema([region, names, Spec("on", True, "Whether.")])["$defs"]["parameters"][
        "properties"
    ]
    number = {"type": "number", "minimum": 0.0, "maximum": 1.0}
    default = [0.0, 0.0, 1.0, 1.0]
    assert properties["region"] == {
        "description": "Four.",
        "default": default,
        "type": "array",
        "items": number,
        "minItems": 4,
        "maxItems": 4,
    }
    assert properties["names"] == {
        "description": "Some.",
        "default": [""],
        "type": "array",
        "items": {"type": "string"},
    }
    assert properties["on"] == {"description": "Whether.", "default": True, "type": "boolean"}


def test_a_camera_may_have_its_own_value_of_some_parameters() -> None:
    specs = [
        PerCamera("image_transport", "raw", "How.", choices=("raw", "compressed")),
        Spec("threads", 0, "Threads.", limits=(0, 64)),
    ]
    validator = jsonschema.Draft202012Validator(file_schema(specs))
    assert takes(validator, "front", {"image_transport": "compressed"})
    assert takes(validator, "image_transport", "raw")
    assert not takes(validator, "front", {"image_transport": "h264"})
    assert not takes(validator, "front", {"threads": 2})
    assert not takes(validator, "front", "compressed")


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ({"/**": {"ros__parameters": {"use_sim_time": True}}}, True),
        ({"/**": {"ros__parameters": {"use_sim_time": "yes"}}}, False),
        (
            {
                "/**": {
                    "ros__parameters": {"qos_overrides": {"/image": {"subscription": {"depth": 1}}}}
                }
            },
            False,
        ),
        ({"/**": {"ros__parameters": {"modle": "camseg-lite"}}}, False),
        ({"/**": {"ros_parameters": {}}}, False),
        ({"/**": None}, False),
        ({"segmentation": {"ros__parameters": {"threads": "many"}}}, False),
        (
            {
                "another_node": {"ros__parameters": {"threads": "many"}},
                "/**": {"ros__parameters": {}},
            },
            True,
        ),
    ],
)
def test_what_stands_around_the_parameters(content: object, right: bool) -> None:
    assert VALIDATOR.is_valid(content) == right
