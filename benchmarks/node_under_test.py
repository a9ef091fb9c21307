"""Shared by the node's benchmarks: a node and a driver in a private ROS domain, and options."""

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from unittest import mock

import numpy as np
import psutil
from document import add_document_options
from frame_driver import ONE, Driver, Size, camera_parameters

from camseg_core.cli.options import at_least
from camseg_core.errors import CamSegError
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    die_with_parent,
    free_domain,
    ros_environment,
)
from camseg_ros.middleware import ALLOCATOR, TRANSPORT_CHOICES

T = TypeVar("T")

CODE_OF_NODES = ("camseg_core", "camseg_ros", "config", "benchmarks")
"""The folders that decide what a node's benchmark measures."""


@dataclass(frozen=True)
class Launch:
    """How to start node and driver.

    Attributes:
        parameters: of the node, `name:=value`.
        cameras: names from `frame_driver.camera_names`.
        reliable: images are reliable on both sides, else best effort (sensor-data QoS).
        profile: use the Fast DDS profile that ships.
        allocator: use the allocator settings that ship.
    """

    cameras: tuple[str, ...] = ONE
    parameters: tuple[str, ...] = ()
    reliable: bool = False
    profile: bool = True
    allocator: bool = True

    def command(self) -> list[str]:
        """The command that starts the node."""
        reliability = f"image_reliability:={'reliable' if self.reliable else 'best_effort'}"
        parameters = [*self.parameters, *camera_parameters(self.cameras), reliability]
        options = [option for parameter in parameters for option in ("-p", parameter)]
        return [
            sys.executable,
            "-m",
            "camseg_ros.segmentation_node",
            "--ros-args",
            "--log-level",
            "warn",
            *options,
        ]

    def environment(self, log_dir: Path) -> dict[str, str]:
        """Environment in an unused domain; the user's transports and allocator are ignored."""
        plain = {
            name: value
            for name, value in os.environ.items()
            if name not in (*TRANSPORT_CHOICES, *ALLOCATOR)
        }
        left_out = (
            *(() if self.profile else TRANSPORT_CHOICES),
            *(() if self.allocator else ALLOCATOR),
        )
        shipped = ros_environment(free_domain(), log_dir, plain)
        return {name: value for name, value in shipped.items() if name not in left_out}


def with_node(launch: Launch, drive: Callable[..., T], *arguments: object) -> T:
    """Start the node, and call `drive(driver, node, ...)` in a new process once the node answers.

    The driver needs a new process because glibc and Fast DDS read their settings at start-up.

    Raises:
        CamSegError: the node does not answer, or has ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="camseg_benchmark_") as folder,
        mock.patch.dict(os.environ, launch.environment(Path(folder)), clear=True),
        ProcessPoolExecutor(1, mp_context=spawn, initializer=die_with_parent) as process,
    ):
        return process.submit(_drive, launch, Path(folder) / "node.log", drive, arguments).result()


def _drive(launch: Launch, log: Path, drive: Callable[..., T], arguments: tuple[object, ...]) -> T:
    try:
        with (
            NodeProcess(launch.command(), os.environ, log) as node,
            Driver(launch.cameras, launch.reliable) as driver,
        ):
            driver.wait_for_node(node.check)
            return drive(driver, node, *arguments)
    except NodeDied as error:  # its log goes with the folder
        raise CamSegError(
            f"{error}, which is deleted; its last lines:\n{error.last_lines}"
        ) from None


def resident_mb(node: NodeProcess) -> float:
    """The node's resident memory in MB (10^6 bytes)."""
    return float(psutil.Process(node.pid).memory_info().rss / 1e6)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed."""
    return float(np.percentile(values, percent))


def size_of(text: str) -> Size:
    """Parse a size such as 640x480."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"must be a size such as 640x480, got {text!r}")
    return int(width), int(height)


def size_text(size: Size) -> str:
    """Format a size; the inverse of `size_of`."""
    return f"{size[0]}x{size[1]}"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `model_parameters` reads."""
    parser.add_argument(
        "--model",
        default="camseg-lite",
        help="model name or checkpoint folder (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=at_least(0),
        default=0,
        help="the node's parameter threads (default: 0 = all cores)",
    )


def node_parser(description: str | None, sizes: str) -> argparse.ArgumentParser:
    """A parser with `--frames`, `--warm-up`, `--size` (default in words), model and document."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    for name, least, default, text in (
        ("--frames", 1, 50, "frames of each row"),
        ("--warm-up", 0, 5, "frames of each row that are not counted"),
    ):
        help_text = f"{text} (default: {default})"
        parser.add_argument(name, type=at_least(least), default=default, help=help_text)
    help_text = f"may be repeated (default: {sizes})"
    parser.add_argument("--size", type=size_of, action="append", metavar="WxH", help=help_text)
    add_model_options(parser)
    add_document_options(parser)
    return parser


def model_parameters(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The node's parameters that these options set."""
    return f"model:={arguments.model}", f"threads:={arguments.threads}"
