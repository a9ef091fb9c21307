"""Every topic beside the mask, and what changes them at run time."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from ros_harness import (
    BEST_EFFORT,
    RELIABLE,
    Bench,
    Driver,
    StartBench,
    StartNode,
    good_frame,
    header,
    picture,
    pixels_of,
    rgb_image,
)
from ros_services import set_parameters
from run_length_decoder import decode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64, Header, String
from std_srvs.srv import SetBool

from camseg_core.labels import UNLABELLED, cityscapes_labels
from camseg_core.masks import ClassTable, colorize, overlay
from camseg_core.runtime import Segmenter
from camseg_core.runtime.geometry import Fit
from camseg_core.weights import checkpoint_folder
from camseg_ros.messages import LATCHED, scaled_camera_info
from camseg_ros.middleware import share_file
from camseg_ros.outputs import DebugTopics

Pixels = npt.NDArray[np.uint8]
MODEL = Segmenter.from_pretrained()
WIDE = picture(900, 300, 5)
"""Larger than the network."""


def test_the_confidence_is_the_models_in_255_steps(start_bench: StartBench) -> None:
    bench = start_bench(topics=("mask", "confidence"))
    (mask,) = bench.ask(rgb_image(WIDE, 3))
    (confidence,) = bench.answers["confidence"]
    assert (confidence.header, confidence.encoding, confidence.step) == (mask.header, "mono8", 900)
    expected = MODEL.segment(WIDE).confidence
    assert np.array_equal(pixels_of(confidence), np.round(expected * 255).astype(np.uint8))


def file_of(message: CompressedImage) -> Pixels:
    """The pixels in the message's file, RGB or one plane."""
    pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def test_the_compressed_topics_hold_the_raw_ones(start_bench: StartBench) -> None:
    raw = ("mask", "confidence", "color", "overlay")
    bench = start_bench(topics=raw)
    heard = {
        topic: bench.driver.listen(CompressedImage, f"/segmentation/{topic}/compressed")
        for topic in raw
    }
    found: dict[str, CompressedImage] = {}

    def all_found() -> bool:
        bench.ask(rgb_image(WIDE, 4))
        found.update(
            {
                topic: each
                for topic, messages in heard.items()
                for each in messages
                if each.header == header(4)
            }
        )
        return len(found) == len(raw)

    bench.driver.wait(all_found, "every compressed topic")
    for topic, message in found.items():
        pixels = pixels_of(bench.answers[topic][-1])
        if topic == "overlay":
            assert message.format == "rgb8; jpeg compressed bgr8"
            assert np.abs(file_of(message).astype(float) - pixels).mean() < 6
        else:
            assert message.format.startswith(
                "rgb8; png compressed bgr8" if topic == "color" else "mono8; png compressed "
            )
            assert np.array_equal(file_of(message), pixels), topic


