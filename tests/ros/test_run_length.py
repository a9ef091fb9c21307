"""Run-length masks: the bytes are those of Autoware's encoder, and every mask comes back."""

import struct

import numpy as np
import pytest
from ros_harness import header
from run_length_decoder import decode

from camseg_core.errors import ImageError
from camseg_ros.messages import run_length_message, run_lengths


def autoware_bytes(mask: np.ndarray) -> bytes:
    """Encode pixel by pixel, like the C++ encoder's loop on a little-endian machine."""
    runs: list[list[int]] = [[int(mask[0, 0]), 0]]
    for value in mask.reshape(-1).tolist():
        if value == runs[-1][0]:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return b"".join(struct.pack("<Bi", value, length) for value, length in runs)


def masks() -> dict[str, np.ndarray]:
    """Masks of many shapes and run counts."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[0:31, 0:40]
    found = {
        "one pixel": np.array([[7]], np.uint8),
        "constant": np.full((30, 41), 255, np.uint8),
        "checkerboard": ((x + y) % 2).astype(np.uint8),
        "one row": random.integers(0, 3, (1, 500)).astype(np.uint8),
        "one column": random.integers(0, 3, (500, 1)).astype(np.uint8),
        "a view with gaps": random.integers(0, 4, (20, 60)).astype(np.uint8)[::2, ::3],
    }
    for _ in range(20):
        height, width, classes = (int(n) for n in random.integers((1, 1, 1), (25, 70, 257)))
        found[f"random {height}x{width}, {classes} ids"] = random.integers(
            0, classes, (height, width)
        ).astype(np.uint8)
    return found


@pytest.mark.parametrize("mask", masks().values(), ids=masks().keys())
def test_the_bytes_are_autowares_and_decode_to_the_mask(mask: np.ndarray) -> None:
    data = run_lengths(mask)
    assert data.dtype == np.uint8
    assert data.tobytes() == autoware_bytes(mask)
    back = decode(data, *mask.shape)
    assert back.dtype == np.uint8
    assert np.array_equal(back, mask)


def test_a_run_goes_on_in_the_next_row() -> None:
    assert run_lengths(np.array([[1, 2], [2, 2]], np.uint8)).tolist() == [
        1,
        1,
        0,
        0,
        0,
        2,
        3,
        0,
        0,
        0,
    ]


def test_a_run_may_be_longer_than_three_bytes_can_count() -> None:
    mask = np.full((4100, 4100), 3, np.uint8)
    assert run_lengths(mask).tolist() == [3, *(4100 * 4100).to_bytes(4, "little")]
    assert np.array_equal(decode(run_lengths(mask), 4100, 4100), mask)


def test_the_message_says_mono8_with_the_masks_own_size() -> None:
    mask = np.repeat(np.arange(6, dtype=np.uint8), 8).reshape(6, 8)
    message = run_length_message(mask, header(4))
    assert (
        message.height,
        message.width,
        message.step,
        message.encoding,
        message.is_bigendian,
    ) == (6, 8, 8, "mono8", 0)
    assert message.header == header(4)
    assert len(message.data) == 6 * 5
    assert np.array_equal(decode(message.data, message.height, message.width), mask)


def runs(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<Bi", *pair) for pair in pairs)


@pytest.mark.parametrize(
    ("data", "height", "width", "text"),
    [
        (runs((1, 6)), 0, 6, "no pixels"),
        (runs((1, 6)), 2, -3, "no pixels"),
        (b"", 2, 3, "runs for 0 pixels, needs 6"),
        (runs((1, 6))[:-1], 2, 3, "4 bytes, which is not a whole number of runs of 5"),
        (runs((1, 5)), 2, 3, "runs for 5 pixels, needs 6"),
        (runs((1, 5), (2, 2)), 2, 3, "runs for 7 pixels, needs 6"),
        (runs((1, 6), (2, 0)), 2, 3, "a run of 0 pixels"),
        (runs((1, 8), (2, -2)), 2, 3, "a run of -2 pixels"),
        (runs(*[(1, 2**31 - 1)] * 4), 2, 3, "runs for 8589934588 pixels"),
        (runs((1, 2**31 - 1)), 1, 2**31 - 1, "over the limit of 100000000 pixels"),
    ],
)
def test_runs_that_do_not_make_the_mask_are_refused(
    data: bytes, height: int, width: int, text: str
) -> None:
    with pytest.raises(ImageError, match=text):
        decode(data, height, width)


def test_the_limit_is_the_callers() -> None:
    assert decode(runs((1, 6)), 2, 3, max_pixels=6).tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(ImageError, match="over the limit of 5 pixels"):
        decode(runs((1, 6)), 2, 3, max_pixels=5)
