"""What the command line gives the node, read as rcl reads it."""

from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from camseg_core.errors import ConfigError
from camseg_ros.ros_arguments import NotUnderstood, matches, parse, read_file, unmatched

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
    ],
)
def test_other_forms_are_left_to_rcl(arguments: list[str]) -> None:
    with pytest.raises(NotUnderstood):
        parse(["--ros-args", *arguments], "segmentation")


@pytest.mark.parametrize(
    ("rule", "better"),
    [
        ("__ns:=front", "/front"),
        ("__ns:=front/", "/front"),
        ("__ns:=/front//camera", "/front/camera"),
        ("__ns:=/front-camera/2nd/", "/front_camera/_2nd"),
        ("__ns:=~/front", "/front"),
        ("__ns:=/front__camera", "/front_camera"),
        ("__ns:=", "/"),
        ("__node:=front-camera", "front_camera"),
        ("__node:=front/camera", "front_camera"),
        ("__name:=2nd", "_2nd"),
        ("__node:=é", "segmentation"),
    ],
)
def test_a_name_that_rcl_refuses_is_answered_with_a_valid_one(
    ros: None, rule: str, better: str
) -> None:
    with pytest.raises(ConfigError, match=rf"must .*, got .*; write {better}$"):
        parse(["--ros-args", "-r", rule], "segmentation")
    assert_same(["--ros-args", "-r", f"{rule.partition(':=')[0]}:={better}"])
    with pytest.raises(Exception, match="remap rule"):
        by_rcl(["--ros-args", "-r", rule])


def test_words_outside_of_the_ros_arguments_do_not_count() -> None:
    found = parse(
        ["x", "-p", "a:=1", "--ros-args", "-p", "b:=2", "--", "-p", "c:=3"], "segmentation"
    )
    assert found.values == {"b": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold parameters, as in .*, but has none"),
        ("# only a comment\n", "but has none"),
        ("<html>not found</html>", "but has no mapping at line 1"),
        ("just text", "but has no mapping at line 1"),
        ("- a\n- b\n", "but has no mapping at line 1"),
        ("model: camseg-lite", "but has no mapping at line 1"),
        ("/**:\n  ros_parameters:\n    model: x\n", "but has no mapping at line 3"),
        ("/**:\n  ros__parameters:\n", "but has no mapping at line 2"),
        ("/**: [\n", "must be YAML: .* line 2"),
        ("\tx: 1\n", "must be YAML"),
    ],
)
def test_a_file_without_parameters_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"parameter file {path} .*{words}") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "binary", "must be YAML: 'utf-8'"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_file(path)
        with pytest.raises(ConfigError, match=words):
            parse(["--ros-args", "--params-file", str(path)], "segmentation")


def test_tags_and_anchors_are_left_to_rcl_and_other_ampersands_are_text(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    for value in ("&x y", "*x", "!!str 1"):
        path.write_text(f"/**: {{ros__parameters: {{model: {value}}}}}")
        with pytest.raises(NotUnderstood, match="tags or anchors"):
            read_file(path)
    for comment in ("# do not change!!", "# use the *small* model", "# R &D"):
        path.write_text(f"/**: {{ros__parameters: {{model: x}}}}  {comment}")
        assert read_file(path) == {"/**": {"model": "x"}}
    path.write_text("/**: {ros__parameters: {model: a & b*c}}\n---\n/x: {ros__parameters: {y: 1}}")
    assert read_file(path) == {"/**": {"model": "a & b*c"}, "/x": {"y": 1}}


def test_a_file_without_an_entry_for_the_node_is_named_with_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    arguments = ["node", "--ros-args", "--params-file", str(path)]
    path.write_text("segmentation_node: {ros__parameters: {steps: 4}}\n/a: {ros__parameters: {}}")
    (text,) = unmatched(arguments, "/front/segmentation")
    assert text == (
        f"parameter file {path} has no effect: it has no entry for this node, /front/segmentation, "
        "only for segmentation_node, /a; rename one to /front/segmentation or /**"
    )
    path.write_text("/front/segmentation: {ros__parameters: {steps: 4}}")
    assert unmatched(arguments, "/front/segmentation") == []
