"""Compressed outputs, decoded as image_transport's subscriber does it: ids come back exactly."""

import cv2
import numpy as np
import pytest
from ros_harness import header, picture
from sensor_msgs.msg import CompressedImage

from camseg_core.errors import ConfigError, ImageError
from camseg_core.labels import color_table
from camseg_ros.compressed_images import decode_compressed
from camseg_ros.image_conversion import choose_converter
from camseg_ros.messages import compressed_message

RANDOM = np.random.default_rng(2)
EVERY_ID = np.arange(256, dtype=np.uint8).reshape(8, 32)


def as_image_transport(message: CompressedImage) -> tuple[str, np.ndarray]:
    """Decode a message like `compressed_subscriber.cpp` in its mode "unchanged"."""
    pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
    encoding, _, rest = message.format.partition(";")
    if encoding == "rgb8" and "compressed bgr" in rest:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return encoding, pixels


@pytest.mark.parametrize(
    "ids",
    [
        EVERY_ID,
        EVERY_ID[:1, :1],
        RANDOM.integers(0, 256, (97, 131)).astype(np.uint8),
        np.full((40, 50), 255, np.uint8),
        EVERY_ID[::2, ::3],
    ],
    ids=["every id", "one pixel", "noise", "constant", "a view with gaps"],
)
def test_ids_come_back_exactly(ids: np.ndarray) -> None:
    message = compressed_message(ids, "mono8", header(3), "png")
    assert message.format == "mono8; png compressed "
    assert message.header == header(3)
    encoding, pixels = as_image_transport(message)
    assert (encoding, pixels.dtype) == ("mono8", np.uint8)
    assert np.array_equal(pixels, ids)


def test_class_colours_come_back_exactly_and_in_order() -> None:
    colors = color_table()[RANDOM.integers(0, 20, (60, 80))]
    message = compressed_message(colors, "rgb8", header(3), "png")
    assert message.format == "rgb8; png compressed bgr8"
    encoding, pixels = as_image_transport(message)
    assert encoding == "rgb8"
    assert np.array_equal(pixels, colors)
    assert np.array_equal(decode_compressed(message, 1_000_000).to_rgb(choose_converter()), colors)


def test_an_overlay_comes_back_closely_as_jpeg() -> None:
    rgb = picture(160, 120)
    message = compressed_message(rgb, "rgb8", header(3), "jpeg")
    assert message.format == "rgb8; jpeg compressed bgr8"
    assert bytes(message.data[:3]) == b"\xff\xd8\xff"
    _, pixels = as_image_transport(message)
    assert np.abs(pixels.astype(int) - rgb).mean() < 4
    assert len(message.data) < rgb.nbytes / 3


def test_ids_are_never_made_a_jpeg() -> None:
    with pytest.raises(ConfigError, match="use png"):
        compressed_message(EVERY_ID, "mono8", header(3), "jpeg")


def test_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be png or jpeg, got 'tiff'"):
        compressed_message(EVERY_ID, "mono8", header(3), "tiff")  # type: ignore[arg-type]


def test_an_image_too_large_for_the_format_is_an_error() -> None:
    with pytest.raises(ImageError, match="cannot compress pixels"):
        compressed_message(np.zeros((1, 70_000, 3), np.uint8), "rgb8", header(3), "jpeg")
