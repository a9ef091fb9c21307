"""Endpoints that cannot connect are named with the mismatch; all others match."""

from types import SimpleNamespace
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from camseg_ros.endpoints import UNKNOWN_NAME, publishers_of, subscribers_of, type_name

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def endpoint(
    name: str, qos: QoSProfile, kind: str = "sensor_msgs/msg/Image", namespace: str = "/"
) -> Any:
    return SimpleNamespace(
        node_name=name, node_namespace=namespace, topic_type=kind, qos_profile=qos
    )


def node(*endpoints: Any) -> Any:
    """A node that has found these."""
    return SimpleNamespace(
        get_publishers_info_by_topic=lambda _: endpoints,
        get_subscriptions_info_by_topic=lambda _: endpoints,
    )


def test_types_are_called_as_the_middleware_does() -> None:
    assert (type_name(Image), type_name(CompressedImage)) == (
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
    )


def test_best_effort_hears_every_publisher() -> None:
    found = publishers_of(
        node(endpoint("b", RELIABLE), endpoint("a", BEST_EFFORT, namespace="/ns")),
        "/image",
        Image,
        BEST_EFFORT,
    )
    assert (found.suitable, found.problems) == (("/b", "/ns/a"), ())


def test_a_publisher_that_offers_too_little_is_named_with_both_sides() -> None:
    found = publishers_of(
        node(endpoint("camera", BEST_EFFORT), endpoint("other", RELIABLE)),
        "/image",
        Image,
        RELIABLE,
    )
    assert found.suitable == ("/other",)
    (problem,) = found.problems
    assert problem.startswith(
        "/camera publishes /image but offers reliability best_effort "
        "where this node asks for reliable: "
    )


def test_a_listener_that_asks_for_too_much_is_named_with_every_policy() -> None:
    found = subscribers_of(
        node(endpoint("late", LATCHED), endpoint("rviz", BEST_EFFORT)), "/mask", Image, BEST_EFFORT
    )
    assert found.suitable == ("/rviz",)
    (problem,) = found.problems
    reliability = "asks for reliability reliable where this node offers best_effort"
    durability = "asks for durability transient_local where this node offers volatile"
    assert problem.startswith(f"/late subscribes to /mask but {reliability} and {durability}: ")


def test_another_type_on_the_topic_is_reported() -> None:
    compressed = endpoint("camera", BEST_EFFORT, "sensor_msgs/msg/CompressedImage")
    (problem,) = publishers_of(node(compressed), "/image", Image, BEST_EFFORT).problems
    assert problem.startswith(
        "/camera publishes /image as sensor_msgs/msg/CompressedImage, "
        "this node uses sensor_msgs/msg/Image: "
    )


def test_an_endpoint_without_a_name_is_an_unnamed_node() -> None:
    found = publishers_of(
        node(endpoint(UNKNOWN_NAME, RELIABLE, namespace="_NODE_NAMESPACE_UNKNOWN_")),
        "/image",
        Image,
        BEST_EFFORT,
    )
    assert found.suitable == ("an unnamed node",)
