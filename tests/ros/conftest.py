"""Fixtures for tests with the real rclpy: an isolated domain, a driver, the node as a process."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.qos import QoSProfile
from ros_harness import (
    BEST_EFFORT,
    QUICK,
    Bench,
    Driver,
    NodeProcess,
    StartBench,
    StartNode,
    good_frame,
    own_domain,
)
from sensor_msgs.msg import Image

from camseg_ros.middleware import environment


@pytest.fixture(scope="session")
def ros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start rclpy in the session's own domain, for this process and the nodes that it starts."""
    with own_domain() as domain, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("ros_log")))
        patch.delenv("ROS_DISCOVERY_SERVER", raising=False)
        for name, value in environment(os.environ).items():
            patch.setenv(name, value)
        rclpy.init(args=[])
        yield
        rclpy.shutdown()


@pytest.fixture
def driver(ros: None) -> Iterator[Driver]:
    """Create the test's own node."""
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture
def start_node(ros: None, tmp_path: Path) -> Iterator[StartNode]:
    """Start nodes with a command line; at the end those still running must stop by SIGINT."""
    nodes: list[NodeProcess] = []

    def start(*arguments: str, program: tuple[str, ...] = ()) -> NodeProcess:
        nodes.append(NodeProcess(arguments, tmp_path / f"node-{len(nodes)}", program))
        return nodes[-1]

    yield start
    try:
        for node in nodes:
            if node.process.poll() is None:
                node.stop()
    finally:
        for node in nodes:
            node.kill()


@pytest.fixture
def start_bench(driver: Driver, start_node: StartNode) -> StartBench:
    """Start a node and connect a driver; wait until both are matched if `connected`."""

    def start(
        *parameters: str,
        topics: Sequence[str] = ("mask",),
        image_type: Any = Image,
        image_topic: str = "/image",
        qos: QoSProfile = BEST_EFFORT,
        warm_up: Callable[[str], Any] = good_frame,
        program: tuple[str, ...] = (),
        connected: bool = True,
    ) -> Bench:
        arguments = [part for parameter in (*QUICK, *parameters) for part in ("-p", parameter)]
        node = start_node("--ros-args", *arguments, program=program)
        bench = Bench(driver, node, tuple(topics), image_type, image_topic, qos)
        if connected:
            bench.connect(warm_up)
        return bench

    return start
