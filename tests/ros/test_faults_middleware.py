"""Cameras that die, do not match or cannot be heard: named, and the next good frame is answered."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import (
    BEST_EFFORT,
    RELIABLE,
    SUBSTITUTE,
    Bench,
    StartBench,
    assert_served,
    good_frame,
    header,
    picture,
    rgb_image,
)
from sensor_msgs.msg import Image
from std_msgs.msg import String

from camseg_ros.middleware import TRANSPORT_CHOICES, share_file

PARAMETERS = ("diagnostics_period:=0.1", "silent_after:=0.5")
WARN = DiagnosticStatus.WARN

StartCamera = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_camera(ros: None) -> Iterator[StartCamera]:
    """Starts `lone_camera.py`, with or without the transports that large frames need."""
    cameras: list[subprocess.Popen[bytes]] = []

    def start(name: str, *options: str, profile: bool = True) -> subprocess.Popen[bytes]:
        environment = {
            key: value
            for key, value in os.environ.items()
            if profile or key not in TRANSPORT_CHOICES
        }
        script = str(Path(__file__).with_name("lone_camera.py"))
        cameras.append(
            subprocess.Popen([sys.executable, script, "--name", name, *options], env=environment)
        )
        return cameras[-1]

    yield start
    for camera in cameras:
        camera.kill()
        camera.wait()


def camera_warning(bench: Bench, *words: str) -> str:
    """The camera's first warning from now on that has these words."""
    found, other = list[str](), set[str]()

    def look() -> bool:
        for report in bench.diagnostics:
            for status in report.status:
                right = (
                    status.level == WARN
                    and status.name.endswith(": camera")
                    and all(word in status.message for word in words)
                )
                (found.append if right else other.add)(status.message)
        bench.diagnostics.clear()
        return bool(found)

    bench.diagnostics.clear()
    bench.driver.wait(
        look, f"a warning with {words}", lambda: "\n".join([*sorted(other), bench.node.output])
    )
    return found[0]


def logged(bench: Bench, text: str) -> None:
    """Wait until the node's log has the text."""
    bench.driver.wait(
        lambda: text in bench.node.stderr, f"the log to say {text!r}", lambda: bench.node.output
    )


def heard_from(bench: Bench, name: str) -> None:
    """Wait until a frame of the camera is answered."""
    bench.driver.wait(
        lambda: any(mask.header.frame_id == name for mask in bench.answers["mask"]),
        f"an answer to {name}",
        lambda: bench.node.output,
    )


def renew_publisher(bench: Bench, qos: QoSProfile) -> None:
    """A publisher in place of the bench's, with which the node has found itself."""
    bench.driver.node.destroy_publisher(bench.publisher)
    bench.publisher = bench.driver.node.create_publisher(Image, "/image", qos)
    bench.connect(good_frame)


def test_a_camera_that_goes_and_comes_back_is_reported_and_served_again(
    start_bench: StartBench,
) -> None:
    bench = start_bench(*PARAMETERS, program=SUBSTITUTE)
    for number in (1, 2):
        assert_served(bench, number)
        bench.driver.node.destroy_publisher(bench.publisher)
        warning = camera_warning(bench, "no publisher")
        assert warning.startswith("no images on /image for ")
        assert warning.endswith(
            " s: no publisher; check the topic name and whether the camera runs"
        )
        bench.publisher = bench.driver.node.create_publisher(Image, "/image", BEST_EFFORT)
        bench.connect(good_frame)
    assert_served(bench, 3)
    status, _ = bench.status(
        lambda values: float(values["age of last input (s)"]) < 0.4, "a report after the frame"
    )
    assert status.level == DiagnosticStatus.OK


@pytest.mark.slow
def test_a_camera_whose_process_is_killed_is_reported_and_its_successor_served(
    start_bench: StartBench, start_camera: StartCamera
) -> None:
    bench = start_bench(*PARAMETERS, connected=False, program=SUBSTITUTE)
    bench.driver.node.destroy_publisher(bench.publisher)
    for name in ("first_camera", "second_camera"):
        camera = start_camera(name)
        heard_from(bench, name)
        bench.status(
            lambda values, name=name: f"/{name}" in values["publishers that match"],
            "its name, which comes later than its frames",
        )
        camera.kill()
        # the middleware notices only after a while that the process is gone
        warning = camera_warning(
            bench, f"/{name}", "but silent: either it has stopped sending, so check the camera, or"
        )
        assert warning.startswith("no images on /image for ")
    bench.publisher = bench.driver.node.create_publisher(Image, "/image", BEST_EFFORT)
    bench.connect(good_frame)
    assert_served(bench, 1)


def test_a_publisher_whose_qos_does_not_match_is_named_with_both_sides_policies(
    start_bench: StartBench,
) -> None:
    bench = start_bench(
        *PARAMETERS, "image_reliability:=reliable", connected=False, program=SUBSTITUTE
    )
    text = (
        "/test_driver publishes /image but offers reliability best_effort where this node asks for "
        "reliable: they cannot connect"
    )
    assert camera_warning(bench, "no images on /image for ", text)
    logged(bench, text)
    renew_publisher(bench, RELIABLE)
    assert_served(bench, 1)
    # one beside it that is served does not hide it
    sloppy = Node("sloppy_camera")
    sloppy.create_publisher(Image, "/image", BEST_EFFORT)
    text = "/sloppy_camera publishes /image but offers reliability best_effort"
    _, values = bench.status(
        lambda values: text in values["publishers that do not"], "the other publisher"
    )
    assert values["publishers that match"] == "/test_driver"
    logged(bench, text)
    assert "UNKNOWN" not in bench.node.output, (
        "the middleware finds the names of nodes later than their publishers"
    )
    assert_served(bench, 2)
    sloppy.destroy_node()
    bench.status(
        lambda values: values["publishers that do not"] == "none", "the other publisher to be gone"
    )


