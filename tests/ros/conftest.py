"""Fixtures of the tests that run the real rclpy: an isolated domain, a driver, and the node as a process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from ros_harness import BEST_EFFORT, Bench, Driver, NodeProcess, StartBench, StartNode, header, own_domain, picture
from sensor_msgs.msg import Image

from camseg_ros.image_messages import image_message
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

    def start(*arguments: str) -> NodeProcess:
        nodes.append(NodeProcess(arguments, tmp_path / f"node-{len(nodes)}"))
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
    """Starts the node, connects a driver and waits until both sides hear each other."""

    def start(*parameters: str, topics=("mask",), image_type=Image, image_topic="/image", qos=BEST_EFFORT, warm_up=None) -> Bench:
        arguments = [part for parameter in parameters for part in ("-p", parameter)]
        node = start_node("--ros-args", *arguments)
        bench = Bench(driver, node, tuple(topics), image_type, image_topic, qos)
        frame = warm_up or (lambda frame_id: image_message(picture(64, 48), "rgb8", header(0, frame_id)))
        driver.wait_ready(lambda frame_id: bench.publisher.publish(frame(frame_id)), node.assert_alive)
        return bench

    return start
