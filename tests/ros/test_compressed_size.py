"""Sizes read from the headers of pictures that OpenCV wrote, and from damaged ones."""

import cv2
import numpy as np
import pytest

from camseg_ros.compressed_images import compressed_size


def encoded(extension: str, width: int, height: int, *options: int) -> bytes:
    return bytes(cv2.imencode(extension, np.full((height, width, 3), 90, np.uint8), options)[1])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 300), (1920, 1080)])
@pytest.mark.parametrize(
    "options",
    [
        (".png",),
        (".jpg",),
        (".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        (".webp",),
        (".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    ],
)
def test_the_size_is_read_and_the_end_seen(options: tuple, width: int, height: int) -> None:
    data = encoded(options[0], width, height, *options[1:])
    assert compressed_size(data) == (width, height, True)
    assert compressed_size(data + bytes(16)) == (width, height, True)  # cameras pad
    assert compressed_size(data[:-13]) == (width, height, False)


def test_a_webp_with_transparency_or_metadata_gives_the_size_of_its_canvas() -> None:
    clear = np.zeros((5, 9, 4), np.uint8)
    assert compressed_size(bytes(cv2.imencode(".webp", clear)[1])) == (9, 5, True)


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
def test_no_prefix_of_a_picture_is_trouble(extension: str) -> None:
    data = encoded(extension, 9, 5)
    for length in range(len(data)):
        found = compressed_size(data[:length])
        assert found is None or found[:2] == (9, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xda\x00\x02",
        b"\xff\xd8\xff\xe0\x00\x00" * 3,
        b"GIF89a" + bytes(30),
        bytes(100),
    ],
)
def test_other_data_have_no_size(data: bytes) -> None:
    assert compressed_size(data) is None