def test_a_listener_that_asks_for_more_than_the_mask_offers_is_named(
    start_bench: StartBench,
) -> None:
    bench = start_bench("diagnostics_period:=0.1", program=SUBSTITUTE)
    viewer = Node("late_viewer")
    qos = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    viewer.create_subscription(Image, "/segmentation/mask", print, qos)
    text = (
        "/late_viewer subscribes to /segmentation/mask but asks for durability transient_local "
        "where this node offers volatile: they cannot"
    )
    assert camera_warning(bench, text)
    logged(bench, text)
    assert_served(bench, 1)
    viewer.destroy_node()


def test_a_publisher_of_another_type_is_named(start_bench: StartBench) -> None:
    bench = start_bench(*PARAMETERS, connected=False, program=SUBSTITUTE)
    bench.driver.node.destroy_publisher(bench.publisher)
    context = Context()  # one participant cannot have two types on a topic
    rclpy.init(args=[], context=context)
    with closing(Talker(context)) as talker:
        text = (
            "/talker publishes /image as std_msgs/msg/String, this node uses "
            "sensor_msgs/msg/Image: they cannot connect"
        )
        assert camera_warning(bench, "no images on /image for ", text)
        talker.publisher.publish(String(data="no image"))
        renew_publisher(bench, BEST_EFFORT)
        talker.publisher.publish(String(data="no image"))
        assert_served(bench, 1)
        assert camera_warning(bench, text)
    assert_served(bench, 2)


class Talker:
    """Publishes text where images belong."""

    def __init__(self, context: Context) -> None:
        self._context, self._node = context, Node("talker", context=context)
        self.publisher = self._node.create_publisher(String, "/image", 1)

    def close(self) -> None:
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.mark.slow
def test_a_best_effort_camera_whose_frames_cannot_arrive_is_named_with_the_remedy(
    start_bench: StartBench, start_camera: StartCamera
) -> None:
    bench = start_bench(*PARAMETERS, connected=False, program=SUBSTITUTE)
    bench.driver.node.destroy_publisher(bench.publisher)
    camera = start_camera("plain_camera", profile=False)
    warning = camera_warning(bench, "matched with /plain_camera, but silent")
    assert f"PROFILES_FILE={share_file('config/fastdds.xml')}" in warning
    assert "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA" in warning
    # a frame may get through now and then, as fast as the node takes its pieces
    _, values = bench.status(lambda values: True, "a report")
    assert (values["publishers that match"], values["frames rejected"]) == ("/plain_camera", "0")
    camera.kill()
    start_camera("good_camera")  # the same, with the profile
    heard_from(bench, "good_camera")
    bench.publisher = bench.driver.node.create_publisher(Image, "/image", BEST_EFFORT)
    bench.connect(good_frame)


@pytest.mark.slow
def test_a_flood_never_leaves_the_node_behind(start_bench: StartBench) -> None:
    """200 frames of 640x480 a second, more than the network takes."""
    bench = start_bench("diagnostics_period:=0.1")
    frame, sent = rgb_image(picture(640, 480)), 800
    bench.ask(frame)  # the engine compiles for this size, which takes seconds while the flood lasts
    bench.answers["mask"].clear()
    bench.diagnostics.clear()
    begin = time.monotonic()
    for number in range(1, sent + 1):
        frame.header = header(number)
        bench.publisher.publish(frame)
        bench.driver.serve(max(0.0, begin + number / 200 - time.monotonic()))
    bench.publisher.publish(rgb_image(picture(64, 48), sent + 1))
    last = header(sent + 1)
    bench.driver.wait(
        lambda: bench.answers["mask"] and bench.answers["mask"][-1].header == last,
        "the last",
        lambda: bench.node.output,
    )
    stamps = [mask.header.stamp.sec for mask in bench.answers["mask"]]
    assert stamps == sorted(set(stamps)), "twice or out of order"
    assert len(stamps) > 3
    waiting = [
        in_the_node(values_of(each))
        for report in bench.diagnostics
        for each in report.status
        if each.name.endswith(": camera")
    ]
    assert len(waiting) > 3
    assert max(waiting) <= 2, "one in work, one waiting"
    _, values = bench.status(lambda values: in_the_node(values) == 0, "every frame in the counts")
    assert int(values["frames dropped"]) > 0
    assert (values["frames rejected"], values["publish failures"]) == ("0", "0")
    bench.ask(rgb_image(picture(64, 48), sent + 2))


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    return {each.key: each.value for each in status.values}


def in_the_node(values: dict[str, str]) -> int:
    """Frames that wait or are in work."""
    return int(values["frames received"]) - sum(
        int(values[f"frames {name}"]) for name in ("published", "rejected", "dropped")
    )
