"""Fixtures of the tests that run the real rclpy: an isolated domain, a driver, and the node as a process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from ros_harness import (
    BEST_EFFORT,
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
    """rclpy in a domain of this session's own, for this process and for the nodes that it starts."""
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
    """The test's own node."""
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture
def start_node(ros: None, tmp_path: Path) -> Iterator[StartNode]:
    """Starts the node with the given command line; at the end it has to stop cleanly by SIGINT, unless the test ended it."""
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
    """Starts the node, connects a driver and waits until both sides hear each other, unless they are not meant to."""

    def start(
        *parameters: str,
        topics=("mask",),
        image_type=Image,
        image_topic="/image",
        qos=BEST_EFFORT,
        warm_up=good_frame,
        program: tuple[str, ...] = (),
        connected=True,
    ) -> Bench:
        arguments = [part for parameter in parameters for part in ("-p", parameter)]
        node = start_node("--ros-args", *arguments, program=program)
        bench = Bench(driver, node, tuple(topics), image_type, image_topic, qos)
        if connected:
            bench.connect(warm_up)
        return bench

    return start
