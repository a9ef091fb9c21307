"""Frames in, masks out, between processes over the real middleware."""

import cv2
import numpy as np
import pytest
from ros_harness import RELIABLE, Driver, StartBench, header, picture, pixels_of, rgb_image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from camseg_core.labels import UNLABELLED
from camseg_core.masks import colorize, overlay
from camseg_core.runtime import Segmenter
from camseg_ros.messages import LATCHED
from camseg_ros.outputs import image_message

TRAIN_IDS = {*range(19), UNLABELLED}


@pytest.mark.smoke
def test_a_frame_comes_back_as_a_mask_with_its_own_stamp_frame_and_size(
    start_bench: StartBench,
) -> None:
    bench = start_bench()
    frame = rgb_image(picture(98, 61), number=7)
    (mask,) = bench.ask(frame)
    assert mask.header == frame.header
    assert (mask.width, mask.height, mask.step, mask.encoding) == (98, 61, 98, "mono8")
    assert set(np.unique(pixels_of(mask))) <= TRAIN_IDS
    assert np.array_equal(
        pixels_of(mask), Segmenter.from_pretrained().segment(picture(98, 61)).mask
    )


def test_colour_and_overlay_match_the_mask(start_bench: StartBench) -> None:
    bench = start_bench("overlay_opacity:=0.3", topics=("mask", "color", "overlay"))
    rgb = picture(64, 48, seed=3)
    (mask,) = bench.ask(rgb_image(rgb, number=2))
    for topic, expected in (
        ("color", colorize(pixels_of(mask))),
        ("overlay", overlay(rgb, pixels_of(mask), 0.3)),
    ):
        (message,) = bench.answers[topic]
        assert (message.header, message.encoding) == (mask.header, "rgb8")
        assert np.array_equal(pixels_of(message), expected), topic


def jpeg(frame_id: str) -> CompressedImage:
    data = cv2.imencode(".jpg", cv2.cvtColor(picture(64, 48), cv2.COLOR_RGB2BGR))[1]
    return CompressedImage(header=header(4, frame_id), format="jpeg", data=data.tobytes())


def test_compressed_transport_listens_beside_the_raw_topic(start_bench: StartBench) -> None:
    bench = start_bench(
        "image_transport:=compressed",
        image_type=CompressedImage,
        image_topic="/image/compressed",
        warm_up=jpeg,
    )
    (mask,) = bench.ask(jpeg("rear_camera"))
    assert mask.header == header(4, "rear_camera")
    assert (mask.width, mask.height) == (64, 48)
    decoded = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(jpeg("").data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    assert np.array_equal(pixels_of(mask), Segmenter.from_pretrained().segment(decoded).mask)


def test_the_way_a_picture_is_packed_does_not_change_its_mask(start_bench: StartBench) -> None:
    bench = start_bench()
    rgb = picture(50, 40, seed=1)
    swapped = image_message(rgb[..., ::-1].copy(), "rgb8", header(1))
    swapped.encoding = "bgr8"
    padded = Image(header=header(2), height=40, width=50, encoding="rgb8", step=50 * 3 + 17)
    padded.data.frombytes(
        np.pad(rgb.reshape(40, -1), ((0, 0), (0, 17)), constant_values=0xA5).tobytes()
    )
    plain, *others = (pixels_of(mask) for mask in bench.ask(rgb_image(rgb), swapped, padded))
    assert all(np.array_equal(plain, other) for other in others)


def test_the_size_may_change_in_mid_stream(start_bench: StartBench) -> None:
    bench = start_bench()
    sizes = [(64, 48), (33, 71), (1, 1), (200, 20), (64, 48)]
    masks = bench.ask(*(rgb_image(picture(*size), number) for number, size in enumerate(sizes)))
    assert [(mask.width, mask.height) for mask in masks] == sizes
    assert [mask.header for mask in masks] == [header(number) for number in range(len(sizes))]


def test_both_sides_may_be_reliable(start_bench: StartBench) -> None:
    bench = start_bench("image_reliability:=reliable", qos=RELIABLE)
    assert len(bench.ask(rgb_image(picture(64, 48)))) == 1


def test_topics_follow_namespace_and_remapping(start_node, driver, tmp_path) -> None:
    start_node(
        "--ros-args",
        "-r",
        "__ns:=/front",
        "-r",
        "image:=/camera/image_raw",
        "-p",
        "image_transport:=compressed",
    )
    node = driver.node
    wanted = {
        "/front/segmentation/mask",
        "/front/segmentation/color",
        "/front/segmentation/overlay",
        "/diagnostics",
    }
    driver.wait(
        lambda: all(node.count_publishers(topic) for topic in wanted), f"publishers of {wanted}"
    )
    driver.wait(
        lambda: node.count_subscribers("/camera/image_raw/compressed"),
        "a subscription to the remapped topic",
    )


@pytest.mark.slow
def test_large_best_effort_frames_all_come_back(start_bench: StartBench) -> None:
    bench = start_bench()
    frames = [rgb_image(picture(1920, 1080, seed), number=seed) for seed in range(4)]
    masks = bench.ask(*(frames[number % 4] for number in range(20)))
    assert [mask.header.stamp for mask in masks] == [
        frames[number % 4].header.stamp for number in range(20)
    ]
    assert all((mask.width, mask.height) == (1920, 1080) for mask in masks)
    _, values = bench.status(lambda values: int(values["frames published"]) >= 20, "the counts")
    assert values["frames rejected"] == values["publish failures"] == "0"


def test_a_calibration_published_once_before_the_node_starts_is_received(
    start_bench: StartBench, driver: Driver
) -> None:
    publisher = driver.node.create_publisher(CameraInfo, "/camera_info", LATCHED)
    publisher.publish(CameraInfo(header=header(0), width=64, height=48, k=[50.0] * 9))
    infos = driver.listen(CameraInfo, "/segmentation/camera_info")
    bench = start_bench("diagnostics_period:=0.1")
    bench.status(lambda values: values["calibration"] == "from /camera_info", "the calibration")
    (mask,) = bench.ask(rgb_image(picture(64, 48), number=7))
    driver.wait(lambda: mask.header in [info.header for info in infos], "that of the mask")
    driver.node.destroy_publisher(publisher)
