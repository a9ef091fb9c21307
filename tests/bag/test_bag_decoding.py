"""Compressed images of bags are refused where pixels are lost, and only there, as by the node."""

import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_ros import compressed_images
from camseg_ros.bag.frames import decode_whole
from camseg_ros.compressed_images import decode_compressed
from camseg_ros.images import BadImage

IMAGE = SyntheticDrive(frames=1, height=96, width=128)[0].image
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()
JPEG = cv2.imencode(".jpg", IMAGE)[1].tobytes()
HEADER = 33  # bytes of a PNG up to the end of its IHDR


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PROFILE = chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(b"x" * 200))  # too short for one
NOTE = chunk(b"tIME", b"1234567")


def message(content: bytes) -> Any:
    return SimpleNamespace(format="", data=np.frombuffer(content, np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        PNG[:HEADER] + PROFILE + PNG[HEADER:],
        PNG[:HEADER] + NOTE[:-1] + b"\0" + PNG[HEADER:],  # a wrong checksum, of no pixel
    ],
)
def test_a_png_whose_notes_alone_are_malformed_is_read(content: bytes) -> None:
    assert np.array_equal(decode_whole(message(content)).pixels, IMAGE)


@pytest.mark.parametrize(
    "content",
    [
        PNG[: len(PNG) // 2] + b"\x55" + PNG[len(PNG) // 2 + 1 :],
        PNG[:HEADER] + PROFILE + PNG[HEADER : len(PNG) // 2] + b"\x55" + PNG[len(PNG) // 2 + 1 :],
        PNG[:-40],
    ],
)
def test_a_png_with_damaged_pixels_is_refused(content: bytes) -> None:
    with pytest.raises(BadImage):
        decode_whole(message(content))


@pytest.mark.parametrize("with_simplejpeg", [True, False])
def test_a_few_stray_bytes_in_a_jpeg_cost_no_image(
    with_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_simplejpeg:
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(compressed_images, "simplejpeg", lambda: None)
    expected = decode_compressed(message(JPEG), 1 << 30).pixels
    for stray in (1, 16):
        content = JPEG[:-2] + b"\x12" * stray + JPEG[-2:]
        assert np.array_equal(decode_whole(message(content)).pixels, expected)
    with pytest.raises(BadImage, match=r"\d+ extraneous bytes before marker"):
        decode_whole(message(JPEG[:-2] + b"\x12" * 100 + JPEG[-2:]))
