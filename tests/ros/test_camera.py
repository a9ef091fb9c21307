"""Where a camera's topics are."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.node import Node
from ros_harness import picture, rgb_image
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from camseg_ros.camera import Camera, Picture, camera_topic, why_too_old
from camseg_ros.image_conversion import choose_converter
from camseg_ros.parameter_updates import unused_remappings
from camseg_ros.parameters import Parameters
from camseg_ros.worker import Frame

DEFAULTS = Parameters()


@pytest.mark.parametrize(
    ("camera", "topic", "found"),
    [
        ("", "image", "image"),
        ("left", "image", "left/image"),
        ("left", "sensing/image_raw", "left/sensing/image_raw"),
        ("left", "/sensing/left/image_raw", "/sensing/left/image_raw"),
        ("left", "~/image", "~/image"),
        ("", "~/image", "~/image"),
    ],
)
def test_a_relative_topic_stands_under_the_cameras_name(
    camera: str, topic: str, found: str
) -> None:
    assert camera_topic(camera, topic) == found


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    node = Node("owner", namespace="/ns", cli_args=["--ros-args", "-r", "image:=/camera/image_raw"])
    yield node
    node.destroy_node()


def camera_of(node: Node, name: str = "", **values: Any) -> Camera:
    given = replace(DEFAULTS, cameras=(name,) if name else (), **values)
    return Camera(node, name, given)


@pytest.mark.parametrize(
    ("name", "values", "topic", "info_topic"),
    [
        ("", {}, "/camera/image_raw", "/camera/camera_info"),
        (
            "",
            {"image_transport": "compressed"},
            "/camera/image_raw/compressed",
            "/camera/camera_info",
        ),
        (
            "",
            {"image_transport": "compressed", "image_topic": "/front/image_raw/compressed"},
            "/front/image_raw/compressed",
            "/front/camera_info",
        ),
        ("left", {}, "/ns/left/image", "/ns/left/camera_info"),
        ("left", {"image_topic": "/image"}, "/image", "/camera_info"),
        (
            "left",
            {"image_topic": "raw/image", "camera_info_topic": "info"},
            "/ns/left/raw/image",
            "/ns/left/info",
        ),
        (
            "left",
            {"camera_info_topic": "/shared/camera_info"},
            "/ns/left/image",
            "/shared/camera_info",
        ),
        ("left", {"own": {"left.image_topic": "x"}}, "/ns/left/x", "/ns/left/camera_info"),
    ],
)
def test_the_input_is_the_remapped_topic_and_the_calibration_lies_beside_it(
    node: Node, name: str, values: dict[str, Any], topic: str, info_topic: str
) -> None:
    camera = camera_of(node, name, **values)
    assert (camera.topic, camera.info_topic) == (topic, info_topic)
    camera.subscribe(lambda message: None)
    assert {subscription.topic_name for subscription in node.subscriptions} == {topic, info_topic}
    camera.destroy()
    assert list(node.subscriptions) == []


def test_a_remapped_compressed_topic_is_named_and_the_calibration_lies_beside_it(ros: None) -> None:
    rule = "image/compressed:=/cam/image_raw/compressed"
    node = Node("owner", cli_args=["--ros-args", "-r", rule])
    camera = camera_of(node, image_transport="compressed")
    topics = "/cam/image_raw/compressed", "/cam/camera_info"
    assert (camera.topic, camera.info_topic) == topics
    camera.subscribe(lambda message: None)
    assert {subscription.topic_name for subscription in node.subscriptions} == {*topics}
    node.destroy_node()


@pytest.mark.parametrize(
    ("name", "values", "info_topic"),
    [
        ("", {}, "/my/info"),
        ("", {"image_topic": "/front/image"}, "/my/info"),
        ("", {"camera_info_topic": "/set/info"}, "/set/info"),
        ("left", {}, "/left_info"),
        ("right", {}, "/ns/right/camera_info"),
    ],
)
def test_a_remapped_calibration_is_used(
    ros: None, name: str, values: dict[str, Any], info_topic: str
) -> None:
    rules = ["image:=/camera/image_raw", "camera_info:=/my/info", "left/camera_info:=/left_info"]
    arguments = ["--ros-args", *(part for rule in rules for part in ("-r", rule))]
    node = Node("owner", namespace="/ns", cli_args=arguments)
    assert camera_of(node, name, **values).info_topic == info_topic
    texts = unused_remappings(node, replace(DEFAULTS, cameras=(name,) if name else (), **values))
    unused = [text for text in texts if text.startswith("the remapping camera_info:=/my/info")]
    assert len(unused) == (info_topic != "/my/info")
    node.destroy_node()


def test_the_outputs_stand_under_segmentation_and_go_with_the_camera(node: Node) -> None:
    before = len(list(node.publishers))
    plain, named = camera_of(node), camera_of(node, "left", run_length_mask=True)
    names = ["mask", "confidence", "color", "overlay"]
    wanted = {
        f"/ns/segmentation/{name}{kind}" for name in names for kind in ("", "/compressed")
    } | {"/ns/segmentation/camera_info"}
    assert set(plain.outputs.topics) == wanted
    assert set(named.outputs.topics) == {topic.replace("/ns/", "/ns/left/") for topic in wanted} | {
        "/ns/left/segmentation/mask_rle"
    }
    plain.destroy()
    named.destroy()
    assert len(list(node.publishers)) == before


def test_the_age_counts_from_the_stamp_and_from_the_arrival_where_that_is_zero(node: Node) -> None:
    camera = camera_of(node)
    message = rgb_image(picture(4, 4))
    seconds = node.get_clock().now().nanoseconds // 10**9
    message.header.stamp = Time(sec=seconds - 100)
    now = time.monotonic()
    assert 100_000 <= camera.age_ms(Frame("", message, now)) < 200_000
    message.header.stamp = Time()
    assert 0 <= camera.age_ms(Frame("", message, now)) < 90_000
    message.header.stamp = Time(
        sec=seconds + 1000
    )  # a clock that is ahead makes nothing young again
    assert camera.age_ms(Frame("", message, now - 50)) >= 50_000


def test_stamps_ahead_of_the_clock_are_reported_where_they_switch_the_limit_off(node: Node) -> None:
    camera = camera_of(node)
    message = rgb_image(picture(4, 4))
    for ahead_s, reported in ((3600, True), (5, False), (-100, False)):
        seconds = node.get_clock().now().nanoseconds // 10**9
        message.header.stamp = Time(sec=seconds + ahead_s)
        camera.age_ms(Frame("", message, time.monotonic()))
        assert ("ahead of this node's clock" in camera.clock_problem(100.0)) == reported
        assert camera.clock_problem(0.0) == ""
    message.header.stamp = Time(sec=seconds + 3600)
    camera.age_ms(Frame("", message, time.monotonic()))
    message.header.stamp = Time()
    camera.age_ms(Frame("", message, time.monotonic()))
    assert camera.clock_problem(100.0) == ""


def test_the_calibration_is_that_of_the_images_stamp_or_the_nearest(node: Node) -> None:
    camera = camera_of(node)
    assert camera.calibration().startswith("none received")
    for sec, width in ((10, 1), (11, 2), (11, 3), (13, 4)):
        camera.keep_info(CameraInfo(header=Header(stamp=Time(sec=sec)), width=width))
    found = {sec: camera.info_of(Header(stamp=Time(sec=sec))) for sec in (0, 9, 10, 11, 14)}
    widths = {sec: info and info.width for sec, info in found.items()}
    assert widths == {0: 4, 9: 1, 10: 1, 11: 3, 14: 4}  # without a stamp: the newest
    camera.keep_info(CameraInfo(width=5))
    newest = camera.info_of(Header(stamp=Time(sec=10)))
    assert newest is not None
    assert newest.width == 5  # it has no stamp to choose by
    for sec in range(20, 36):
        for _ in range(2):  # from two subscriptions
            camera.keep_info(CameraInfo(header=Header(stamp=Time(sec=sec)), width=sec))
    oldest = camera.info_of(Header(stamp=Time(sec=20)))
    assert oldest is not None
    assert oldest.width == 20
    camera.subscribe(lambda message: None)  # the camera may be another one now
    camera.unsubscribe()
    assert camera.info_of(Header()) is None


def test_the_range_of_16_bits_is_learned_anew_for_another_kind_of_image(node: Node) -> None:
    camera, given = camera_of(node), DEFAULTS.camera("")

    def problem(encoding: str, side: int, value: int) -> str:
        channels = 3 if encoding == "rgb16" else 1
        data = np.full(side * side * channels, value, np.uint16).tobytes()
        step = 2 * channels * side
        message = Image(encoding=encoding, height=side, width=side, step=step, data=data)
        camera.read(Frame("", message, time.monotonic()), choose_converter(), given)
        return camera.range_problem

    assert "above 4095" in problem("mono16", 4, 4000)
    assert problem("mono16", 4, 60000) == ""
    assert problem("mono16", 4, 4000) == ""  # a dark scene
    assert "above 4095" in problem("mono16", 8, 4000)  # the camera was set anew
    assert "above 4095" in problem("rgb16", 8, 4000)


def test_a_frames_time_is_its_stamp_or_its_arrival() -> None:
    stamped, unstamped = Header(stamp=Time(sec=3, nanosec=250_000_000)), Header()
    assert Picture(stamped, picture(4, 4), received=7.5, began=0, ended=0).time == 3.25
    assert Picture(unstamped, picture(4, 4), received=7.5, began=0, ended=0).time == 7.5


@pytest.mark.parametrize(
    ("age_ms", "waited_ms", "text"),
    [
        (900.0, 900.0, "they wait 900 ms for the model"),
        (3e11, 1.0, "they come from another one; for a bag or a simulation set use_sim_time"),
        (800.0, 100.0, "they arrive 700 ms after their stamps"),
    ],
)
def test_why_a_frame_is_too_old(age_ms: float, waited_ms: float, text: str) -> None:
    found = why_too_old(age_ms, waited_ms, max_age_ms=500.0)
    assert found.startswith("max_age_ms is 500, but ")
    assert text in found


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({}, []),
        ({"image_topic": "image"}, []),
        ({"image_topic": "/other"}, ["image"]),
        ({"cameras": ("left",)}, ["image"]),
        ({"cameras": ("left",), "own": {"left.image_topic": "/image"}}, ["image"]),
    ],
)
def test_a_remapping_that_no_camera_uses_is_reported(
    node: Node, values: dict[str, Any], unused: list[str]
) -> None:
    texts = unused_remappings(node, replace(DEFAULTS, **values))
    assert [text.partition(":=/camera/image_raw has no effect")[0] for text in texts] == [
        f"the remapping {name}" for name in unused
    ]
