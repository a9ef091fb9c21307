"""The other nodes on a topic, and which of them cannot connect because of type or QoS, and why."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"
"""An endpoint's node name until the middleware discovers it; for good if it is not a ROS node."""


@dataclass(frozen=True)
class Endpoints:
    """The discovered other side of a topic."""

    suitable: tuple[str, ...]
    """Names of the nodes with matching type and QoS."""
    problems: tuple[str, ...]
    """One sentence for each endpoint that cannot connect."""


def publishers_of(node: Node, topic: str, message_type: Any, qos: QoSProfile) -> Endpoints:
    """Return the publishers on a topic that `node` subscribes to with this type and QoS."""

    def problem(endpoint: TopicEndpointInfo) -> str:
        words = "publishes", "offers", "asks for"
        return _problem(endpoint, message_type, endpoint.qos_profile, qos, words)

    return _sorted(topic, node.get_publishers_info_by_topic(topic), problem)


def subscribers_of(node: Node, topic: str, message_type: Any, qos: QoSProfile) -> Endpoints:
    """Return the subscribers of a topic that `node` publishes with this type and QoS."""

    def problem(endpoint: TopicEndpointInfo) -> str:
        words = "subscribes to", "asks for", "offers"
        return _problem(endpoint, message_type, qos, endpoint.qos_profile, words)

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
    """Return why the endpoint does not match; empty if it does.

    `words` are the verbs for what the endpoint does, for its QoS, and for this node's.
    """
    does, its, ours = words
    own_type = type_name(message_type)
    if endpoint.topic_type != own_type:
        types = f"as {endpoint.topic_type}, this node uses {own_type}"
        return f"{does} {{topic}} {types}: they cannot connect; remap one of them"
    mine = asked if offered is endpoint.qos_profile else offered
    texts = []
    for policy in ("reliability", "durability", "liveliness"):
        if not _compatible(policy, offered, asked):
            theirs, own = (getattr(qos, policy) for qos in (endpoint.qos_profile, mine))
            theirs, own = theirs.name.lower(), own.name.lower()
            texts.append(f"{its} {policy} {theirs} where this node {ours} {own}")
    if not texts:
        return ""
    text = " and ".join(texts)
    return f"{does} {{topic}} but {text}: they cannot connect; change one side's QoS"


def _compatible(policy: str, offered: QoSProfile, asked: QoSProfile) -> bool:
    """Return whether two profiles match in this policy."""
    ours, theirs = (
        QoSProfile(depth=1, **{policy: getattr(profile, policy)}) for profile in (offered, asked)
    )
    return bool(qos_check_compatible(ours, theirs)[0] != QoSCompatibility.ERROR)


def _name(endpoint: TopicEndpointInfo) -> str:
    if endpoint.node_name == UNKNOWN_NAME:
        return "an unnamed node"
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def type_name(message_type: Any) -> str:
    """Return a message type's name in the middleware, such as `sensor_msgs/msg/Image`."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
