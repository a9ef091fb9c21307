"""Every encoding against pixels worked out here, and every way in which a message can lie."""

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from ros_harness import header, picture
from sensor_msgs.msg import CompressedImage, Image

from camseg_ros.compressed_images import CompressedFields, decode_compressed
from camseg_ros.image_conversion import Converter, Pixels, choose_converter
from camseg_ros.images import (
    ENCODINGS,
    BadImage,
    image_to_rgb,
    range_problem,
)
from camseg_ros.outputs import image_message

LIMIT = 10_000_000
CONVERTER = choose_converter()
RGB = np.random.default_rng(5).integers(0, 256, (6, 8, 3)).astype(np.uint8)
GREY = RGB[..., 1]
ALPHA = np.full((6, 8, 1), 9, np.uint8)


@pytest.fixture(scope="module")
def converter() -> Converter:
    return CONVERTER


def compressed_to_rgb(message: CompressedFields, max_bytes: int, white: int = 0) -> Pixels:
    return decode_compressed(message, max_bytes).to_rgb(CONVERTER, white)


def message(
    encoding: str,
    rows: np.ndarray,
    width: int,
    height: int,
    padding: int = 0,
    is_bigendian: int = 0,
) -> Image:
    """Return a message of `rows` `(row count, bytes per row)`, each with garbage as padding."""
    rows = np.pad(
        rows.reshape(len(rows), -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=0xA5
    )
    image = Image(
        height=height, width=width, encoding=encoding, is_bigendian=is_bigendian, step=rows.shape[1]
    )
    image.data.frombytes(rows.tobytes())
    return image


def bt601(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """RGB `(H, W, 3)` of video-range YUV planes, by the formula of the standard."""
    y, u, v = (plane.astype(float) for plane in (y, u, v))
    luma = 255 / 219 * (y - 16)
    r = luma + 255 / 224 * 1.402 * (v - 128)
    g = luma - 255 / 224 * (0.344136 * (u - 128) + 0.714136 * (v - 128))
    b = luma + 255 / 224 * 1.772 * (u - 128)
    return np.clip(np.stack([r, g, b], -1), 0, 255)


def demosaic(raw: np.ndarray, pattern: str) -> np.ndarray:
    """Demosaic the inner pixels `(H - 2, W - 2, 3)` by rounded means of the nearest samples."""
    height, width = raw.shape
    result = np.zeros((height - 2, width - 2, 3), np.uint8)
    colour = [
        ["rgb".index(pattern[2 * (y % 2) + x % 2]) for x in range(width)] for y in range(height)
    ]
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            for channel in range(3):
                if colour[y][x] == channel:
                    result[y - 1, x - 1, channel] = raw[y, x]
                    continue
                samples = [int(raw[p]) for p in around if colour[p[0]][p[1]] == channel]
                result[y - 1, x - 1, channel] = (sum(samples) + len(samples) // 2) // len(samples)
    return result


PACKED = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "8UC3": (RGB[..., ::-1], RGB),
    "rgba8": (np.concatenate([RGB, ALPHA], -1), RGB),
    "bgra8": (np.concatenate([RGB[..., ::-1], ALPHA], -1), RGB),
    "8UC4": (np.concatenate([RGB[..., ::-1], ALPHA], -1), RGB),
    "mono8": (GREY, np.stack([GREY] * 3, -1)),
    "8UC1": (GREY, np.stack([GREY] * 3, -1)),
}


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", PACKED)
def test_packed_encodings_are_exact_with_and_without_padding(
    converter: Converter, encoding: str, padding: int
) -> None:
    data, expected = PACKED[encoding]
    rgb = image_to_rgb(
        message(encoding, np.ascontiguousarray(data), 8, 6, padding), converter, LIMIT
    )
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb, expected)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_is_interpolated_from_the_right_neighbours(
    converter: Converter, pattern: str, padding: int
) -> None:
    rgb = image_to_rgb(message(f"bayer_{pattern}8", GREY.copy(), 8, 6, padding), converter, LIMIT)
    assert np.array_equal(rgb[1:-1, 1:-1], demosaic(GREY, pattern))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv422_shares_chroma_between_two_pixels(
    converter: Converter, encoding: str, padding: int
) -> None:
    y = 16 + GREY % 220
    u, v = RGB[:, ::2, 0], RGB[:, ::2, 2]
    chroma = np.stack([u, v], -1).reshape(6, 8)
    planes = [chroma, y] if encoding in ("yuv422", "uyvy") else [y, chroma]
    rgb = image_to_rgb(message(encoding, np.stack(planes, -1), 8, 6, padding), converter, LIMIT)
    expected = bt601(y, np.repeat(u, 2, 1), np.repeat(v, 2, 1))
    assert np.abs(rgb - expected).max() < 1.5


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_nv12_shares_chroma_between_four_pixels(
    converter: Converter, encoding: str, padding: int
) -> None:
    y = 16 + GREY % 220
    u, v = RGB[::2, ::2, 0], RGB[::2, ::2, 2]
    chroma = np.stack([u, v] if encoding == "nv12" else [v, u], -1).reshape(3, 8)
    rgb = image_to_rgb(
        message(encoding, np.concatenate([y, chroma]), 8, 6, padding), converter, LIMIT
    )
    expected = bt601(y, u.repeat(2, 0).repeat(2, 1), v.repeat(2, 0).repeat(2, 1))
    assert rgb.shape == (6, 8, 3)
    assert np.abs(rgb - expected).max() < 1.5


@pytest.mark.parametrize("padding", [0, 2, 3])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bits_are_scaled_from_the_whole_range(
    converter: Converter, encoding: str, is_bigendian: int, padding: int
) -> None:
    values = np.array([[0, 128, 129, 257], [32767, 65278, 65407, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 1], [127, 254, 255, 255]], np.uint8)
    stored = values.astype(">u2" if is_bigendian else "<u2")
    rgb = image_to_rgb(message(encoding, stored, 4, 2, padding, is_bigendian), converter, LIMIT)
    assert np.array_equal(rgb, np.stack([expected] * 3, -1))


WIDE = {
    "rgb16": "rgb8",
    "bgr16": "bgr8",
    "16UC3": "bgr8",
    "rgba16": "rgba8",
    "bgra16": "bgra8",
    "16UC4": "bgra8",
    "mono16": "mono8",
    "16UC1": "mono8",
    **{f"bayer_{cell}16": f"bayer_{cell}8" for cell in ("rggb", "bggr", "gbrg", "grbg")},
}
"""Encodings of 16 bits, and those of 8 bits with the same layout."""


@pytest.mark.parametrize("white", [0, 4095, 1023])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", WIDE)
def test_sixteen_bits_are_the_eight_bits_that_they_are_scaled_to(
    converter: Converter, encoding: str, is_bigendian: int, white: int
) -> None:
    narrow = PACKED[WIDE[encoding]][0] if WIDE[encoding] in PACKED else GREY
    scale = (white or 65535) / 255
    stored = np.rint(narrow * scale).astype(">u2" if is_bigendian else "<u2")
    wide = image_to_rgb(message(encoding, stored, 8, 6, 2, is_bigendian), converter, LIMIT, white)
    eight = message(WIDE[encoding], np.ascontiguousarray(narrow), 8, 6)
    assert np.array_equal(wide, image_to_rgb(eight, converter, LIMIT))


def test_what_is_brighter_than_white_is_white(converter: Converter) -> None:
    values = np.array([[0, 4095, 4096, 65535]], "<u2")
    rgb = image_to_rgb(message("mono16", values, 4, 1), converter, LIMIT, white=4095)
    assert rgb[0, :, 0].tolist() == [0, 255, 255, 255]


@pytest.mark.parametrize(
    ("encoding", "values", "words"),
    [
        ("16UC1", [0, 65535], "16UC1 is the encoding of depth images (REP 118)"),
        ("mono16", [0, 4000], "no value of its mono16 images is above 4095, so they look dark"),
        (
            "mono16",
            [0, 900],
            "set white_level (--white-level) to 1023, or to 65535 if the scene",
        ),
        ("mono16", [0, 16000], "set white_level (--white-level) to 16383"),
        ("mono16", [0, 17000], ""),
        ("mono16", [0, 200], ""),
        ("bayer_rggb16", [0, 4000], "no value of its bayer_rggb16 images is above 4095"),
    ],
)
def test_sixteen_bits_that_may_be_misread_are_reported(
    encoding: str, values: list[int], words: str
) -> None:
    stored = np.resize(np.array(values, "<u2"), (4, 4))
    text, _ = range_problem(message(encoding, stored, 4, 4), LIMIT, 0)
    assert words in text
    assert bool(words) == bool(text)


def test_a_bright_image_ends_the_guess_about_the_range() -> None:
    dark, bright = (message("mono16", np.full((2, 2), v, "<u2"), 2, 2) for v in (3000, 60000))
    text, brightest = range_problem(dark, LIMIT, 0)
    assert text
    text, brightest = range_problem(bright, LIMIT, brightest)
    assert (text, brightest) == ("", 60000)
    assert range_problem(dark, LIMIT, brightest) == ("", 60000)
    assert range_problem(message("rgb8", RGB, 8, 6), LIMIT, 0) == ("", 0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 4000], "no value of its 16-bit PNG images is above 4095, so they look dark; set"),
        ([0, 900], "set white_level (--white-level) to 1023, or to 65535 if the scene"),
        ([0, 17000], ""),
        ([0, 200], ""),
    ],
)
def test_compressed_images_of_sixteen_bits_that_may_be_misread_are_reported(
    values: list[int], words: str
) -> None:
    def png(*stored: int) -> Any:
        pixels = np.resize(np.array(stored, np.uint16), (4, 4))
        data = cv2.imencode(".png", pixels)[1].ravel()
        return decode_compressed(SimpleNamespace(format="png", data=data), LIMIT)

    text, brightest = png(*values).range_problem(0)
    assert words in text
    assert (bool(text), brightest) == (bool(words), values[1])
    assert png(60000).range_problem(brightest)[0] == ""
    assert png(*values).range_problem(60000) == ("", 60000)
    jpeg = SimpleNamespace(format="jpeg", data=cv2.imencode(".jpg", RGB)[1].ravel())
    assert decode_compressed(jpeg, LIMIT).range_problem(0) == ("", 0)