def calibration(width: int, height: int) -> CameraInfo:
    """A camera's calibration, of its own frame and time."""
    info = CameraInfo(
        header=header(0, "sensor"),
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.1, 0.0, 0.0, 0.0, 0.0],
    )
    info.k = [700.0, 0.0, width / 2, 0.0, 710.0, height / 2, 0.0, 0.0, 1.0]
    info.p = [700.0, 0.0, width / 2, 0.0, 0.0, 710.0, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def with_calibration(bench: Bench, info: CameraInfo, rgb: Pixels) -> tuple[Image, CameraInfo]:
    """A mask and the calibration that came with it, once one does."""
    publisher = bench.driver.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
    infos = bench.driver.listen(CameraInfo, "/segmentation/camera_info")

    def answered() -> bool:
        publisher.publish(info)
        bench.ask(rgb_image(rgb, 8))
        return bool(infos)

    bench.driver.wait(answered, "a calibration")
    return bench.answers["mask"][-1], infos[-1]


@pytest.mark.parametrize(
    ("parameters", "fit"),
    [
        ((), Fit()),
        (("output_size:=network",), Fit(output="network")),
        (("output_size:=network", "resize_mode:=stretch"), Fit("stretch", output="network")),
        (
            ("output_size:=network", "resize_mode:=crop", "roi:=[0.25, 0.5, 1.0, 1.0]"),
            Fit("crop", (0.25, 0.5, 1.0, 1.0), "network"),
        ),
        (("resize_mode:=crop", "roi:=[0.25, 0.5, 1.0, 1.0]"), Fit("crop", (0.25, 0.5, 1.0, 1.0))),
    ],
    ids=["camera", "network", "stretch", "crop", "crop in the camera's picture"],
)
def test_the_calibration_is_that_of_the_mask(
    start_bench: StartBench, parameters: tuple[str, ...], fit: Fit
) -> None:
    bench = start_bench(*parameters)
    info = calibration(900, 300)
    mask, found = with_calibration(bench, info, WIDE)
    assert found.header == mask.header == header(8)
    assert (found.width, found.height) == (mask.width, mask.height)
    result = MODEL.segment(WIDE, fit)
    assert np.array_equal(pixels_of(mask), result.mask)
    view = result.view
    assert found == scaled_camera_info(
        info, header(8), view.left, view.top, view.scale_x, view.scale_y, mask.width, mask.height
    )
    assert (list(found.k) == list(info.k)) == (fit.output == "camera")


def test_a_calibration_of_another_size_is_reported_and_not_published(
    start_bench: StartBench,
) -> None:
    bench = start_bench("latency_budget_ms:=600000.0", "diagnostics_period:=0.2")
    bench.status(
        lambda values: (
            values["calibration"] == "none received from /camera_info, which has 0 publishers"
        ),
        "no calibration yet",
    )
    with_calibration(bench, calibration(900, 300), WIDE)
    infos = bench.driver.listen(CameraInfo, "/segmentation/camera_info")
    bench.driver.wait(
        lambda: bench.ask(rgb_image(WIDE)) and infos,
        "the calibration, so that the next would be heard",
    )
    (mask,) = bench.ask(rgb_image(picture(64, 48), 9))
    status, values = bench.status(lambda values: "64x48" in values["calibration"], "the reason")
    reason = "it is for images of 900x300 pixels, the image has 64x48"
    assert (reason in values["calibration"], reason in status.message) == (True, True)
    assert mask.header not in [info.header for info in infos]
    bench.ask(rgb_image(WIDE, 10))
    bench.driver.wait(lambda: infos[-1].header == header(10), "the calibration that fits again")
    bench.status(
        lambda values: values["calibration"] == "from /camera_info",
        "the end of the trouble",
    )


def classes_of(message: String) -> dict[str, int]:
    return {entry["name"]: entry["id"] for entry in json.loads(message.data)["classes"]}


def test_the_label_table_reaches_who_comes_late_and_follows_groups_and_enabled_classes(
    start_bench: StartBench,
) -> None:
    bench = start_bench(topics=("mask", "color", "overlay"))
    tables = bench.driver.listen(String, "/segmentation/labels", LATCHED)
    bench.driver.wait(lambda: tables, "the table")
    assert json.loads(tables[0].data)["model"] == "camseg-lite"
    assert classes_of(tables[0]) == {label.name: label.id for label in MODEL.labels}
    ids = MODEL.segment(WIDE).mask
    changes: list[dict[str, Any]] = [
        {"class_groups": ["drivable:100 = road, sidewalk", "alive = person, rider"]},
        {"enabled_classes": ["drivable", "sky", "building"]},
        {"class_groups": [""], "enabled_classes": ["sky", "road"]},
        {"enabled_classes": [""]},
    ]
    groups: list[str] = []
    enabled: list[str] = []
    for number, change in enumerate(changes, 2):
        assert set_parameters(bench, change) == ""
        groups = [text for text in change.get("class_groups", groups) if text]
        enabled = [text for text in change.get("enabled_classes", enabled) if text]
        expected = ClassTable.of(MODEL.labels, groups, enabled)
        bench.driver.wait(lambda wanted=number: len(tables) == wanted, "the new table")
        assert classes_of(tables[-1]) == {label.name: label.id for label in expected.labels}
        (mask,) = bench.ask(rgb_image(WIDE, number))
        assert np.array_equal(pixels_of(mask), expected.apply(ids))
        assert np.array_equal(
            pixels_of(bench.answers["color"][-1]), colorize(pixels_of(mask), expected.colors)
        )
        assert np.array_equal(
            pixels_of(bench.answers["overlay"][-1]),
            overlay(WIDE, pixels_of(mask), 0.5, expected.colors),
        )
    late = bench.driver.listen(String, "/segmentation/labels", LATCHED)
    bench.driver.wait(lambda: late, "the table for who comes late")
    assert late == tables[-1:]


def test_classes_that_the_model_does_not_have_are_refused_and_the_old_ones_stay(
    start_bench: StartBench,
) -> None:
    bench = start_bench("enabled_classes:=[road]")
    assert "did you mean 'road'?" in set_parameters(bench, {"enabled_classes": ["raod"]})
    assert "must be NAME = CLASS" in set_parameters(bench, {"class_groups": ["x"]})
    (mask,) = bench.ask(rgb_image(WIDE))
    assert set(np.unique(pixels_of(mask))) <= {0, UNLABELLED}


def test_the_documented_drivable_area_is_all_that_is_published(start_bench: StartBench) -> None:
    documented = share_file("config/segment.param.yaml").parents[1] / "docs" / "node.md"
    if not documented.is_file():
        pytest.skip("this is an installed package, without the documents")
    block = documented.read_text(encoding="utf-8").split("### Only publish drivable area")[1]
    values = yaml.safe_load(block.split("```yaml")[1].split("```")[0])
    bench = start_bench(*(f"{name}:={value}" for name, value in values.items()))
    (mask,) = bench.ask(rgb_image(picture(64, 48)))
    road = next(label.id for label in cityscapes_labels((0,)))
    assert set(np.unique(pixels_of(mask))) <= {road, UNLABELLED}
    assert "is skipped" not in bench.node.stderr
    assert not set_parameters(bench, {"class_groups": ["drivable = road, terrain"]})
    (mask,) = bench.ask(rgb_image(picture(64, 48), 2))
    assert set(np.unique(pixels_of(mask))) <= {road, UNLABELLED}
    lacking = "class 'terrain' in group 'drivable = road, terrain' is skipped"
    assert (lacking in bench.node.stderr) == all(label.name != "terrain" for label in MODEL.labels)


def test_the_run_length_mask_is_the_mask(start_bench: StartBench) -> None:
    bench = start_bench("run_length_mask:=true", topics=("mask", "mask_rle"))
    (mask,) = bench.ask(rgb_image(WIDE, 6))
    (runs,) = bench.answers["mask_rle"]
    assert (runs.header, runs.encoding, runs.width, runs.height, runs.step) == (
        mask.header,
        "mono8",
        900,
        300,
        900,
    )
    assert len(runs.data) < len(mask.data)
    assert np.array_equal(decode(runs.data, runs.height, runs.width), pixels_of(mask))


def test_the_run_length_mask_is_not_there_unless_asked_for(start_bench: StartBench) -> None:
    bench = start_bench()
    assert bench.driver.node.count_publishers("/segmentation/camera_info") == 1
    assert bench.driver.node.count_publishers("/segmentation/mask_rle") == 0


def test_the_latency_ends_with_the_mask_and_not_with_the_pictures_that_follow(
    driver: Driver,
) -> None:
    node = Node("owner", namespace="/latency")
    debug = DebugTopics(node)
    try:
        heard = driver.listen(Float64, "/latency/owner/debug/pipeline_latency_ms")
        driver.wait(debug._latency.get_subscription_count, "the listener")
        now, published = node.get_clock().now(), time.monotonic()
        frame = Header(stamp=now.to_msg())
        debug.publish(published - 0.1, published - 10, frame)  # ten seconds of pictures since
        driver.wait(lambda: heard, "the latency")
        assert -10_500 < heard[0].data < -9_000
    finally:
        debug.destroy()
        node.destroy_node()


def test_the_times_of_each_frame_are_there_for_who_listens(start_bench: StartBench) -> None:
    bench = start_bench()
    topics = ("processing_time_ms", "pipeline_latency_ms")
    times = {name: bench.driver.listen(Float64, f"/segmentation/debug/{name}") for name in topics}
    now = bench.driver.node.get_clock().now().to_msg()
    frame = rgb_image(picture(64, 48))
    frame.header.stamp = now
    bench.driver.wait(lambda: bench.ask(frame) and all(times.values()), "both times")
    processing, latency = (
        times["processing_time_ms"][-1].data,
        times["pipeline_latency_ms"][-1].data,
    )
    assert 0 < processing < latency, "the latency counts from the stamp, and thus from before"
    frame.header.stamp.sec = frame.header.stamp.nanosec = 0
    before = {name: len(values) for name, values in times.items()}
    bench.driver.wait(
        lambda: (
            bench.ask(frame) and len(times["processing_time_ms"]) > before["processing_time_ms"] + 1
        ),
        "two more times",
    )
    assert len(times["pipeline_latency_ms"]) <= before["pipeline_latency_ms"] + 1, (
        "frames without a stamp have no latency"
    )


def test_the_output_may_be_best_effort(start_node: StartNode, driver: Driver) -> None:
    start_node("--ros-args", "-p", "output_reliability:=best_effort")
    names = ("mask", "confidence", "color", "overlay", "mask/compressed", "camera_info")
    topics = [f"/segmentation/{name}" for name in names]
    driver.wait(lambda: all(driver.node.count_publishers(topic) for topic in topics), "the topics")
    for topic in topics:
        (offered,) = driver.node.get_publishers_info_by_topic(topic)
        assert offered.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT, topic
    (labels,) = driver.node.get_publishers_info_by_topic("/segmentation/labels")
    assert labels.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_a_subscriber_with_incompatible_qos_is_reported(
    start_node: StartNode, driver: Driver
) -> None:
    node = start_node(
        "--ros-args", "-p", "output_reliability:=best_effort", "-p", "silent_after:=3600.0"
    )
    bench = Bench(driver, node, ("mask",), Image, "/image", BEST_EFFORT)
    status, _ = bench.status(
        lambda values: "/test_driver" in values["listeners to the mask that do not match"],
        "the warning",
    )
    assert (
        "/test_driver subscribes to /segmentation/mask but asks for reliability reliable"
        in status.message
    )


def test_every_topic_follows_namespace_and_remapping(start_node: StartNode, driver: Driver) -> None:
    remapped = [
        "image:=/camera/image_raw",
        "segmentation/mask:=/perception/mask",
        "__ns:=/front",
        "__node:=seg",
    ]
    start_node(
        "--ros-args",
        *(part for rule in remapped for part in ("-r", rule)),
        "-p",
        "run_length_mask:=true",
    )
    names = [
        f"{name}{kind}"
        for name in ("confidence", "color", "overlay")
        for kind in ("", "/compressed")
    ]
    wanted = {
        f"/front/segmentation/{name}"
        for name in (*names, "mask/compressed", "camera_info", "labels", "mask_rle")
    }
    wanted |= {
        "/perception/mask",
        "/front/seg/debug/processing_time_ms",
        "/front/seg/debug/pipeline_latency_ms",
        "/diagnostics",
    }
    driver.wait(
        lambda: all(driver.node.count_publishers(topic) for topic in wanted),
        f"publishers of {wanted}",
    )
    inputs = ("/camera/image_raw", "/camera/camera_info")
    driver.wait(
        lambda: all(driver.node.count_subscribers(topic) for topic in inputs), "the remapped inputs"
    )
    client = driver.node.create_client(SetBool, "/front/seg/enable")
    driver.wait(client.service_is_ready, "the service")


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": "ddim", "steps": 3, "eta": 0.4, "seed": 7},
        {"sampler": "dpm_solver", "steps": 2},
        {"sampler": "ancestral", "steps": 2, "temperature": 0.9},
        {"samples": 3},
        {"passes": 3, "order": "confident"},
    ],
    ids=lambda change: next(iter(change.values())),
)
def test_another_sampling_at_run_time_gives_the_masks_of_a_model_loaded_so(
    start_bench: StartBench, change: dict[str, Any]
) -> None:
    bench = start_bench()
    (before,) = bench.ask(rgb_image(WIDE, 1))
    assert set_parameters(bench, change) == ""
    (mask,) = bench.ask(rgb_image(WIDE, 2))
    assert np.array_equal(pixels_of(mask), Segmenter.from_pretrained(**change).segment(WIDE).mask)
    _, values = bench.status(
        lambda values: values["state"] == "active", "the model's entry", part="model"
    )
    steps = change.get("steps", 1)
    assert (
        values["sampler"]
        == f"{change.get('sampler', 'one_step')}, {steps} step{'s' * (steps != 1)}"
    )
    back = {
        "sampler": "one_step",
        "steps": 1,
        "eta": 0.0,
        "seed": 0,
        "temperature": -1.0,
        "samples": 1,
        "passes": 1,
    }
    assert set_parameters(bench, back) == ""
    (after,) = bench.ask(rgb_image(WIDE, 3))
    assert after.data == before.data


def changed_model(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the bundled model with another configuration."""
    shutil.copytree(checkpoint_folder("camseg-lite"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_sampling_that_does_not_suit_the_model_is_refused_and_the_old_one_stays(
    start_bench: StartBench, tmp_path: Path
) -> None:
    model = changed_model(tmp_path / "model", lambda config: config.update(num_train_timesteps=50))
    bench = start_bench(f"model:={model}", "sampler:=ddim", "steps:=2")
    (before,) = bench.ask(rgb_image(WIDE, 1))
    reason = set_parameters(bench, {"steps": 51, "seed": 3})
    assert "51" in reason
    assert "50" in reason
    (after,) = bench.ask(rgb_image(WIDE, 2))
    assert after.data == before.data
    bench.connect(good_frame)
