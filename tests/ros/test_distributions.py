"""What older ROS distributions lack, and advice that suits the installation at hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ros_harness import TIMEOUT

from camseg_core.cli.console import how_to_install

ROOT = Path(__file__).resolve().parents[2]

AS_HUMBLE = """
import importlib, pkgutil, sys
import rclpy.lifecycle

# rclpy's modules and methods since Humble (rclpy 3.3), from the sources of both
MODULES = (
    "clock_type", "destroyable", "event_handler", "logging_service", "parameter_client",
    "parameter_event_handler", "service_introspection", "type_description_service", "type_hash",
)
NAMES = {
    "node.Node": (
        "list_parameters", "count_clients", "count_services", "wait_for_node",
        "get_fully_qualified_node_names", "add_pre_set_parameters_callback",
        "add_post_set_parameters_callback",
    ),
    "executors.Executor": ("create_future",),
    "subscription.Subscription": ("get_publisher_count", "set_content_filter"),
    "service.Service": ("service_name", "logger_name"),
    "client.Client": ("service_name", "logger_name"),
    "publisher.Publisher": ("logger_name",),
}

def refuse(cls, item):
    raise TypeError(f"'type' object is not subscriptable: {cls.__name__}, in Humble")

for module in MODULES:
    sys.modules[f"rclpy.{module}"] = None
    vars(rclpy).pop(module, None)
for path, names in NAMES.items():
    module, name = path.split(".")
    found = getattr(importlib.import_module(f"rclpy.{module}"), name)
    for each in names:
        if hasattr(found, each):
            delattr(found, each)
    found.__class_getitem__ = classmethod(refuse)
"""

IMPORT_ALL = """
import camseg_ros
for found in pkgutil.walk_packages(camseg_ros.__path__, "camseg_ros."):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        if error.name != "ray":  # which few installations have
            raise
print("all")
"""


def test_everything_can_be_imported_with_what_humble_has(ros: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_HUMBLE + IMPORT_ALL],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout == "all\n", done.stderr


@pytest.mark.slow
def test_a_replay_works_with_what_humble_has(ros: None, tmp_path: Path) -> None:
    from camseg_core.data.frame_source import synthetic_frames
    from camseg_ros.bag.make import write_bag

    bag = tmp_path / "bag"
    write_bag(synthetic_frames(4), bag)
    command = AS_HUMBLE + "from camseg_core.cli.main import main\nmain(sys.argv[1:])\n"
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-c", command, "bag", "replay", bag, "--warm-up", "0", "--json", result],
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )
    assert done.returncode == 0, done
    assert '"answered": 4' in result.read_text(encoding="utf-8")
    assert '"image_transport": "raw"' in result.read_text(encoding="utf-8")


@pytest.fixture
def _sourced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")


@pytest.fixture
def _not_sourced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.mark.usefixtures("_sourced")
@pytest.mark.parametrize("extra", ["ros", "bag"])
@pytest.mark.parametrize(
    "name", ["rclpy", "rclpy.parameter_client", "sensor_msgs", "std_srvs.srv", "psutil"]
)
def test_a_wheel_of_ros_is_never_advised_where_ros_is_sourced(name: str, extra: str) -> None:
    text = how_to_install("this command", missing(name), extra)
    assert "[ros]" not in text
    if name == "psutil":
        # never the project's extras, which would add a second OpenCV for another numpy
        assert text == "this command needs psutil, which is not installed: pip install psutil"
    else:
        assert f"ros-humble-{name.partition('.')[0].replace('_', '-')}" in text
        assert "pip install" not in text


@pytest.mark.usefixtures("_not_sourced")
def test_both_ways_to_ros_are_advised_where_none_is_sourced() -> None:
    text = how_to_install("the node", missing("rclpy"), "ros")
    assert text == (
        "the node needs rclpy, which is not installed: source a ROS 2 installation (source "
        "/opt/ros/DISTRO/setup.bash) or, without one, pip install '.[ros]' in the project's folder"
    )


def test_an_extension_for_another_python_is_named_as_such() -> None:
    error = ImportError(
        "the C extension '_rclpy_pybind11.cpython-310.so'\nis missing", name="rclpy"
    )
    text = how_to_install("the node", error, "ros")
    assert "the node cannot use rclpy: the C extension '_rclpy_pybind11.cpython-310.so' is" in text


WITHOUT_ROS = """
import sys
for name in ("rclpy", "sensor_msgs", "rcl_interfaces", "std_srvs", "lifecycle_msgs"):
    sys.modules[name] = None
from camseg_ros.__main__ import main
sys.exit(main())
"""


def run_without_ros(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the node's console script in a Python without ROS."""
    hidden = ("ROS_DISTRO", "AMENT_PREFIX_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", WITHOUT_ROS, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
    )


def test_the_node_says_on_one_line_that_ros_is_missing() -> None:
    done = run_without_ros()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("segmentation_node: the node needs ")
    assert "source a ROS 2 installation" in line


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--ros-args", "--help"]])
def test_the_help_needs_no_ros(arguments: list[str]) -> None:
    done = run_without_ros(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: segmentation_node [--ros-args ")


def test_the_help_lists_every_parameter(ros: None) -> None:
    from camseg_ros.parameters import SPECS

    command = [sys.executable, "-m", "camseg_ros", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stderr == ""
    assert "  threads (0): CPU threads of the model" in done.stdout
    for spec in SPECS:
        assert f"\n  {spec.name} (" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


HIDING = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "mcap", "psutil"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


TESTS = """
import subprocess, sys
import pytest
from camseg_core.cli.main import main
from camseg_core.cli.options import packages_for

def test_runs(): pass
def test_imports(): import psutil
def test_runs_what_imports():
    with packages_for("this", "train"): import mcap.reader
def test_runs_a_program():
    program = [sys.executable, "-c", "raise ModuleNotFoundError(\\"No module named 'mcap'\\")"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
def test_runs_a_command(capsys):
    with pytest.raises(SystemExit) as end: main(["bag", "evaluate", "--help"])
    assert not end.value.code
def test_fails(): import camseg_core.none
def test_fails_beside_an_installed_package(): assert not "No module named 'rclpy'"
"""


def test_where_packages_are_missing_their_tests_are_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "test_all.py").write_text("import torch\ndef test_one(): pass\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    paths = os.pathsep.join(map(str, (ROOT / "tests", ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", HIDING, "-p", "conftest", "-rs", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""},  # colcon sets some
    )
    assert "2 failed, 1 passed, 5 skipped" in done.stdout, done
    assert "No module named 'camseg_core.none'" in done.stdout
    for skipped in ("test_all.py: needs torch", "needs psutil", "needs mcap"):
        assert skipped in done.stdout, done
