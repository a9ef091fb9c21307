"""The launch file, if `launch` is installed (it is not on PyPI), and its text in any case."""

import ast
import importlib.util
import os
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from camseg_ros.middleware import share_file

ARGUMENTS = {
    *("image", "model", "provider", "precision", "params_file", "cameras", "namespace"),
    *("autostart", "on_failure", "fastdds_profile"),
}


def load() -> ModuleType:
    pytest.importorskip(
        "launch_ros", reason="launch and launch_ros are not on PyPI; this runs on a ROS install"
    )
    spec = importlib.util.spec_from_file_location(
        "segment_launch", share_file("launch/segment.launch.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_parses_and_has_what_ros2_launch_calls() -> None:
    tree = ast.parse(share_file("launch/segment.launch.py").read_text(encoding="utf-8"))
    assert "generate_launch_description" in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    assert {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} >= ARGUMENTS


def test_the_arguments_are_declared_and_described() -> None:
    arguments = load().generate_launch_description().get_launch_arguments()
    assert {argument.name for argument in arguments} == ARGUMENTS
    assert all(
        argument.description and argument.default_value is not None for argument in arguments
    )


def context_of(module: ModuleType, **given: str) -> Any:
    """The context of a launch line."""
    from launch import LaunchContext

    context = LaunchContext()
    for table in (module.ARGUMENTS, module.CHOICES):
        context.launch_configurations.update(
            {name: default for name, (default, *_) in table.items()}
        )
    context.launch_configurations.update(given)
    return context


def test_only_what_was_given_overrides_the_parameter_file() -> None:
    module = load()
    assert module.overrides(context_of(module)) == {}
    given = {
        "provider": "cuda",
        "precision": "fp16",
        "autostart": "false",
        "cameras": "left, right",
        "fastdds_profile": "false",
    }
    context = context_of(module, **given)
    expected = {
        "provider": "cuda",
        "precision": "fp16",
        "autostart": False,
        "cameras": ["left", "right"],
    }
    assert module.overrides(context) == expected
    (node,) = module.start_node(context)
    assert node.node_package == "camseg_ros"
    assert node.node_executable == "segmentation_node"


def test_a_failure_of_the_node_ends_the_launch_unless_it_is_ending_anyway() -> None:
    module = load()
    context = context_of(module)
    assert module.end_launch(SimpleNamespace(process_name="node-1", returncode=0), context) is None
    with pytest.raises(RuntimeError, match="node-1 exited with code 1"):
        module.end_launch(SimpleNamespace(process_name="node-1", returncode=1), context)
    context._set_is_shutdown(True)
    assert module.end_launch(SimpleNamespace(process_name="node-1", returncode=1), context) is None


@pytest.mark.parametrize(("on_failure", "code"), [("shutdown", 1), ("ignore", 0)])
def test_the_launch_ends_with_the_nodes_failure(ros: None, on_failure: str, code: int) -> None:
    module = load()
    packages = pytest.importorskip("ament_index_python.packages")
    if (
        "AMENT_PREFIX_PATH" not in os.environ
        or "camseg_ros" not in packages.get_packages_with_prefixes()
    ):
        pytest.skip("launch finds the node only in a sourced workspace")
    from launch import LaunchService

    service = LaunchService(noninteractive=True)
    service.context.launch_configurations.update({"model": "/none/there", "on_failure": on_failure})
    service.include_launch_description(module.generate_launch_description())
    assert service.run() == code
