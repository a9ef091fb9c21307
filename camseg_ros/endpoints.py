"""Who else is on a topic, and why nothing may come from or go to them: types and QoS that do not match, named on both sides."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"
"""What the middleware calls the node of an endpoint until it finds the name, a moment after the endpoint; for good if it is no ROS node."""


@dataclass(frozen=True)
class Endpoints:
    """The other side of a topic, as the middleware has found it."""

    suitable: tuple[str, ...]
    """Names of nodes whose type and QoS match."""
    problems: tuple[str, ...]
    """One sentence for each endpoint that can never be heard, or never hear."""


def publishers_of(node: Node, topic: str, message_type: Any, qos: QoSProfile) -> Endpoints:
    """The publishers on a topic that `node` subscribes to with this type and QoS."""

    def problem(endpoint: TopicEndpointInfo) -> str:
        return _problem(
            endpoint, message_type, endpoint.qos_profile, qos, ("publishes", "offers", "asks for")
        )

    return _sorted(topic, node.get_publishers_info_by_topic(topic), problem)


def subscribers_of(node: Node, topic: str, message_type: Any, qos: QoSProfile) -> Endpoints:
    """The subscribers of a topic that `node` publishes with this type and QoS."""

    def problem(endpoint: TopicEndpointInfo) -> str:
        return _problem(
            endpoint,
            message_type,
            qos,
            endpoint.qos_profile,
            ("subscribes to", "asks for", "offers"),
        )

    return _sorted(topic, node.get_subscriptions_info_by_topic(topic), problem)


def _sorted(
    topic: str, endpoints: Sequence[TopicEndpointInfo], problem: Callable[[TopicEndpointInfo], str]
) -> Endpoints:
    suitable, problems = [], []
    for endpoint in endpoints:
        text = problem(endpoint)
        if text:
            problems.append(f"{_name(endpoint)} {text.format(topic=topic)}")
        else:
            suitable.append(_name(endpoint))
    return Endpoints(tuple(sorted(suitable)), tuple(sorted(problems)))


def _problem(
    endpoint: TopicEndpointInfo,
    message_type: Any,
    offered: QoSProfile,
    asked: QoSProfile,
    words: tuple[str, str, str],
) -> str:
    """Why the endpoint does not match; empty if it does. `words`: what it does, how its QoS stands to ours, and ours to its."""
    does, its, ours = words
    own_type = type_name(message_type)
    if endpoint.topic_type != own_type:
        return f"{does} {{topic}} as {endpoint.topic_type}, this node has it as {own_type}: they never meet; remap one of them"
    mine = asked if offered is endpoint.qos_profile else offered
    policies = [
        (policy, getattr(endpoint.qos_profile, policy), getattr(mine, policy))
        for policy in ("reliability", "durability", "liveliness")
        if _stops(policy, offered, asked)
    ]
    if not policies:
        return ""
    text = " and ".join(
        f"{its} {policy} {theirs.name.lower()} where this node {ours} {own.name.lower()}"
        for policy, theirs, own in policies
    )
    return f"{does} {{topic}} but {text}: nothing passes between them; set one side's QoS to the other's"


def _stops(policy: str, offered: QoSProfile, asked: QoSProfile) -> bool:
    """Whether this policy alone keeps the two from matching."""
    ours, theirs = (
        QoSProfile(depth=1, **{policy: getattr(profile, policy)}) for profile in (offered, asked)
    )
    return bool(qos_check_compatible(ours, theirs)[0] == QoSCompatibility.ERROR)


def _name(endpoint: TopicEndpointInfo) -> str:
    if endpoint.node_name == UNKNOWN_NAME:
        return "an unnamed node"
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def type_name(message_type: Any) -> str:
    """A message's type as the middleware calls it, such as `sensor_msgs/msg/Image`."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
