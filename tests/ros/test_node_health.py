"""What the node says about itself, and that bad input costs nothing but itself."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from ros_harness import StartBench, StartNode, header, picture, rgb_image
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from camseg_core.data.disturbances import salt_and_pepper
from camseg_core.weights import checkpoint_folder


def changed(**fields: object) -> Image:
    """A good frame with some fields set wrong."""
    message = rgb_image(picture(64, 48))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def cut_short() -> Image:
    message = rgb_image(picture(64, 48))
    del message.data[-100:]
    return message


BAD: list[tuple[str, Callable[[], Image], str]] = [
    ("encoding", lambda: changed(encoding="yuv999"), "unknown image encoding 'yuv999'"),
    ("size", lambda: changed(width=0), "0x48 rgb8 image has no pixels"),
    ("truncated", cut_short, "needs 9216 bytes, has 9116"),
    ("step", lambda: changed(step=64), "has step 64, but a row needs 64 x 3 = 192 bytes"),
    ("too large", lambda: changed(width=60000, height=60000, step=180000), "over the limit of"),
]


def nothing_in_work(values: dict[str, str]) -> bool:
    """Whether every frame received was published, rejected or dropped."""
    return int(values["frames received"]) == sum(
        int(values[f"frames {name}"]) for name in ("published", "rejected", "dropped")
    )


def test_bad_frames_are_reported_and_the_next_good_one_is_answered(start_bench: StartBench) -> None:
    bench = start_bench()
    for number, (reason, make, text) in enumerate(BAD):
        bench.publisher.publish(make())
        status, values = bench.status(
            lambda values, key=f"rejected: {reason}": values.get(key) == "1", reason
        )
        assert status.level == DiagnosticStatus.ERROR, "no frame was answered since"
        assert values["frames rejected"] == str(number + 1)
        assert text in values["last error"]
        assert text in status.message
        assert values["last error"].startswith("/image: ")
        (mask,) = bench.ask(rgb_image(picture(64, 48), number))
        assert mask.header == header(number)
        status, _ = bench.status(
            lambda values, wanted=status.level: True, "the level after a good frame"
        )
        assert status.level == DiagnosticStatus.WARN
    for reason, _, text in BAD:
        assert any("[WARN]" in line and text in line for line in bench.node.stderr.splitlines()), (
            reason
        )


def test_a_damaged_jpeg_is_reported_and_the_next_one_answered(start_bench: StartBench) -> None:
    def jpeg(frame_id: str) -> CompressedImage:
        data = cv2.imencode(".jpg", picture(64, 48))[1]
        return CompressedImage(header=header(4, frame_id), format="jpeg", data=data.tobytes())

    bench = start_bench(
        "image_transport:=compressed",
        image_type=CompressedImage,
        image_topic="/image/compressed",
        warm_up=jpeg,
    )
    bad = jpeg("front_camera")
    del bad.data[len(bad.data) // 2 :]
    bench.publisher.publish(bad)
    _, values = bench.status(
        lambda values: values.get("rejected: truncated") == "1", "the damaged frame"
    )
    assert "cut short" in values["last error"]
    assert len(bench.ask(jpeg("front_camera"))) == 1


def test_the_same_trouble_again_and_again_is_counted_and_not_logged_each_time(
    start_bench: StartBench,
) -> None:
    bench = start_bench()
    # alone, so that it is processed: those below may be replaced by the good frame that follows
    bench.publisher.publish(changed(encoding="yuv999"))
    bench.status(
        lambda values: int(values["frames rejected"]) > 0, "the first bad frame in the counts"
    )
    for number in range(20):
        bench.publisher.publish(changed(encoding="yuv999"))
        bench.ask(rgb_image(picture(64, 48), number))
    _, values = bench.status(
        lambda values: int(values["frames received"]) > 41 and nothing_in_work(values),
        "every frame in the counts",
    )
    assert int(values["frames rejected"]) + int(values["frames dropped"]) >= 21
    assert 1 <= bench.node.stderr.count("yuv999") < 10


def test_a_healthy_node_says_so_with_its_numbers(start_bench: StartBench) -> None:
    pytest.importorskip("openvino")
    given = ("steps:=4", "threads:=1")
    bench = start_bench("latency_budget_ms:=600000.0", *given)  # the machine may be busy
    bench.ask(*(rgb_image(picture(80, 60), number) for number in range(5)))
    status, values = bench.status(lambda values: int(values["frames published"]) >= 5, "the counts")
    assert (status.message, status.level, status.name) == (
        "serving",
        DiagnosticStatus.OK,
        "/segmentation: camera",
    )
    assert (values["input topic"], status.hardware_id) == ("/image", "/image")
    _, model = bench.status(
        lambda values: values["state"] == "active", "the model's status", part="model"
    )
    assert (model["model"], model["provider"], model["sampler"]) == (
        "camseg-lite",
        "openvino",
        "one_step, 1 step",
    )
    assert (model["provider fallback"], model["engine rebuilds"]) == ("none", "0")
    assert model["checkpoint folder"] == str(checkpoint_folder("camseg-lite"))
    assert model["threads"].startswith("1 of ")
    assert "parameter 'steps' has no effect (4): one_step does not use it" in bench.node.stderr
    assert model["provider choice"].startswith("auto: tensorrt needs onnxruntime-gpu")
    assert model["engine"].startswith("OpenVINO ")
    assert model["engine"].endswith(" on CPU")
    assert model["precision"] in ("int8+bf16", "int8+fp32")
    assert int(model["compilations"]) >= 1
    assert " for " in model["last compilation"]
    assert float(model["memory (MB)"]) > 50
    assert values["image size"] == "80x60"
    assert model["converter"]
    assert float(values["latency p50 (ms)"]) > 0
    assert float(values["latency p95 (ms)"]) >= float(values["latency p50 (ms)"])
    assert float(values["rate in (Hz)"]) > 0
    assert float(values["rate out (Hz)"]) > 0
    assert {"stage wait (ms)", "stage read (ms)", "stage publish (ms)"} <= set(values)
    assert values["last error"] == "none"
    assert values["publishers on the input topic"] == "1"


def test_images_with_strong_noise_are_answered_and_reported(start_bench: StartBench) -> None:
    bench = start_bench("latency_budget_ms:=600000.0")  # the machine may be busy
    generator, clean = np.random.default_rng(0), picture(160, 120)
    for number in range(4):
        bench.ask(rgb_image(salt_and_pepper(clean, 40, generator), number))
    status, _ = bench.status(  # the first image, by which the test finds the node, has none
        lambda values: int(values["frames with strong noise (%)"]) >= 50, "the noise"
    )
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith("strong noise in ")
    assert " of the last images, removed before the network; check the camera" in status.message


def test_silence_is_a_warning_that_names_the_topic(start_node, driver) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    start_node(
        "--ros-args",
        "-r",
        "image:=/nobody/here",
        "-p",
        "diagnostics_period:=0.2",
        "-p",
        "silent_after:=0.5",
    )
    reports = driver.listen(DiagnosticArray, "/diagnostics")
    driver.wait(lambda: reports, "a report")
    driver.wait(
        lambda: any("no images" in report.status[0].message for report in reports), "the warning"
    )
    status = next(report.status[0] for report in reports if "no images" in report.status[0].message)
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith("no images on /nobody/here for ")
    assert status.message.endswith("no publisher; check the topic name and whether the camera runs")


def test_frames_with_stamps_of_another_clock_are_an_error_that_is_logged(
    start_bench: StartBench,
) -> None:
    bench = start_bench("max_age_ms:=500.0", connected=False)

    def lost() -> bool:
        bench.publisher.publish(rgb_image(picture(64, 48)))
        return "images lost: too old" in bench.node.stderr

    bench.driver.wait(lost, "the warning", lambda: bench.node.output)
    status, values = bench.status(
        lambda values: int(values["frames received"]) > 4, "the level", level=DiagnosticStatus.ERROR
    )
    assert values["frames published"] == "0"
    assert "use_sim_time: true" in status.message
    assert bench.node.stderr.count("images lost") == 1


def test_silence_is_logged_once_with_the_topics_that_exist_and_the_remedy(
    start_bench: StartBench,
) -> None:
    bench = start_bench(
        "silent_after:=1.0",
        "image_topic:=/front/image_raw",
        image_type=CompressedImage,
        image_topic="/front/image_raw/compressed",
        connected=False,
    )
    text = "[WARN] "
    bench.driver.wait(
        lambda: "no images on /front/image_raw for " in bench.node.stderr,
        "the warning",
        lambda: bench.node.output,
    )
    bench.driver.serve(1.0)
    lines = [line for line in bench.node.stderr.splitlines() if "no images on" in line]
    assert len(lines) == 1
    assert text in lines[0]
    found = "/front/image_raw/compressed (sensor_msgs/msg/CompressedImage from /test_driver)"
    assert lines[0].endswith(f"no publisher; {found} exists: set image_transport: compressed")


def test_simulated_time_without_a_clock_is_a_warning(start_bench: StartBench) -> None:
    bench = start_bench("use_sim_time:=true")
    bench.ask(rgb_image(picture(64, 48)))
    text = "use_sim_time is true, but nothing publishes /clock"
    bench.status(lambda values: True, text, part="model", level=DiagnosticStatus.WARN)
    assert bench.node.stderr.count(text) == 1
    clock = bench.driver.node.create_publisher(Clock, "/clock", 10)
    timer = bench.driver.node.create_timer(0.1, lambda: clock.publish(Clock(clock=Time(sec=5))))
    bench.status(lambda values: True, "no warning", part="model", level=DiagnosticStatus.OK)
    bench.driver.node.destroy_timer(timer)


def test_a_second_node_on_the_same_mask_topic_is_named_with_the_first(
    start_bench: StartBench, start_node: StartNode
) -> None:
    bench = start_bench(connected=False)
    second = start_node("--ros-args", "-r", "__node:=second", "-p", "diagnostics_period:=0.1")
    text = "/second and /segmentation publish /segmentation/mask"
    status, _ = bench.status(
        lambda values: values["other publishers of the mask"].startswith(text), "both nodes"
    )
    assert (status.level, status.message.startswith(text)) == (DiagnosticStatus.WARN, True)
    bench.driver.wait(lambda: text in second.stderr, "the second node's log")
    second.stop()
    bench.status(lambda values: values["other publishers of the mask"] == "none", "only one node")


@pytest.mark.slow
def test_a_flood_is_dropped_and_counted_and_the_last_frame_answered(
    start_bench: StartBench,
) -> None:
    bench = start_bench()
    for number in range(200):
        bench.publisher.publish(rgb_image(picture(64, 48), number))
        bench.driver.serve(0.002)
    bench.ask(rgb_image(picture(64, 48), 999))
    bench.driver.wait(
        lambda: any(mask.header == header(999) for mask in bench.answers["mask"]), "the last frame"
    )
    _, values = bench.status(nothing_in_work, "every frame in the counts")
    stamps = [mask.header.stamp.sec for mask in bench.answers["mask"]]
    assert stamps == sorted(set(stamps)), "twice or out of order"
    assert values["frames rejected"] == "0"
    assert int(values["frames dropped"]) > 0
