"""The other nodes on a topic, and which of them cannot connect because of type or QoS, and why; and
the image topics there are."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"
"""An endpoint's node name until the middleware discovers it; for good if it is not a ROS node."""

PUBLISHES = "publishes"

POLICIES = ("reliability", "durability", "liveliness", "deadline", "liveliness_lease_duration")
"""The policies in which two sides must fit together."""

_ENDLESS_NS = 2**31 * 10**9
"""From this duration on, middlewares mean none."""

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

VIDEO = {
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": ("ffmpeg", "ffmpeg_image_transport"),
    "foxglove_msgs/msg/CompressedVideo": ("foxglove", "foxglove_compressed_video_transport"),
    "theora_image_transport/msg/Packet": ("theora", "theora_image_transport"),
}
"""Types of video, each with image_transport's name for it and the package that decodes it."""

UNREADABLE = ("/compressedDepth", "/zstd")
"""Endings of topics whose CompressedImage holds no JPEG, PNG or WebP."""

NO_IMAGE_TOPICS = "check the topic name and whether the camera runs"
"""What to do if nobody publishes images."""

TOPICS_SHOWN = 6
"""Most image topics that one message lists."""


@dataclass(frozen=True)
class ImageTopic:
    """A topic with images or video, and the nodes that publish it."""

    name: str
    type: str
    publishers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.type} from {', '.join(self.publishers)})"


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
        words = PUBLISHES, "offers", "asks for"
        return _problem(endpoint, message_type, endpoint.qos_profile, qos, words)

    return _sorted(topic, node.get_publishers_info_by_topic(topic), problem)


def subscribers_of(node: Node, topic: str, message_type: Any, qos: QoSProfile) -> Endpoints:
    """Return the subscribers of a topic that `node` publishes with this type and QoS."""

    def problem(endpoint: TopicEndpointInfo) -> str:
        words = "subscribes to", "asks for", "offers"
        return _problem(endpoint, message_type, qos, endpoint.qos_profile, words)

    return _sorted(topic, node.get_subscriptions_info_by_topic(topic), problem)


def rivals_of(node: Node, topic: str) -> str:
    """Return a sentence that names all publishers of a topic which only `node` should publish;
    empty if it is alone."""
    names = sorted(_name(endpoint) for endpoint in node.get_publishers_info_by_topic(topic))
    if len(names) < 2:
        return ""
    who = _all_of(names, "nodes")
    return f"{who} publish {topic}, so masks mix; stop one or give it another namespace"


def several_sources(topic: str, publishers: Endpoints) -> str:
    """Return a sentence that names all matching publishers of a camera's topic; empty if one."""
    if len(publishers.suitable) < 2:
        return ""
    who = _all_of(publishers.suitable, "publishers")
    return f"{who} publish {topic}, so their images mix; stop or remap all but one"


def _all_of(names: Sequence[str], what: str) -> str:
    if len({*names}) == 1:
        return f"{len(names)} {what} named {names[0]}"
    return " and ".join(names)


def image_topics(node: Node) -> list[ImageTopic]:
    """Return the topics with images or video that other nodes publish, by name.

    Leaves out those of image_transport that neither this node nor a decoder of video reads.
    """
    own = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
    found = []
    for name, types in node.get_topic_names_and_types():
        if name.endswith(UNREADABLE):
            continue
        for kind in set(types) & {RAW, COMPRESSED, *VIDEO}:
            names = {
                _name(endpoint)
                for endpoint in node.get_publishers_info_by_topic(name)
                if endpoint.topic_type == kind
            }
            if names - {own}:
                found.append(ImageTopic(name, kind, tuple(sorted(names - {own}))))
    return sorted(found, key=lambda topic: (topic.name, topic.type))


def transport_remedy(topic: str, kind: str) -> str:
    """Return the parameters, or the command, with which this node receives a topic of this type."""
    if kind in VIDEO:
        transport, package = VIDEO[kind]
        decode = f"--ros-args -p in_transport:={transport} -p out_transport:=raw"
        if os.environ.get("ROS_DISTRO") == "humble":
            decode = f"{transport} raw --ros-args"
        names = f"-r in/{transport}:={topic} -r out:=/decoded/image"
        return (
            f"video is not supported; with {package} installed, decode it: ros2 run "
            f"image_transport republish {decode} {names}; then use /decoded/image"
        )
    return {RAW: "set image_transport: raw", COMPRESSED: "set image_transport: compressed"}.get(
        kind, ""
    )


