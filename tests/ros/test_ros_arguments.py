"""What the command line gives the node, read as rcl reads it."""

from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from camseg_ros.ros_arguments import NotUnderstood, matches, parse

FILE = """
/**:
  ros__parameters:
    steps: 4
    model: all
    list: [1, 2, 3]
    nested: {deep: {er: x}, n: 1.5}
segmentation:
  ros__parameters: {model: by_name, quoted: "1"}
/front:
  segmentation:
    ros__parameters: {place: in_namespace}
  other:
    ros__parameters: {place: other}
/front/*:
  ros__parameters: {star: one}
/*/*:
  ros__parameters: {stars: two}
/*:
  ros__parameters: {level: one}
segmentation_node:
  ros__parameters: {place: executable}
"""

SCALARS = (
    *("1", "-7", "+3", "0x1F", "010", "0", "1.0", "1e3", ".5", "5.", "-.inf", ".nan", "inf", "1_0"),
    *("true", "Yes", "off", "N", "y", "TrUe", "text", "'1'", '"yes"', "1.2.3", "0b1", "08"),
    *("[1, 2]", "['a', b]", "[1.0, 2.5]", "[true, no]", "12:30", "2001-01-01", "a b", "0x1p3"),
    *("~", "null", "9223372036854775807", "1e999"),
)


def by_rcl(arguments: list[str]) -> dict[str, Any]:
    """The parameters that rclpy gives a node with this command line."""
    context = Context()
    rclpy.init(args=arguments, context=context)
    try:
        node = Node(
            "segmentation",
            context=context,
            automatically_declare_parameters_from_overrides=True,
            start_parameter_services=False,
        )
        own = node.get_parameters_by_prefix("")
        values = {name: each.value for name, each in own.items()}
        node.destroy_node()
    finally:
        context.try_shutdown()
    ignored = ("use_sim_time", "start_type_description_service")
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in values.items()
        if name not in ignored
    }


def assert_same(arguments: list[str]) -> None:
    expected, found = by_rcl(arguments), parse(arguments, "segmentation").values
    assert repr(found) == repr({name: expected[name] for name in found}), arguments
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("text", SCALARS)
def test_values_are_read_as_rcl_reads_them(ros: None, text: str) -> None:
    assert_same(["--ros-args", "-p", f"x:={text}"])


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["-r", "__ns:=/front"],
        ["-r", "__node:=other"],
        ["--remap", "__ns:=/front", "-r", "__node:=other"],
        ["-r", "__ns:=/a/b"],
        ["-r", "__ns:=/front", "-r", "__ns:=/rear"],
    ],
)
def test_entries_of_a_file_are_chosen_as_rcl_chooses_them(
    ros: None, tmp_path: Path, names: list[str]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    assert_same(["program", "--ros-args", "--params-file", str(path), *names])
    assert_same(
        ["--ros-args", "-p", "steps:=9", *names, "--params-file", str(path), "-p", "model:=last"]
    )
    assert_same(["--ros-args", *names, "-p", "segmentation:x:=1", "-p", "x:=2", "--"])


def test_the_entries_of_every_file_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    found = parse(["--ros-args", "--params-file", str(path)], "segmentation")
    assert found.node == "/segmentation"
    assert found.entries[path][:3] == ["/**", "segmentation", "/front/segmentation"]
    assert [entry for entry in found.entries[path] if matches(entry, found.node)] == [
        "/**",
        "segmentation",
        "/*",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-r", "segmentation:__ns:=/x"],
        ["-p", "novalue"],
        ["-p", "x:="],
        ["-p", "x:=!!str 1"],
        ["--params-file", "/none/there.yaml"],
    ],
)
def test_other_forms_are_left_to_rcl(arguments: list[str]) -> None:
    with pytest.raises(NotUnderstood):
        parse(["--ros-args", *arguments], "segmentation")


def test_words_outside_of_the_ros_arguments_do_not_count() -> None:
    found = parse(
        ["x", "-p", "a:=1", "--ros-args", "-p", "b:=2", "--", "-p", "c:=3"], "segmentation"
    )
    assert found.values == {"b": 2}