def test_every_encoding_has_a_test_above() -> None:
    tested = {*PACKED, *WIDE, "yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"}
    assert tested | {f"bayer_{p}8" for p in ("rggb", "bggr", "gbrg", "grbg")} == set(ENCODINGS)


def test_one_pixel_and_a_missing_last_padding_are_fine(converter: Converter) -> None:
    assert image_to_rgb(message("rgb8", RGB[:1, :1].copy(), 1, 1), converter, LIMIT).tolist() == [
        [RGB[0, 0].tolist()]
    ]
    padded = message("rgb8", RGB, 8, 6, padding=4)
    del padded.data[-4:]
    assert np.array_equal(image_to_rgb(padded, converter, LIMIT), RGB)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"encoding": "yuv999"}, "encoding", ["yuv999", "known are rgb8", "nv12"]),
        ({"encoding": "32FC1"}, "encoding", ["32FC1 holds depth", "the colour image"]),
        ({"width": 0}, "size", ["0x6 rgb8", "no pixels"]),
        ({"height": 0}, "size", ["8x0 rgb8", "no pixels"]),
        ({"step": 23}, "step", ["step 23", "8 x 3 = 24"]),
        ({"height": 7}, "truncated", ["needs 168 bytes", "has 144"]),
        ({"height": 2**31, "width": 2**31, "step": 2**32 - 1}, "too large", ["max_image_bytes"]),
        ({"encoding": "yuv422", "width": 7}, "size", ["7x6 yuv422", "even width"]),
        ({"encoding": "nv12", "height": 5}, "size", ["8x5 nv12", "even width and height"]),
        ({"encoding": "bayer_rggb8", "height": 2}, "size", ["8x2 bayer_rggb8", "at least 3"]),
    ],
)
def test_a_message_that_lies_is_refused_with_the_reason(
    converter: Converter, changes: dict, reason: str, words: list[str]
) -> None:
    bad = message("rgb8", RGB, 8, 6)
    for name, value in changes.items():
        setattr(bad, name, value)
    with pytest.raises(BadImage) as caught:
        image_to_rgb(bad, converter, LIMIT)
    assert caught.value.reason == reason
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_limit_counts_the_rgb_that_would_be_made(converter: Converter) -> None:
    grey = message("mono8", GREY.copy(), 8, 6)
    assert image_to_rgb(grey, converter, 6 * 8 * 3).shape == (6, 8, 3)
    with pytest.raises(BadImage, match="takes 144 bytes, over the limit of 143"):
        image_to_rgb(grey, converter, 6 * 8 * 3 - 1)


