"""The launch file, if `launch` is installed (it is not on PyPI), and its text in any case."""

import ast
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_harness import TIMEOUT, Driver

from camseg_ros.middleware import share_file

ARGUMENTS = {
    *("image", "image_transport", "model", "provider", "precision", "params_file", "cameras"),
    *("node_name", "namespace", "use_sim_time", "log_level", "autostart", "on_failure"),
    "fastdds_profile",
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
    defaults = {name: default for name, (default, _) in module.ARGUMENTS.items()}
    defaults["on_failure"] = module.ON_FAILURE[0]
    context.launch_configurations.update({**defaults, **given})
    return context


def test_only_what_was_given_overrides_the_parameter_file() -> None:
    module = load()
    assert module.overrides(context_of(module)) == {}
    given = {
        "image": "/front/image_raw",
        "image_transport": "compressed",
        "model": "~/checkpoint",
        "provider": "cuda",
        "precision": "fp16",
        "autostart": "False",
        "use_sim_time": "True",
        "cameras": "left, right",
        "fastdds_profile": "false",
    }
    context = context_of(module, **given)
    expected = {
        "image_topic": "/front/image_raw",
        "image_transport": "compressed",
        "model": str(Path("~/checkpoint").expanduser()),
        "provider": "cuda",
        "precision": "fp16",
        "autostart": False,
        "use_sim_time": True,
        "cameras": ["left", "right"],
    }
    assert module.overrides(context) == expected
    (node,) = module.start_node(context)
    assert node.node_package == "camseg_ros"
    assert node.node_executable == "segmentation_node"


def test_a_compressed_topic_says_the_transport_and_names_that_ros_misreads_are_refused() -> None:
    module = load()
    given = module.overrides(context_of(module, image="/image_raw/compressed"))
    assert given == {"image_topic": "/image_raw/compressed", "image_transport": "compressed"}
    with pytest.raises(RuntimeError, match="'cameras' must not have the name n, which ROS reads"):
        module.overrides(context_of(module, cameras="n,s"))


def test_a_parameter_file_that_only_rcl_reads_is_left_to_the_node(tmp_path: Path) -> None:
    module, path = load(), tmp_path / "tags.yaml"
    path.write_text("/**: {ros__parameters: {model: !!str camseg-lite}}")
    assert module.parameter_file(context_of(module, params_file=str(path)), []) == str(path)


@pytest.mark.parametrize("name", ["autostart", "use_sim_time", "fastdds_profile"])
@pytest.mark.parametrize(("text", "value"), [("True", True), ("FALSE", False), ("1", True)])
def test_true_and_false_are_read_in_any_case(name: str, text: str, value: bool) -> None:
    module = load()
    assert module.flag(context_of(module, **{name: text}), name) is value
    with pytest.raises(RuntimeError, match=f"'{name}' must be true or false, got 'maybe'"):
        module.start_node(context_of(module, **{name: "maybe"}))


def test_a_failure_of_the_node_ends_the_launch_unless_it_is_ending_anyway() -> None:
    module = load()
    context = context_of(module)

    def end(code: int) -> None:
        module.end_launch(SimpleNamespace(process_name="node-1", returncode=code), context)

    end(0)
    with pytest.raises(RuntimeError, match="node-1 exited with code 1; see its last line"):
        end(1)
    with pytest.raises(RuntimeError, match="node-1 was killed by SIGKILL; .* dmesg") as caught:
        end(-9)
    assert "last line" not in str(caught.value)
    context._set_is_shutdown(True)
    end(1)


def command(*arguments: str) -> list[str]:
    """What `ros2 launch` runs; skips the test if `launch` is missing or cannot find the node."""
    module = load()
    packages = pytest.importorskip("ament_index_python.packages")
    if (
        "AMENT_PREFIX_PATH" not in os.environ
        or "camseg_ros" not in packages.get_packages_with_prefixes()
    ):
        pytest.skip("launch finds the node only in a sourced workspace")
    return [sys.executable, "-c", LAUNCH, str(module.__file__), *arguments]


def launch(*arguments: str) -> tuple[int, str]:
    """Run the launch file to its end; return its exit code and output."""
    done = subprocess.run(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    return done.returncode, done.stdout


LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *arguments = sys.argv[1:]
given = [tuple(each.split(":=", 1)) for each in arguments]
service = LaunchService(noninteractive=True)
source = PythonLaunchDescriptionSource(path)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])
)
sys.exit(service.run())
"""
"""What `ros2 launch FILE NAME:=VALUE` runs."""


@pytest.mark.parametrize(("on_failure", "code"), [("shutdown", 1), ("ignore", 0)])
def test_the_launch_ends_with_the_nodes_failure(ros: None, on_failure: str, code: int) -> None:
    found, output = launch("model:=/none/there", f"on_failure:={on_failure}")
    assert found == code, output
    assert "segmentation_node: " in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "but has none"),
        ("model: x", "must hold parameters"),
        ("/**: [", "must be YAML"),
        (
            "/**: {ros__parameters: {left: {image_topic: /a}}}",
            "launch argument 'image' does not reach cameras with their own topic",
        ),
    ],
)
def test_a_parameter_file_that_cannot_be_used_ends_the_launch_with_one_line(
    ros: None, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    code, output = launch(f"params_file:={path}", "image:=/camera/image_raw")
    assert code == 1, output
    (line,) = [line for line in output.splitlines() if "ERROR" in line]
    assert words in line
    assert "process started" not in output


@pytest.mark.parametrize(
    ("key", "node"),
    [("/**", "segmentation"), ("segmentation", "segmentation"), ("/front/eye", "eye")],
)
def test_the_launch_line_wins_over_the_parameter_file(
    ros: None, driver: Driver, tmp_path: Path, key: str, node: str
) -> None:
    path = tmp_path / "file.yaml"
    values = "image_topic: /file/image, model: /none/there, warm_up_sizes: ['64x48']"
    path.write_text(f"{key}: {{ros__parameters: {{{values}}}}}")
    namespace = key.rpartition("/")[0].removesuffix("/**")
    service = f"{namespace}/{node}/get_parameters"
    names = [f"node_name:={node}", f"namespace:={namespace}", "use_sim_time:=True"]
    line = ["image:=/line/image", "model:=camseg-lite", "image_transport:=compressed"]
    found: list[Any] = []
    with launched(f"params_file:={path}", *names, *line, "log_level:=warn") as output:
        client = driver.node.create_client(GetParameters, service)
        driver.wait(client.service_is_ready, "the node", output)
        wanted = ["image_topic", "model", "image_transport", "use_sim_time", "warm_up_sizes"]
        future = client.call_async(GetParameters.Request(names=wanted))
        driver.wait(future.done, "its parameters", output)
        found += [parameter_value_to_python(each) for each in future.result().values]
        info = driver.node.get_publishers_info_by_topic
        driver.wait(lambda: info(f"{namespace}/segmentation/mask"), "its topics", output)
        assert "ready:" not in output(), "information is not logged"
    assert found == ["/line/image", "camseg-lite", "compressed", True, ["64x48"]]


def test_a_parameter_file_for_another_node_is_named_in_the_output(
    ros: None, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("segmentation_node: {ros__parameters: {steps: 4}}")
    _, output = launch(f"params_file:={path}", "autostart:=False", "model:=x", "provider:=none")
    assert "provider" in output, "another argument ends it"
    with launched(f"params_file:={path}", "autostart:=False") as output_of:
        deadline = time.monotonic() + TIMEOUT
        while "no entry for this node" not in output_of() and time.monotonic() < deadline:
            time.sleep(0.1)
        text = "it has no entry for this node, /segmentation, only for segmentation_node"
        assert text in output_of()


@contextmanager
def launched(*arguments: str) -> Iterator[Callable[[], str]]:
    """Run the launch file meanwhile; yields a function that returns its output so far."""
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen(command(*arguments), stdout=file, stderr=subprocess.STDOUT)

        def output() -> str:
            file.flush()
            return os.pread(file.fileno(), 1_000_000, 0).decode(errors="replace")

        try:
            yield output
            assert process.poll() is None, output()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(TIMEOUT)
