"""Odd, wrong and hostile frames over the real middleware: the next good one is answered."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message
from red_engine import RED
from ros_harness import (
    SUBSTITUTE,
    Bench,
    StartBench,
    assert_served,
    header,
    picture,
    pixels_of,
    rgb_image,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from camseg_core.jpeg import simplejpeg
from camseg_ros.images import ENCODINGS
from camseg_ros.outputs import image_message

REPORTS = "diagnostics_period:=0.1"
LIMIT = 2_000_000
"""For `max_image_bytes`."""


def count(bench: Bench, reason: str) -> int:
    _, values = bench.status(lambda values: True, "a report")
    return int(values.get(reason, 0))


def assert_counted(bench: Bench, message: object, reason: str) -> str:
    """Check that the frame is counted for this reason only; return the error."""
    before = count(bench, reason)
    bench.publisher.publish(message)
    _, values = bench.status(lambda values: int(values.get(reason, 0)) == before + 1, reason)
    return values["last error"]


def filled(encoding: str, value: int, width: int = 64, height: int = 48) -> Image:
    """Return a uniform grey frame in any encoding; in the upper byte of 16 bits, in Y of YUV."""
    known = ENCODINGS[encoding]
    pixel = bytes([value]) * known.pixel_bytes
    data = pixel * (width * height)
    if encoding in ("yuv422", "uyvy"):
        data = bytes([128, value]) * (width * height)
    elif encoding in ("yuv422_yuy2", "yuyv"):
        data = bytes([value, 128]) * (width * height)
    elif encoding in ("nv12", "nv21"):
        data += bytes([128]) * (width * height // 2)
    message = Image(
        header=header(value),
        height=height,
        width=width,
        encoding=encoding,
        step=width * known.pixel_bytes,
    )
    message.data.frombytes(data)
    return message


def test_the_encoding_may_change_from_frame_to_frame(start_bench: StartBench) -> None:
    bench = start_bench(program=SUBSTITUTE)
    for encoding in ENCODINGS:
        bright, dark = bench.ask(filled(encoding, 200), filled(encoding, 50))
        assert (pixels_of(bright) == RED).all(), encoding
        assert (pixels_of(dark) == 0).all(), encoding
        assert bright.header == header(200)
        assert dark.header == header(50)
    assert_served(bench, 1)


@pytest.mark.parametrize(("bigendian", "order"), [(0, "<u2"), (1, ">u2")])
def test_sixteen_bit_frames_are_scaled_from_their_whole_range(
    start_bench: StartBench, bigendian: int, order: str
) -> None:
    bench = start_bench(program=SUBSTITUTE)
    grey = np.arange(48 * 64).reshape(48, 64) * 21 % 65536
    # at 129 of 255 it is red; OpenCV rounds to the nearest
    expected = np.where(np.rint(grey / 257) > 128, RED, 0)
    for number, encoding in enumerate(("mono16", "16UC1")):
        message = Image(
            header=header(number),
            height=48,
            width=64,
            encoding=encoding,
            step=128,
            is_bigendian=bigendian,
        )
        message.data.frombytes(grey.astype(order).tobytes())
        (mask,) = bench.ask(message)
        assert np.array_equal(pixels_of(mask), expected), encoding
    assert_served(bench, 2)


def test_images_that_look_like_depth_or_do_not_fill_their_range_are_a_warning(
    start_bench: StartBench,
) -> None:
    bench = start_bench(REPORTS, program=SUBSTITUTE)
    for encoding, words in (
        ("16UC1", "depth images"),
        ("mono16", "set white_level (--white-level) to 4095"),
    ):
        message = filled(encoding, 0)
        message.data[1::2] = type(message.data)("B", [12] * (64 * 48))  # 3072
        (mask,) = bench.ask(message)
        assert (pixels_of(mask) == 0).all()
        status, _ = bench.status(lambda values: True, words, level=DiagnosticStatus.WARN)
        assert words in status.message
        assert words in bench.node.stderr
    assert bench.set_parameter("white_level", 4095) == (True, "")
    (mask,) = bench.ask(message)
    assert (pixels_of(mask) == RED).all(), "3072 of 4095 is over half"
    bench.status(lambda values: True, "no warning", level=DiagnosticStatus.OK)


def test_one_pixel_and_odd_sizes_are_answered_pixel_by_pixel(start_bench: StartBench) -> None:
    bench = start_bench(program=SUBSTITUTE)
    for number, (width, height) in enumerate(
        [(1, 1), (1, 97), (97, 1), (33, 71), (71, 33), (3, 3), (319, 241), (1, 1)]
    ):
        rgb = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
        (mask,) = bench.ask(rgb_image(rgb, number))
        assert mask.header == header(number)
        assert np.array_equal(pixels_of(mask), np.where(rgb[..., 0] > 128, RED, 0)), (width, height)
    assert_served(bench, 99)


def stamped(stamp: Time) -> Image:
    return image_message(picture(64, 48), "rgb8", Header(stamp=stamp, frame_id="front_camera"))


def test_stamps_that_are_zero_or_go_back_are_answered_in_the_order_of_arrival(
    start_bench: StartBench,
) -> None:
    bench = start_bench(program=SUBSTITUTE)
    stamps = [
        Time(sec=50),
        Time(sec=40, nanosec=999_999_999),
        Time(),
        Time(sec=40),
        Time(),
        Time(sec=2**31 - 1),
        Time(sec=-5),
        Time(sec=3),
    ]
    masks = bench.ask(*(stamped(stamp) for stamp in stamps))
    assert [mask.header.stamp for mask in masks] == stamps
    assert_served(bench, 1)


def test_frames_over_max_age_are_dropped_and_counted_and_zero_stamps_have_none(
    start_bench: StartBench,
) -> None:
    bench = start_bench(REPORTS, program=SUBSTITUTE)
    clock = bench.driver.node.get_clock()

    def seconds_ago(seconds: int) -> Time:
        now = clock.now().to_msg()
        return Time(sec=now.sec - seconds, nanosec=now.nanosec)

    assert bench.set_parameter("max_age_ms", 60_000.0) == (
        True,
        "",
    )  # a busy machine may hold up a frame for seconds
    for number, old in enumerate([seconds_ago(120), Time(sec=1)]):
        bench.publisher.publish(stamped(old))
        _, values = bench.status(
            lambda values, n=number: values.get("dropped: too old") == str(n + 1),
            "the old frame in the counts",
        )
        assert (values["frames rejected"], values["last error"]) == ("0", "none"), (
            "an old frame is no error"
        )
    # also one from the future: clocks differ
    for stamp in (seconds_ago(0), Time(), seconds_ago(-120)):
        (mask,) = bench.ask(stamped(stamp))
        assert mask.header.stamp == stamp
    assert bench.set_parameter("max_age_ms", 0.0) == (True, "")
    assert_served(bench, 1)


def changed(**fields: object) -> Image:
    """A good frame with some fields set wrong."""
    message = rgb_image(picture(64, 48))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def of_bytes(size: int) -> Image:
    """A frame that is all there, and large."""
    return image_message(np.zeros((1000, size // 3000, 3), np.uint8), "rgb8", header(0))


def cut_to(size: int) -> Image:
    message = rgb_image(picture(64, 48))
    del message.data[size:]
    return message


LARGEST = 2**32 - 1
WRONG: list[tuple[str, Callable[[], Image]]] = [
    ("truncated", lambda: cut_to(9000)),
    ("truncated", lambda: cut_to(0)),
    ("truncated", lambda: changed(step=LARGEST)),
    ("size", lambda: changed(width=0)),
    ("size", lambda: changed(height=0)),
    ("size", lambda: changed(encoding="nv12", width=63, step=63)),
    ("step", lambda: changed(step=191)),
    ("encoding", lambda: changed(encoding="rgb8" * 50_000)),
    ("encoding", lambda: changed(encoding="")),
    ("header", lambda: changed(header=Header(frame_id="x" * 100_000))),
    ("too large", lambda: of_bytes(LIMIT + 3000)),
    ("too large", lambda: changed(width=60_000, height=60_000, step=180_000)),
    ("too large", lambda: changed(width=LARGEST, height=LARGEST, step=LARGEST)),
    ("too large", lambda: changed(width=1, height=LARGEST, step=0)),
]


def test_the_fields_of_a_message_are_checked_and_errors_reported(start_bench: StartBench) -> None:
    bench = start_bench(REPORTS, f"max_image_bytes:={LIMIT}", program=SUBSTITUTE)
    for number, (reason, make) in enumerate(WRONG):
        text = assert_counted(bench, make(), f"rejected: {reason}")
        assert text.startswith("/image: ")
        assert len(text) < 1000, "a hostile name must not flood the log"
        assert_served(bench, number)
    bench.ask(of_bytes(LIMIT))


def malformed() -> list[bytes]:
    """Damaged serialized messages: cut, of random bytes, and with false lengths."""
    whole = bytes(serialize_message(rgb_image(picture(64, 48))))
    generator = np.random.default_rng(0)
    data = len(whole) - 64 * 48 * 3 - 4  # where the length of `data` stands
    lies = [
        whole[:data] + length.to_bytes(4, "little") + whole[data + 4 :]
        for length in (64 * 48 * 3 + 1, 300_000_000, LARGEST)
    ]
    cut = [whole[:length] for length in (0, 1, 4, 8, 20, 30, 100)]
    return [*cut, *lies, *(whole[:4] + generator.bytes(200) for _ in range(20))]


def test_messages_that_cannot_be_deserialized_and_names_that_are_no_utf8_do_no_harm(
    start_bench: StartBench,
) -> None:
    bench = start_bench(program=SUBSTITUTE)
    for number, message in enumerate(malformed()):
        bench.publisher.publish(message)
        if number % 5 == 0:
            assert_served(bench, number)
    assert_served(bench, 100)
    whole = bytes(serialize_message(rgb_image(picture(64, 48), 7)))
    for wrong in (b"front\xff\xfe\xc3\x28\x80mer", b"\xed\xa0\x80front\x00\x00\x00\x00"):
        (mask,) = bench.ask(whole.replace(b"front_camera", wrong[:12]))
        assert mask.header.stamp == header(7).stamp
    bench.publisher.publish(whole.replace(b"rgb8", b"\xff\xfe\xfd\xfc"))
    assert_served(bench, 101)


def compressed(data: bytes, frame_id: str = "front_camera", number: int = 0) -> CompressedImage:
    message = CompressedImage(header=header(number, frame_id), format="jpeg")
    message.data.frombytes(data)
    return message


def encoded(rgb: npt.NDArray[np.uint8], kind: str) -> bytes:
    return cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A JPEG or PNG whose header claims another size: a bomb."""
    if data[:2] == b"\xff\xd8":
        place = data.index(b"\xff\xc0") + 5
        return (
            data[:place] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[place + 4 :]
        )
    return data[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:]