def compressed(extension: str, rgb: np.ndarray) -> CompressedImage:
    done, data = cv2.imencode(extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert done
    return CompressedImage(format=f"rgb8; {extension[1:]} compressed bgr8", data=data.tobytes())


def test_compressed_images_are_decoded_as_stored() -> None:
    rgb = picture(64, 48)
    assert np.array_equal(compressed_to_rgb(compressed(".png", rgb), LIMIT), rgb)
    assert np.abs(compressed_to_rgb(compressed(".jpg", rgb), LIMIT).astype(int) - rgb).mean() < 4


def test_webp_is_decoded_as_stored() -> None:
    rgb = picture(64, 48)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    lossless = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert np.array_equal(compressed_to_rgb(CompressedImage(data=lossless), LIMIT), rgb)
    assert np.abs(compressed_to_rgb(compressed(".webp", rgb), LIMIT).astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("white", [0, 4095])
def test_a_png_of_sixteen_bits_is_scaled_as_a_raw_image(white: int) -> None:
    grey = np.rint(GREY * ((white or 65535) / 255)).astype(np.uint16)
    data = cv2.imencode(".png", grey)[1].tobytes()
    rgb = compressed_to_rgb(CompressedImage(format="mono16; png", data=data), LIMIT, white)
    assert np.array_equal(rgb, np.stack([GREY] * 3, -1))


@pytest.mark.parametrize(
    ("form", "start", "words"),
    [
        ("16UC1; compressedDepth png", b"", "holds depth"),
        ("32FC1; compressedDepth rvl", b"", "holds depth"),
        ("h264", b"", "holds video"),
        ("H265", b"", "holds video"),
        ("", b"\0\0\0\1\x67", "image_transport's republish"),
        ("", b"\0\0\1\x65", "holds video"),
    ],
)
def test_depth_and_video_are_refused_with_what_to_do(form: str, start: bytes, words: str) -> None:
    with pytest.raises(BadImage, match=words) as caught:
        compressed_to_rgb(CompressedImage(format=form, data=start + bytes(100)), LIMIT)
    assert caught.value.reason == "encoding"


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("keep", [0, 1, 10, 30, 200, -20])
def test_damaged_compressed_images_are_refused(extension: str, keep: int) -> None:
    bad = compressed(extension, picture(64, 48))
    del bad.data[keep:]
    with pytest.raises(BadImage) as caught:
        compressed_to_rgb(bad, LIMIT)
    assert caught.value.reason in ("corrupt", "truncated")
    assert f"{len(bad.data)} bytes" in str(caught.value)


def test_rubbish_between_intact_ends_is_refused() -> None:
    bad = compressed(".png", picture(64, 48))
    bad.data[40:200] = type(bad.data)("B", bytes(160))
    with pytest.raises(BadImage, match="damaged"):
        compressed_to_rgb(bad, LIMIT)


JPEG = cv2.imencode(".jpg", picture(640, 480)[..., ::-1])[1].tobytes()
MIDDLE = len(JPEG) // 2


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:MIDDLE] + JPEG[MIDDLE + 900 :],
        JPEG[:MIDDLE] + bytes(900) + JPEG[MIDDLE + 900 :],
        JPEG[:MIDDLE] + b"\xff\xd9",
    ],
    ids=["bytes missing", "bytes zeroed", "cut with an end marker"],
)
def test_a_jpeg_with_damage_within_is_refused(data: bytes) -> None:
    pytest.importorskip("simplejpeg")  # rosdep does not have it
    with pytest.raises(BadImage, match="Corrupt JPEG data") as caught:
        compressed_to_rgb(CompressedImage(format="jpeg", data=data), LIMIT)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("stray", [1, 2, 5, 16])
