"""Hundreds of requests to set parameters, sensible and not, while frames flow."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from ros_harness import Bench, StartBench, header, picture, pixels_of, rgb_image

from camseg_ros.parameters import SPECS

REQUESTS = 500

STRINGS = [
    "",
    " ",
    "no such thing",
    "é日本語🚗",
    "a\nb",
    "x" * 10_000,
    "nan",
    "../../etc",
    "a = b, c = d",
    "{}",
    "\x00"[:0] + "\x07",
]
NUMBERS = [0.0, -0.0, 1.0, 0.5, -1.0, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf]
INTEGERS = [0, 1, 2, 3, -1, 2**31, 2**32, 2**63 - 1, -(2**63)]
KINDS: list[Callable[[random.Random], ParameterValue]] = [
    lambda r: ParameterValue(type=ParameterType.PARAMETER_NOT_SET),
    lambda r: ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=r.random() < 0.5),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_INTEGER, integer_value=r.choice(INTEGERS)
    ),
    lambda r: ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=r.choice(NUMBERS)),
    lambda r: ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=r.choice(STRINGS)),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_BYTE_ARRAY, byte_array_value=[bytes([7])] * r.choice([0, 3])
    ),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_BOOL_ARRAY, bool_array_value=[True] * r.choice([0, 3])
    ),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_INTEGER_ARRAY,
        integer_array_value=r.choices(INTEGERS, k=r.choice([0, 4, 1000])),
    ),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_DOUBLE_ARRAY,
        double_array_value=r.choices(NUMBERS, k=r.choice([0, 3, 4])),
    ),
    lambda r: ParameterValue(
        type=ParameterType.PARAMETER_STRING_ARRAY,
        string_array_value=r.choices(STRINGS, k=r.choice([0, 1, 100])),
    ),
]
OWN = {spec.name: spec for spec in SPECS}
FREE = [spec for spec in SPECS if not spec.fixed_because]
"""What may change while the node runs."""

PATIENT = {
    "steps": [1, 2, 3],
    "samples": [1, 2],
    "passes": [1, 2],
    "inference_timeout": [30.0, 3600.0],
    "diagnostics_period": [0.1, 0.5],
}
"""Valid values that would make the test wait for minutes are left out."""


def names(r: random.Random) -> str:
    others = [
        "",
        "no_such",
        "front.resize_mode",
        "model ",
        "STEPS",
        "qos_overrides./image.subscription.depth",
        "é",
        "x" * 5_000,
        "a.b.c.d",
    ]
    return r.choice([*OWN] * 3 + ["use_sim_time", "start_type_description_service", *others])


def sensible(r: random.Random) -> ParameterMessage:
    """A request that may well succeed."""
    spec = r.choice(FREE)
    value: object = r.choice([spec.ros_default, *spec.choices])
    if spec.name in PATIENT:
        value = r.choice(PATIENT[spec.name])
    elif spec.limits and isinstance(spec.default, float):
        value = r.uniform(*spec.limits)
    elif spec.limits and isinstance(spec.default, int):
        value = r.randint(*map(int, spec.limits))
    elif spec.name == "roi":
        value = [0.25, 0.25, 0.75, 0.75]
    elif spec.name == "class_groups":
        value = r.choice(
            [
                ["drivable = road, terrain"],
                ["drivable:100 = road"],
                [""],
                ["rubbish"],
                ["a = b", "a = b"],
            ]
        )
    elif spec.name == "enabled_classes":
        value = r.choice([["road"], ["car", "person"], ["no such class"], [""]])
    return Parameter(spec.name, value=value).to_parameter_msg()


def wild(r: random.Random) -> ParameterMessage:
    name, value = names(r), r.choice(KINDS)(r)
    number = (
        value.integer_value if value.type == ParameterType.PARAMETER_INTEGER else value.double_value
    )
    if name in PATIENT and number not in (*PATIENT[name], -1, math.nan, math.inf):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="slow")
    return ParameterMessage(name=name, value=value)


def values(bench: Bench) -> list[ParameterValue]:
    """The node's parameters; blank entries of lists, which count as none, are left out."""
    request = GetParameters.Request(names=[*OWN])
    found = bench.call(GetParameters, "get_parameters", request).values
    for value in found:
        value.string_array_value = [text for text in value.string_array_value if text.strip()]
    return list(found)


@pytest.mark.slow
def test_no_request_to_set_parameters_ends_the_node_or_is_refused_without_a_reason(
    start_bench: StartBench,
) -> None:
    bench, r, taken, refused = start_bench("diagnostics_period:=0.1"), random.Random(20), 0, 0
    rgb = picture(64, 48)
    (expected,) = bench.ask(rgb_image(rgb, 1))
    before = values(bench)
    for number in range(REQUESTS):
        wanted = [r.choice((sensible, wild))(r) for _ in range(r.choice([1, 1, 1, 2, 5]))]
        bench.publisher.publish(rgb_image(picture(r.randint(1, 90), r.randint(1, 60)), number))
        if number % 5:
            results = bench.call(
                SetParameters, "set_parameters", SetParameters.Request(parameters=wanted)
            ).results
            assert len(results) == len(wanted)
        else:
            request = SetParametersAtomically.Request(parameters=wanted)
            results = [
                bench.call(SetParametersAtomically, "set_parameters_atomically", request).result
            ]
        for result in results:
            assert result.successful or result.reason.strip(), wanted
            taken, refused = taken + result.successful, refused + (not result.successful)
        bench.node.assert_alive()
    assert min(taken, refused) > REQUESTS / 10, "the test asks for too much or too little"
    # all at once: region and mode suit one another only together
    defaults = [Parameter(spec.name, value=spec.ros_default).to_parameter_msg() for spec in FREE]
    defaults.append(Parameter("use_sim_time", value=False).to_parameter_msg())
    answer = bench.call(
        SetParametersAtomically,
        "set_parameters_atomically",
        SetParametersAtomically.Request(parameters=defaults),
    )
    assert answer.result.successful, answer.result.reason
    assert bench.set_parameter("diagnostics_period", 0.1) == (True, "")
    assert values(bench) == before
    (mask,) = bench.ask(rgb_image(rgb, 2000))
    bench.driver.wait(
        lambda: bench.answers["mask"][-1].header == header(2000),
        "the answer",
        lambda: bench.node.output,
    )
    mask = bench.answers["mask"][-1]
    assert np.array_equal(pixels_of(mask), pixels_of(expected))
    _, model = bench.status(lambda values: True, "a report", part="model")
    assert (model["state"], model["engine rebuilds"]) == ("active", "0")
    assert "a callback failed" not in bench.node.output, bench.node.output
