"""Dependencies point one way: what each folder may import, seen in a fresh interpreter."""

import functools
import importlib.util
import subprocess
import sys

import pytest

ENGINES = {"onnxruntime", "openvino"}
HEAVY = {"torch", "torchvision", "diffusers"}
ROS = {"rclpy", "camseg_ros"}
CORE = {
    f"camseg_core.{folder}"
    for folder in (
        *("cli", "config", "data", "diffusion", "evaluation", "export", "model", "runtime"),
        *("training", "weights"),
    )
}


@functools.cache
def modules_after(folder: str, without: str = "") -> set[str]:
    """What is loaded when a new interpreter has imported every module of a folder.

    Returns top-level names, and `camseg_core.FOLDER` for the project's own. Parts listed in
    `without` are left out.
    """
    program = f"""
import importlib, pkgutil, sys
package = importlib.import_module({folder!r})
left_out = tuple("{folder}." + part for part in {without.split()!r})
for module in pkgutil.walk_packages(getattr(package, "__path__", []), "{folder}."):
    if not module.name.startswith(left_out) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
names = {{name.split(".")[0] for name in sys.modules}}
names |= {{".".join(name.split(".")[:2]) for name in sys.modules if "camseg_core." in name}}
sys.stdout.write(" ".join(sorted(names)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("folder", "core", "others"),
    [
        ("camseg_core.config", set(), HEAVY | ENGINES | ROS),
        ("camseg_core.diffusion", {"config"}, HEAVY | ENGINES | ROS),
        ("camseg_core.runtime", {"config", "diffusion", "weights"}, HEAVY | ROS),
        ("camseg_core.model", {"config", "diffusion"}, ENGINES | ROS),
    ],
)
def test_every_module_of_a_folder_imports_only_what_the_folder_may(
    folder: str, core: set[str], others: set[str]
) -> None:
    found = modules_after(folder)
    assert found & CORE <= {folder, *(f"camseg_core.{name}" for name in core)}
    assert not found & others


@pytest.mark.parametrize("folder", ["data", "evaluation", "export"])
def test_nothing_below_training_imports_it(folder: str) -> None:
    assert not modules_after(f"camseg_core.{folder}") & {
        *("camseg_core.training", "camseg_core.cli"),
        *ROS,
    }


def test_the_core_never_imports_ros() -> None:
    assert not modules_after("camseg_core") & ROS


@pytest.mark.parametrize("module", ["camseg_core.cli.main", "camseg_core.weights", "camseg_core"])
def test_a_command_starts_without_torch(module: str) -> None:
    program = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nothing_of_the_node_its_bag_tools_and_its_demo_imports_torch() -> None:
    if importlib.util.find_spec("rclpy") is None:
        pytest.skip("needs rclpy: pip install '.[ros]' or a ROS install")
    found = modules_after("camseg_ros")
    assert not found & (HEAVY | {"camseg_core.training", "camseg_core.model"})


def test_the_node_imports_the_runtime_and_nothing_above_it() -> None:
    if importlib.util.find_spec("rclpy") is None:
        pytest.skip("needs rclpy: pip install '.[ros]' or a ROS install")
    allowed = {f"camseg_core.{name}" for name in ("config", "diffusion", "runtime", "weights")}
    assert modules_after("camseg_ros", "bag demo") & CORE <= allowed