def topic_remedy(topic: str, message_type: Any, parameter: str, topics: list[ImageTopic]) -> str:
    """Return what to do when `topic` has no publisher, given the image topics that exist.

    Args:
        topic: the camera's input topic, with its transport.
        message_type: its type.
        parameter: name of the parameter with the camera's topic.
        topics: from `image_topics`.
    """
    if not topics:
        return NO_IMAGE_TOPICS
    base = topic.removesuffix("/compressed")
    for each in topics:  # the same camera with another transport
        if each.name == base or each.name.rpartition("/")[0] == base:
            return f"{each} exists: {_transport_of(each, topic)}"
    kinds = [each for each in topics if each.type == type_name(message_type)]
    if len(kinds) == 1:
        (only,) = kinds
        if only.type != COMPRESSED:
            return f"{only} exists: set {parameter}: {only.name}"
        if only.name.endswith("/compressed"):
            return f"{only} exists: set {parameter}: {only.name.removesuffix('/compressed')}"
        return f"{only} exists: {_transport_of(only, topic)}"
    listed = ", ".join(map(str, topics[:TOPICS_SHOWN]))
    if len(topics) > TOPICS_SHOWN:
        listed += f" and {len(topics) - TOPICS_SHOWN} more"
    return f"set {parameter} (and image_transport) to one of {listed}"


def _transport_of(found: ImageTopic, topic: str) -> str:
    """Return how this node receives a topic that exists in place of `topic`.

    Compressed images under a name that does not end in `/compressed` need a remapping.
    """
    if found.type == COMPRESSED and not found.name.endswith("/compressed"):
        listened = f"{topic.removesuffix('/compressed')}/compressed"
        return (
            "its name does not end in /compressed: set image_transport: compressed, and start the "
            f"node with -r {listened}:={found.name}"
        )
    return transport_remedy(found.name, found.type)


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
        remedy = "remap one of them"
        if does == PUBLISHES:
            remedy = transport_remedy("{topic}", endpoint.topic_type) or remedy
        return f"{does} {{topic}} {types}: they cannot connect; {remedy}"
    mine = asked if offered is endpoint.qos_profile else offered
    texts = []
    for policy in POLICIES:
        if not _compatible(policy, offered, asked):
            theirs, own = (_shown(qos, policy) for qos in (endpoint.qos_profile, mine))
            name = policy.replace("_", " ")
            texts.append(f"{its} {name} {theirs} where this node {ours} {own}")
    if not texts:
        return ""
    text = " and ".join(texts)
    return f"{does} {{topic}} but {text}: they cannot connect; change one side's QoS"


def _compatible(policy: str, offered: QoSProfile, asked: QoSProfile) -> bool:
    """Return whether two profiles match in this policy."""
    ours, theirs = (
        QoSProfile(depth=1, **{policy: _policy(profile, policy)}) for profile in (offered, asked)
    )
    return bool(qos_check_compatible(ours, theirs)[0] != QoSCompatibility.ERROR)


def _policy(profile: QoSProfile, policy: str) -> Any:
    """Return a policy's value; a duration without limit as 0, as profiles of this node have it."""
    value = getattr(profile, policy)
    endless = isinstance(value, Duration) and value.nanoseconds >= _ENDLESS_NS
    return Duration() if endless else value


def _shown(profile: QoSProfile, policy: str) -> str:
    value = _policy(profile, policy)
    if isinstance(value, Duration):
        return f"of {value.nanoseconds / 1e9:g} s" if value.nanoseconds else "none"
    return str(value.name).lower()


def _name(endpoint: TopicEndpointInfo) -> str:
    if endpoint.node_name == UNKNOWN_NAME:
        return "an unnamed node"
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def type_name(message_type: Any) -> str:
    """Return a message type's name in the middleware, such as `sensor_msgs/msg/Image`."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
