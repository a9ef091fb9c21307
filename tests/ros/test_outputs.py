"""What a frame costs: for a topic that nobody listens to, nothing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from ros_harness import Driver, header, picture, pixels_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from camseg_core.labels import CITYSCAPES, Label
from camseg_core.masks import ClassTable
from camseg_core.runtime import Segmentation
from camseg_ros import outputs as module
from camseg_ros.outputs import CameraOutputs

TABLE = ClassTable.of(CITYSCAPES)
RGB = picture(8, 6)
RESULT = Segmentation(np.full((6, 8), 3, np.uint8), np.full((6, 8), 0.5, np.float32), {})
MAKERS = (
    "image_message",
    "compressed_message",
    "run_length_message",
    "colorize",
    "overlay",
    "scaled_camera_info",
)
EVERYTHING = {
    "mask": Image,
    "confidence": Image,
    "color": Image,
    "overlay": Image,
    "mask_rle": Image,
    "camera_info": CameraInfo,
    "mask/compressed": CompressedImage,
    "confidence/compressed": CompressedImage,
    "color/compressed": CompressedImage,
    "overlay/compressed": CompressedImage,
}


@pytest.fixture
def outputs(ros: None) -> Iterator[CameraOutputs]:
    node = Node("owner", namespace="/outputs")
    outputs = CameraOutputs(node, "", "reliable", run_length=True)
    yield outputs
    outputs.destroy()
    node.destroy_node()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with the names of what is computed."""
    made: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def make(*arguments: Any) -> Any:
            made.append(name)
            return function(*arguments)

        return make

    for name in MAKERS:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return made


def publish(outputs: CameraOutputs, number: int = 1) -> tuple[float | None, list[str]]:
    return outputs.publish(header(number), RGB, RESULT, TABLE, 0.5, CameraInfo(width=8, height=6))


def listen(driver: Driver, outputs: CameraOutputs, topic: str) -> list[Any]:
    """What comes on the topic, once both sides know of each other."""
    (publisher,) = (
        each for each in outputs._publishers if each.topic_name == f"/outputs/segmentation/{topic}"
    )
    heard = driver.listen(EVERYTHING[topic], publisher.topic_name)
    (subscription,) = (
        each for each in driver.node.subscriptions if each.topic_name == publisher.topic_name
    )
    driver.wait(
        lambda: publisher.get_subscription_count() and subscription.get_publisher_count(),
        "the two to match",
    )
    return heard


def test_without_listeners_only_the_mask_is_made(outputs: CameraOutputs, made: list[str]) -> None:
    moment, failures = publish(outputs)
    assert moment is not None
    assert failures == []
    assert made == ["image_message"]


@pytest.mark.parametrize(
    ("topic", "needed"),
    [
        ("confidence", {"image_message"}),
        ("color", {"image_message", "colorize"}),
        ("overlay", {"image_message", "overlay"}),
        ("mask_rle", {"image_message", "run_length_message"}),
        ("camera_info", {"image_message", "scaled_camera_info"}),
        ("mask/compressed", {"image_message", "compressed_message"}),
        ("color/compressed", {"image_message", "colorize", "compressed_message"}),
        ("overlay/compressed", {"image_message", "overlay", "compressed_message"}),
    ],
)
def test_a_listener_costs_what_it_listens_to(
    driver: Driver, outputs: CameraOutputs, made: list[str], topic: str, needed: set[str]
) -> None:
    heard = listen(driver, outputs, topic)
    publish(outputs)
    assert set(made) == needed
    driver.wait(lambda: heard, topic)
    assert heard[0].header == header(1)


def test_everything_listened_to_has_the_same_header(driver: Driver, outputs: CameraOutputs) -> None:
    heard = {topic: listen(driver, outputs, topic) for topic in EVERYTHING}
    assert set(outputs.topics) == {f"/outputs/segmentation/{topic}" for topic in EVERYTHING}
    publish(outputs, 7)
    driver.wait(lambda: all(heard.values()), "every topic")
    assert all(message.header == header(7) for messages in heard.values() for message in messages)
    assert (pixels_of(heard["mask"][0]) == 3).all()
    assert (pixels_of(heard["confidence"][0]) == 128).all()


def test_unlabelled_pixels_have_no_confidence(driver: Driver, outputs: CameraOutputs) -> None:
    """Also those of a class that is switched off, of which the model was sure."""
    heard = listen(driver, outputs, "confidence")
    labels = (Label(3, "wall", (1, 2, 3)), Label(7, "sky", (4, 5, 6)))
    table = ClassTable.of(labels, (), ("wall",))
    mask = np.full((6, 8), 3, np.uint8)
    mask[:2] = 7
    result = Segmentation(mask, np.full((6, 8), 0.5, np.float32), {})
    outputs.publish(header(1), RGB, result, table, 0.5, None)
    driver.wait(lambda: heard, "the confidence")
    found = pixels_of(heard[0])
    assert (found[:2] == 0).all()
    assert (found[2:] == 128).all()


def test_a_topic_that_fails_is_reported_and_the_others_are_published(
    driver: Driver, outputs: CameraOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {topic: listen(driver, outputs, topic) for topic in ("confidence", "color", "overlay")}

    def fail(*_: Any) -> None:
        raise RuntimeError("no colours today")

    monkeypatch.setattr(module, "colorize", fail)
    moment, failures = publish(outputs)
    assert moment is not None
    (text,) = failures
    assert text.startswith("cannot publish on /outputs/segmentation/color: no colours today")
    driver.wait(lambda: heard["confidence"] and heard["overlay"], "the others")
    assert heard["color"] == []


def test_a_mask_that_cannot_go_out_has_no_moment(
    outputs: CameraOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("saturated")

    monkeypatch.setattr(module, "image_message", fail)
    moment, (text,) = publish(outputs)
    assert moment is None
    assert text.startswith("cannot publish on /outputs/segmentation/mask: saturated")
