"""Endpoints that cannot connect are named with the mismatch; all others match."""

from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from camseg_ros.endpoints import (
    COMPRESSED,
    NO_IMAGE_TOPICS,
    RAW,
    TOPICS_SHOWN,
    UNKNOWN_NAME,
    VIDEO,
    ImageTopic,
    image_topics,
    publishers_of,
    rivals_of,
    several_sources,
    subscribers_of,
    topic_remedy,
    transport_remedy,
    type_name,
)

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


def test_durations_fit_where_both_have_no_limit_and_are_named_where_they_do_not() -> None:
    endless = Duration(nanoseconds=2**63 - 1)
    remote = QoSProfile(depth=5, deadline=endless, liveliness_lease_duration=endless)
    strict = QoSProfile(depth=5, deadline=Duration(seconds=0, nanoseconds=100_000_000))
    found = subscribers_of(
        node(endpoint("rviz", remote), endpoint("safety", strict)), "/mask", Image, RELIABLE
    )
    assert found.suitable == ("/rviz",)
    (problem,) = found.problems
    assert "but asks for deadline of 0.1 s where this node offers none: " in problem


def test_another_type_on_the_topic_is_reported() -> None:
    compressed = endpoint("camera", BEST_EFFORT, "sensor_msgs/msg/CompressedImage")
    (problem,) = publishers_of(node(compressed), "/image", Image, BEST_EFFORT).problems
    assert problem.startswith(
        "/camera publishes /image as sensor_msgs/msg/CompressedImage, "
        "this node uses sensor_msgs/msg/Image: "
    )


@pytest.mark.parametrize(
    ("own", "other", "remedy"),
    [
        (Image, COMPRESSED, "set image_transport: compressed"),
        (CompressedImage, RAW, "set image_transport: raw"),
        *((Image, kind, f"-p in_transport:={name} ") for kind, (name, _) in VIDEO.items()),
        (Image, "std_msgs/msg/String", "remap one of them"),
    ],
)
def test_another_type_is_answered_with_the_transport_that_reads_it(
    own: Any, other: str, remedy: str
) -> None:
    (problem,) = publishers_of(
        node(endpoint("camera", RELIABLE, other)), "/a", own, BEST_EFFORT
    ).problems
    assert remedy in problem
    assert "{topic}" not in problem


def test_the_command_that_decodes_video_is_that_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (kind, (name, _)), *_ = VIDEO.items()
    for distribution, command in (
        ("humble", f"republish {name} raw --ros-args -r in/{name}:=/a "),
        ("jazzy", f"republish --ros-args -p in_transport:={name} -p out_transport:=raw "),
    ):
        monkeypatch.setenv("ROS_DISTRO", distribution)
        assert command in transport_remedy("/a", kind)


def test_two_publishers_of_one_topic_are_both_named() -> None:
    ours, other = endpoint("segmentation", RELIABLE), endpoint("second", RELIABLE, namespace="/ns")
    assert rivals_of(node(ours), "/mask") == ""
    text = rivals_of(node(ours, other), "/mask")
    assert text.startswith("/ns/second and /segmentation publish /mask, so masks mix; ")
    assert rivals_of(node(ours, ours), "/mask").startswith("2 nodes named /segmentation publish")


def test_the_image_topics_are_those_that_others_publish() -> None:
    topics = {
        "/b/image": [("camera", RAW), ("segmentation", RAW)],
        "/a/image/compressed": [("camera", COMPRESSED)],
        "/a/video": [("camera", next(iter(VIDEO)))],
        "/b/image/compressedDepth": [("camera", COMPRESSED)],
        "/mask": [("segmentation", RAW)],
        "/nobody": [],
        "/text": [("camera", "std_msgs/msg/String")],
    }
    found = SimpleNamespace(
        get_name=lambda: "segmentation",
        get_namespace=lambda: "/",
        get_topic_names_and_types=lambda: [
            (name, [kind for _, kind in ends] or [RAW]) for name, ends in topics.items()
        ],
        get_publishers_info_by_topic=lambda name: [
            endpoint(who, RELIABLE, kind) for who, kind in topics[name]
        ],
    )
    found_topics = image_topics(found)
    assert [topic.name for topic in found_topics] == ["/a/image/compressed", "/a/video", "/b/image"]
    assert {topic.publishers for topic in found_topics} == {("/camera",)}


def remedy(topic: str, *topics: tuple[str, str], own: Any = Image) -> str:
    found = [ImageTopic(name, kind, ("/camera",)) for name, kind in topics]
    return topic_remedy(topic, own, "image_topic", found)


def test_a_topic_without_publisher_is_answered_with_the_topics_that_exist() -> None:
    assert remedy("/image") == NO_IMAGE_TOPICS
    text = remedy("/image", ("/image/compressed", COMPRESSED), ("/other", RAW))
    assert text.endswith("from /camera) exists: set image_transport: compressed")
    text = remedy("/image/compressed", ("/image", RAW), own=CompressedImage)
    assert text.endswith("set image_transport: raw")
    text = remedy("/image", ("/image/ffmpeg", next(iter(VIDEO))))
    assert "-r in/ffmpeg:=/image/ffmpeg -r out:=/decoded/image" in text
    text = remedy("/image", ("/camera/image_raw", RAW))
    kind = "sensor_msgs/msg/Image from /camera"
    assert text == f"/camera/image_raw ({kind}) exists: set image_topic: /camera/image_raw"
    packed = ("/cam/image/compressed", COMPRESSED)
    assert remedy("/image/compressed", packed, own=CompressedImage).endswith(": /cam/image")
    text = remedy("/image", ("/a", RAW), ("/b", RAW), packed)
    assert text.startswith("set image_topic (and image_transport) to one of /a (")
    many = [(f"/camera_{number}", RAW) for number in range(TOPICS_SHOWN + 3)]
    assert remedy("/image", *many).endswith(" and 3 more")


def test_compressed_images_under_a_plain_name_are_received_by_a_remapping() -> None:
    plain = ("/cam/rect_compressed", COMPRESSED)
    for topic, own in (
        ("/cam/rect_compressed", Image),
        ("/cam/rect_compressed/compressed", CompressedImage),
    ):
        text = remedy(topic, plain, own=own)
        expected = "-r /cam/rect_compressed/compressed:=/cam/rect_compressed"
        assert text.endswith(f"set image_transport: compressed, and start the node with {expected}")
    assert remedy("/a/compressed", plain, own=CompressedImage).endswith(
        "-r /a/compressed:=/cam/rect_compressed"
    )


def test_several_cameras_on_one_topic_are_all_named() -> None:
    two = publishers_of(
        node(endpoint("a", RELIABLE), endpoint("b", BEST_EFFORT)), "/image", Image, BEST_EFFORT
    )
    text = several_sources("/image", two)
    assert text.startswith("/a and /b publish /image, so their images mix")
    one = publishers_of(node(endpoint("a", RELIABLE)), "/image", Image, BEST_EFFORT)
    assert several_sources("/image", one) == ""


def test_a_type_that_holds_no_image_has_no_remedy() -> None:
    assert transport_remedy("/text", "std_msgs/msg/String") == ""


def test_an_endpoint_without_a_name_is_an_unnamed_node() -> None:
    found = publishers_of(
        node(endpoint(UNKNOWN_NAME, RELIABLE, namespace="_NODE_NAMESPACE_UNKNOWN_")),
        "/image",
        Image,
        BEST_EFFORT,
    )
    assert found.suitable == ("an unnamed node",)
