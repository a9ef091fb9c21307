"""Several cameras in one process: own topics, values and counts, and none waits for another."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from ros_harness import (
    BEST_EFFORT,
    QUICK,
    RELIABLE,
    WARM_UP,
    Bench,
    Driver,
    StartNode,
    header,
    picture,
    pixels_of,
    rgb_image,
)
from ros_services import set_parameters
from sensor_msgs.msg import CompressedImage, Image

from camseg_core.runtime import Segmenter
from camseg_core.runtime.geometry import Fit
from camseg_ros.outputs import image_message
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline

Pixels = npt.NDArray[np.uint8]

MODEL = Segmenter.from_pretrained()


class Rig:
    """A node with several cameras, and a driver that plays them."""

    def __init__(self, driver: Driver, node: Any, inputs: dict[str, Any]) -> None:
        self.driver, self.node = driver, node
        self.bench = Bench(driver, node, (), Image, "/unused", BEST_EFFORT)
        self.masks: dict[str, list[Image]] = {
            name: driver.listen(Image, f"/{name}/segmentation/mask") for name in inputs
        }
        self.publishers = inputs

    def send(self, name: str, rgb: Pixels, number: int, frame_id: str = "") -> None:
        """A frame of the camera; its frame_id is the camera's name unless given."""
        publisher = self.publishers[name]
        if publisher.msg_type is CompressedImage:
            data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
            publisher.publish(
                CompressedImage(
                    header=header(number, frame_id or name), format="png", data=data.tobytes()
                )
            )
        else:
            publisher.publish(image_message(rgb, "rgb8", header(number, frame_id or name)))

    def ask(self, name: str, rgb: Pixels, number: int = 1) -> Image:
        """The mask of the frame."""
        self.send(name, rgb, number)
        wanted, masks = header(number).stamp, self.masks[name]
        self.driver.wait(
            lambda: masks and masks[-1].header.stamp == wanted,
            f"a mask of {name}",
            lambda: f"the node printed {self.node.output}",
        )
        return masks[-1]


@pytest.fixture
def start_rig(driver: Driver, start_node: StartNode) -> Callable[..., Rig]:
    """Start the node; `inputs` are the cameras' topics with their types and QoS."""

    def start(inputs: dict[str, tuple[str, Any, Any]], *parameters: str) -> Rig:
        arguments = ["-p", f"cameras:=[{', '.join(inputs)}]"]
        arguments += [part for parameter in (*QUICK, *parameters) for part in ("-p", parameter)]
        node = start_node("--ros-args", *arguments)
        publishers = {
            name: driver.node.create_publisher(kind, topic, qos)
            for name, (topic, kind, qos) in inputs.items()
        }
        rig = Rig(driver, node, publishers)
        driver.wait_ready(
            lambda _: [rig.send(name, picture(64, 48), 0, WARM_UP) for name in inputs] and None,
            node.assert_alive,
        )
        return rig

    return start


@pytest.mark.smoke
def test_each_camera_has_its_own_topics_and_is_answered_with_its_own_stamp_frame_and_size(
    start_rig: Callable[..., Rig],
) -> None:
    sizes = {"left": (64, 48), "right": (98, 61), "rear": (33, 71)}
    rig = start_rig({name: (f"/{name}/image", Image, BEST_EFFORT) for name in sizes})
    pictures = {name: picture(*size, seed) for seed, (name, size) in enumerate(sizes.items())}
    for number in range(3):
        for seed, (name, rgb) in enumerate(pictures.items()):
            rig.send(name, rgb, 10 * number + seed)
        rig.driver.wait(
            lambda wanted=number + 1: all(len(masks) == wanted for masks in rig.masks.values()),
            "all masks",
        )
    for seed, (name, (width, height)) in enumerate(sizes.items()):
        assert [mask.header for mask in rig.masks[name]] == [
            header(10 * number + seed, name) for number in range(3)
        ]
        assert {(mask.width, mask.height) for mask in rig.masks[name]} == {(width, height)}
        expected = MODEL.segment(pictures[name]).mask
        assert all(np.array_equal(pixels_of(mask), expected) for mask in rig.masks[name]), name
    assert rig.driver.node.count_publishers("/segmentation/mask") == 0


def test_each_camera_uses_its_own_parameters(start_rig: Callable[..., Rig]) -> None:
    rig = start_rig(
        {
            "left": ("/sensing/left/raw/compressed", CompressedImage, BEST_EFFORT),
            "right": ("/right/image", Image, RELIABLE),
            "rear": ("/rear/image", Image, BEST_EFFORT),
        },
        f"frame_id:={WARM_UP}",
        "left.image_topic:=/sensing/left/raw",
        "left.image_transport:=compressed",
        "left.resize_mode:=stretch",
        "right.image_reliability:=reliable",
        f"right.frame_id:={WARM_UP}",
        "right.resize_mode:=crop",
        "right.roi:=[0.0, 0.5, 1.0, 1.0]",
        "rear.output_size:=network",
    )
    assert set_parameters(rig.bench, {"frame_id": "rig", "right.frame_id": "right_optical"}) == ""
    rgb = picture(900, 300, 3)  # larger than the network
    left, right, rear = (
        rig.ask(name, rgb, number) for number, name in enumerate(("left", "right", "rear"), 1)
    )
    assert [mask.header for mask in (left, right, rear)] == [
        header(1, "rig"),
        header(2, "right_optical"),
        header(3, "rig"),
    ]
    fits = Fit("stretch"), Fit("crop", (0.0, 0.5, 1.0, 1.0)), Fit("letterbox", output="network")
    for mask, fit in zip((left, right, rear), fits, strict=True):
        assert np.array_equal(pixels_of(mask), MODEL.segment(rgb, fit).mask), fit
    (offered,) = rig.driver.node.get_subscriptions_info_by_topic("/right/image")
    assert offered.qos_profile.reliability == RELIABLE.reliability

    assert (
        set_parameters(rig.bench, {"right.roi": [0.0, 0.0, 1.0, 0.5], "right.frame_id": "upper"})
        == ""
    )
    mask = rig.ask("right", rgb, 7)
    assert mask.header == header(7, "upper")
    assert np.array_equal(
        pixels_of(mask), MODEL.segment(rgb, Fit("crop", (0.0, 0.0, 1.0, 0.5))).mask
    )
    assert set_parameters(rig.bench, {"right.resize_mode": "letterbox"}) == ""
    assert np.array_equal(pixels_of(rig.ask("right", rgb, 8)), MODEL.segment(rgb).mask)
    assert set_parameters(rig.bench, {"left.image_topic": "/x"}).startswith(
        "parameter 'left.image_topic' cannot change while"
    )


