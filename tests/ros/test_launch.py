"""The launch file, where `launch` is installed (a ROS install: it is not on PyPI), and its text everywhere."""

import ast
import importlib.util
from types import ModuleType

import pytest

from camseg_ros.share import share_file

ARGUMENTS = {"image", "model", "provider", "precision", "params_file", "namespace", "fastdds_profile"}


def load() -> ModuleType:
    pytest.importorskip("launch_ros", reason="launch and launch_ros are not on PyPI; this runs on a ROS install")
    spec = importlib.util.spec_from_file_location("segment_launch", share_file("launch/segment.launch.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_parses_and_has_what_ros2_launch_calls() -> None:
    tree = ast.parse(share_file("launch/segment.launch.py").read_text(encoding="utf-8"))
    assert "generate_launch_description" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} >= ARGUMENTS


def test_the_arguments_are_declared_and_described() -> None:
    arguments = load().generate_launch_description().get_launch_arguments()
    assert {argument.name for argument in arguments} == ARGUMENTS
    assert all(argument.description and argument.default_value is not None for argument in arguments)


def test_only_what_was_given_overrides_the_parameter_file() -> None:
    module = load()
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update({name: default for name, (default, _) in module.ARGUMENTS.items()})
    context.launch_configurations.update({"provider": "cuda", "precision": "fp16", "fastdds_profile": "false"})
    assert module.overrides(context) == {"provider": "cuda", "precision": "fp16"}
    (node,) = module.start_node(context)
    assert node.node_package == "camseg_ros"
    assert node.node_executable == "segmentation_node"