def damaged(data: bytes) -> bytes:
    """With a hole in the middle, its ends in place."""
    hole = len(data) // 3
    return data[:hole] + bytes(hole) + data[2 * hole :]


def packed_bench(start_bench: StartBench, *parameters: str) -> Bench:
    good = encoded(picture(64, 48), "jpeg")
    return start_bench(
        *(REPORTS, "image_transport:=compressed", *parameters),
        image_type=CompressedImage,
        image_topic="/image/compressed",
        warm_up=lambda frame_id: compressed(good, frame_id),
        program=SUBSTITUTE,
    )


def assert_packed_served(bench: Bench, number: int) -> None:
    rgb = picture(64, 48, seed=number)
    (mask,) = bench.ask(compressed(encoded(rgb, "png"), number=number))
    assert mask.header == header(number)
    assert np.array_equal(pixels_of(mask), np.where(rgb[..., 0] > 128, RED, 0))


def test_damaged_and_cut_compressed_frames_and_bombs_are_rejected(start_bench: StartBench) -> None:
    bench = packed_bench(start_bench, f"max_image_bytes:={LIMIT}")
    jpeg, png = (encoded(picture(64, 48), kind) for kind in ("jpeg", "png"))
    noise = np.random.default_rng(0).bytes(5000)
    wrong = [
        ("truncated", jpeg[: len(jpeg) // 2]),
        ("truncated", png[: len(png) // 2]),
        ("corrupt", damaged(png)),
        *([("corrupt", damaged(jpeg))] if simplejpeg() else []),
        ("corrupt", b""),
        ("corrupt", noise),
        ("corrupt", jpeg[:2] + noise),
        ("corrupt", b"GIF89a" + noise),
        *(("too large", claiming(data, 60_000, 60_000)) for data in (jpeg, png)),
        ("too large", claiming(png, 2**31 - 1, 2**31 - 1)),
        ("too large", jpeg + bytes(LIMIT)),
        ("size", claiming(png, 0, 48)),
    ]
    for number, (reason, data) in enumerate(wrong):
        assert_counted(bench, compressed(data), f"rejected: {reason}")
        assert_packed_served(bench, number)


def hostile_info() -> CameraInfo:
    """A calibration with an array of 8 MB and a name of 1 MB."""
    info = CameraInfo(header=header(0), width=64, height=48, distortion_model="x" * 1_000_000)
    info.d.frombytes(bytes(8 * 1_000_000))
    return info


@pytest.mark.slow
def test_hostile_frames_do_not_fill_the_memory(start_bench: StartBench) -> None:
    bench = start_bench(REPORTS, f"max_image_bytes:={LIMIT}", program=SUBSTITUTE)
    infos = bench.driver.node.create_publisher(CameraInfo, "/camera_info", 1)
    bench.driver.wait(infos.get_subscription_count, "the subscription to the calibration")
    large = of_bytes(LIMIT)

    def attack(rounds: int) -> int:
        """Send all that is wrong; the node's memory afterwards."""
        for _ in range(rounds):
            for _, make in WRONG:
                bench.publisher.publish(make())
                bench.driver.serve(0.002)
            for message in malformed()[:10]:
                bench.publisher.publish(message)
            infos.publish(hostile_info())
            bench.ask(large)
        return bench.node.resident_bytes

    first = attack(5)
    # a message of 9 MB may still cost the allocator a block or two; these rounds send over 400 MB
    assert attack(25) - first < 16 * LIMIT, "it grows with every attack"
    status, _ = bench.status(
        lambda values: values["calibration"].startswith("its distortion_model"),
        "the calibration's problem",
    )
    assert status.message
    assert_served(bench, 1)


@pytest.mark.slow
def test_compressed_bombs_do_not_fill_the_memory(start_bench: StartBench) -> None:
    bench = packed_bench(start_bench, f"max_image_bytes:={LIMIT}")
    bombs = [
        claiming(encoded(picture(64, 48), kind), side, side)
        for kind in ("jpeg", "png")
        for side in (4_000, 20_000, 60_000)
    ]
    before = bench.node.resident_bytes
    for number in range(20):
        for bomb in bombs:
            bench.publisher.publish(compressed(bomb))
            bench.driver.serve(0.002)
        assert_packed_served(bench, number)
    assert bench.node.resident_bytes - before < 4 * LIMIT, "a decoded bomb would be 48 MB to 10 GB"