@pytest.mark.parametrize("codec", [cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE])
def test_bytes_that_webcams_write_before_the_end_of_a_jpeg_are_no_damage(
    stray: int, codec: int
) -> None:
    whole = cv2.imdecode(np.frombuffer(JPEG, np.uint8), codec)
    data = cv2.imencode(".jpg", whole)[1].tobytes()
    sent = CompressedImage(format="jpeg", data=data[:-2] + b"\x12" * stray + data[-2:])
    clean = compressed_to_rgb(CompressedImage(format="jpeg", data=data), LIMIT)
    assert np.array_equal(compressed_to_rgb(sent, LIMIT), clean)


def test_a_jpeg_of_cmyk_is_decoded() -> None:
    file = BytesIO()
    PIL.Image.fromarray(picture(64, 48)).convert("CMYK").save(file, "JPEG", quality=95)
    rgb = compressed_to_rgb(CompressedImage(format="jpeg", data=file.getvalue()), LIMIT)
    assert np.abs(rgb.astype(int) - picture(64, 48)).mean() < 12


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("cell", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("form", ["png compressed ", "jpeg compressed bayer_{}8", "png"])
def test_a_compressed_mosaic_is_converted_to_colour(cell: str, bits: int, form: str) -> None:
    color = {"r": 200, "g": 90, "b": 30}
    tile = np.array([color[letter] for letter in cell], np.uint16).reshape(2, 2)
    mosaic = np.tile(tile, (8, 12)) * (257 if bits == 16 else 1)
    extension = ".jpg" if form.startswith("jpeg") else ".png"
    if extension == ".jpg" and bits == 16:
        pytest.skip("no JPEG has 16 bits")
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if extension == ".jpg" else []
    data = cv2.imencode(extension, mosaic.astype(f"uint{bits}"), quality)[1].tobytes()
    sent = CompressedImage(format=f"bayer_{cell}{bits}; {form.format(cell)}", data=data)
    rgb = compressed_to_rgb(sent, LIMIT)
    assert np.abs(rgb[3:-3, 3:-3].astype(int) - [200, 90, 30]).max() < 6


def test_a_mosaic_that_was_converted_before_compression_is_not_converted_again() -> None:
    rgb = picture(64, 48)
    data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    for target in ("bgr8", ""):
        sent = CompressedImage(format=f"bayer_rggb8; png compressed {target}", data=data)
        assert np.array_equal(compressed_to_rgb(sent, LIMIT), rgb)
    grey = cv2.imencode(".png", rgb[..., 1])[1].tobytes()
    sent = CompressedImage(format="bayer_rggb8; png compressed mono8", data=grey)
    assert np.array_equal(compressed_to_rgb(sent, LIMIT), np.stack([rgb[..., 1]] * 3, -1))


def test_a_compressed_mosaic_needs_neighbours_on_all_sides() -> None:
    data = cv2.imencode(".png", np.zeros((2, 8), np.uint8))[1].tobytes()
    with pytest.raises(BadImage, match="bayer_rggb8 needs at least 3 pixels") as caught:
        decode_compressed(CompressedImage(format="bayer_rggb8; png compressed ", data=data), LIMIT)
    assert caught.value.reason == "size"


def test_compressed_depth_without_its_transport_is_reported() -> None:
    data = cv2.imencode(".png", np.full((4, 4), 16000, np.uint16))[1].tobytes()
    sent = CompressedImage(format="16UC1; png compressed ", data=data)
    text, brightest = decode_compressed(sent, LIMIT).range_problem(0)
    assert (brightest, "16UC1 is the encoding of depth images" in text) == (0, True)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_compression_bomb_is_refused_before_it_is_decoded(extension: str) -> None:
    small = compressed(extension, np.zeros((400, 500, 3), np.uint8))
    assert len(small.data) < 10_000
    with pytest.raises(
        BadImage, match="500x400 pixels, 600000 bytes when decoded, over the limit of 10000"
    ):
        compressed_to_rgb(small, 10_000)
    with pytest.raises(BadImage, match="over the limit of 100"):
        compressed_to_rgb(small, 100)


def test_an_image_message_has_the_pixels_and_the_header() -> None:
    for pixels, encoding, step in ((RGB, "rgb8", 24), (GREY, "mono8", 8)):
        made = image_message(pixels, encoding, header(3))
        assert (made.width, made.height, made.step, made.encoding) == (8, 6, step, encoding)
        assert made.header == header(3)
        assert bytes(made.data) == pixels.tobytes()
