"""Masks align with frames: a one-pixel mark comes back in its place, in every resize mode."""

from collections.abc import Sequence

import numpy as np
import pytest
from red_engine import RED
from ros_harness import SUBSTITUTE, StartBench, header, pixels_of, rgb_image

from camseg_core.labels import UNLABELLED
from camseg_core.runtime import Fit
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.weights import CAMSEG_LITE

SIZES = [(1, 1), (33, 71), (97, 1), (227, 320), (479, 641), (480, 640), (1080, 1920)]
ROI = (0.1, 0.4, 0.9, 0.95)
FITS = [Fit(), Fit("stretch"), Fit("crop", ROI)]

SEES_MARKS = (*SUBSTITUTE, "--threshold", "2", "--max-upscale", "2")
"""The faintest that a red pixel can become: a quarter each way of a sixteenth, in a 1080p frame."""


def parameters(fit: Fit, output: str = "camera") -> Sequence[str]:
    return (
        f"resize_mode:={fit.mode}",
        f"roi:=[{', '.join(map(str, fit.roi))}]",
        f"output_size:={output}",
    )


def geometry_of(size: tuple[int, int], fit: Fit) -> FrameGeometry:
    return FrameGeometry.fit(*size, CAMSEG_LITE.network_pixels, CAMSEG_LITE.size_multiple, fit, 2.0)


def marks(geometry: FrameGeometry) -> list[tuple[int, int]]:
    """Row and column of pixels in the region that is looked at: its corners and some between."""
    (top, left), (height, width) = geometry.corner, geometry.region
    inside = (
        np.random.default_rng(0)
        .integers((top, left), (top + height, left + width), (4, 2))
        .tolist()
    )
    return [
        (top, left),
        (top + height - 1, left + width - 1),
        (top, left + width - 1),
        *map(tuple, inside),
    ]


def marked(size: tuple[int, int], mark: tuple[int, int]) -> np.ndarray:
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[mark] = 255, 0, 0
    return rgb


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.mode)
def test_a_mark_of_one_pixel_comes_back_where_it_is(start_bench: StartBench, fit: Fit) -> None:
    bench = start_bench(*parameters(fit), program=SEES_MARKS)
    for size in SIZES:
        geometry = geometry_of(size, fit)
        block = np.array(geometry.region) / geometry.scaled
        for number, mark in enumerate(marks(geometry)):
            (answer,) = bench.ask(rgb_image(marked(size, mark), number))
            mask = pixels_of(answer)
            assert answer.header == header(number)
            assert mask.shape == size
            assert mask[mark] == RED, (size, mark)
            off = np.argwhere(mask == RED) - mark
            if geometry.scaled == geometry.region:
                assert off.tolist() == [[0, 0]]
            # it lies in one network pixel or, along each axis, over two
            assert (np.abs(off) <= np.maximum(1, 2 * block)).all(), (size, mark)
            looked_at = np.zeros(size, np.bool_)
            (top, left), (height, width) = geometry.corner, geometry.region
            looked_at[top : top + height, left : left + width] = True
            assert ((mask == UNLABELLED) == ~looked_at).all()


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.mode)
def test_a_mark_comes_back_in_a_mask_of_the_networks_size(
    start_bench: StartBench, fit: Fit
) -> None:
    bench = start_bench(*parameters(fit, "network"), program=SEES_MARKS)
    for size in SIZES:
        geometry = geometry_of(size, fit)
        block = np.array(geometry.region) / geometry.scaled
        for number, mark in enumerate(marks(geometry)):
            (answer,) = bench.ask(rgb_image(marked(size, mark), number))
            mask = pixels_of(answer)
            assert mask.shape == geometry.scaled
            there = (
                np.array(mark) + 0.5 - geometry.corner
            ) / block - 0.5  # centres of pixels, to centres
            assert mask[tuple(np.floor(there + 0.5).astype(int))] == RED, (size, mark)
            assert (np.abs(np.argwhere(mask == RED) - there) <= np.maximum(1, 1 / block)).all(), (
                size,
                mark,
            )


def test_the_resizing_may_change_between_two_frames(start_bench: StartBench) -> None:
    bench = start_bench(program=SEES_MARKS)
    size, mark = (479, 641), (300, 320)
    for number, fit in enumerate([*FITS, Fit()]):
        steps = [("roi", list(fit.roi)), ("resize_mode", fit.mode)]
        # crop has to come before its region, and the region of others after they left it
        for name, value in steps[::-1] if fit.mode == "crop" else steps:
            assert bench.set_parameter(name, value) == (True, "")
        (answer,) = bench.ask(rgb_image(marked(size, mark), number))
        assert pixels_of(answer)[mark] == RED
        assert (pixels_of(answer)[0, 0] == UNLABELLED) == (fit.mode == "crop")