def test_a_camera_that_is_dead_or_sends_rubbish_does_not_hold_up_the_other(
    start_rig: Callable[..., Rig],
) -> None:
    rig = start_rig(
        {name: (f"/{name}/image", Image, BEST_EFFORT) for name in ("left", "right")},
        "silent_after:=0.3",
        "diagnostics_period:=0.2",
    )
    rubbish = rgb_image(picture(64, 48))
    rubbish.encoding = "yuv999"
    for number in range(1, 6):
        rig.publishers["right"].publish(rubbish)
        rig.ask("left", picture(64, 48), number)
    status, values = rig.bench.status(
        lambda values: values.get("rejected: encoding", "0") != "0", "the rubbish", part="right"
    )
    assert "/right/image: unknown image encoding 'yuv999'" in status.message
    assert (status.name, status.hardware_id) == ("/segmentation: right", "/right/image")
    before = int(values["frames received"])
    rig.driver.node.destroy_publisher(rig.publishers.pop("right"))

    def silent(values: dict[str, str]) -> bool:
        rig.ask("left", picture(64, 48), int(values["frames received"]) + 9)
        return values["publishers on the input topic"] == "0"

    _, values = rig.bench.status(silent, "the dead camera", part="right")
    assert int(values["frames received"]) == before
    status, values = rig.bench.status(
        lambda values: int(values["frames published"]) > 5, "the live camera", part="left"
    )
    assert (values["frames rejected"], values["input topic"], values["image size"]) == (
        "0",
        "/left/image",
        "64x48",
    )
    assert status.name == "/segmentation: left"


def test_the_counts_are_each_cameras_own(start_rig: Callable[..., Rig]) -> None:
    rig = start_rig(
        {name: (f"/{name}/image", Image, BEST_EFFORT) for name in ("left", "right")},
        "diagnostics_period:=0.2",
    )

    def published(name: str, at_least: int = 0) -> int:
        def enough(values: dict[str, str]) -> bool:
            parts = ("published", "dropped", "rejected")
            done = int(values["frames received"]) == sum(
                int(values[f"frames {part}"]) for part in parts
            )
            return done and int(values["frames published"]) >= at_least

        return int(
            rig.bench.status(enough, f"the counts of {name}", part=name)[1]["frames published"]
        )

    before = {name: published(name) for name in ("left", "right")}
    for number in range(1, 5):
        rig.ask("left", picture(64, 48), number)
    assert published("left", before["left"] + 4) == before["left"] + 4
    assert published("right") == before["right"]
    status, _ = rig.bench.status(lambda values: True, "the model's entry", part="model")
    assert status.level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("provider", "most", "batches"),
    [
        ("cpu", 8, [3]),
        ("cpu", 2, [2, 1]),
        ("cpu", 1, [1, 1, 1]),
        ("openvino", 8, [1, 1, 1]),  # it runs them one by one: none waits for another
    ],
)
def test_frames_that_wait_go_through_the_model_together(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, provider: str, most: int, batches: list[int]
) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    seen: list[int] = []
    segment_batch = Segmenter.segment_batch

    def counting(self: Segmenter, frames: Any, *rest: Any, **named: Any) -> Any:
        seen.append(len(frames))
        return segment_batch(self, frames, *rest, **named)

    given = Parameters(cameras=("a", "b", "c"), max_batch=most, warm_up_sizes=(), provider=provider)
    node = Node("owner", namespace="/batch")
    pipeline = Pipeline(node, given, pytest.fail)
    try:
        masks = {
            name: driver.listen(Image, f"/batch/{name}/segmentation/mask") for name in given.cameras
        }
        driver.wait(
            lambda: all(
                camera.outputs.mask.get_subscription_count() for camera in pipeline.cameras.values()
            ),
            "the listeners",
        )
        driver.wait(
            lambda: all(
                subscription.get_publisher_count() for subscription in driver.node.subscriptions
            ),
            "the publishers",
        )
        monkeypatch.setattr(Segmenter, "segment_batch", counting)
        pictures = [picture(64, 48, seed) for seed in range(3)]
        for camera, rgb in zip(pipeline.cameras.values(), pictures, strict=True):
            pipeline.receive(camera, rgb_image(rgb))
        pipeline.start()
        driver.wait(lambda: all(masks.values()), "the masks")
        assert seen == batches
        for found, rgb in zip(masks.values(), pictures, strict=True):
            assert np.array_equal(pixels_of(found[0]), pipeline.segmenter.segment(rgb).mask)
    finally:
        pipeline.stop(60)
        pipeline.destroy()
        node.destroy_node()
