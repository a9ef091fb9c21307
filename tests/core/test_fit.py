"""Frames through every mode of resizing: what is seen at a pixel comes back at that pixel."""

import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from red_engine import RED, SCALED_DOWN, RedEngine, red_segmenter

from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED
from camseg_core.noise_filter import without_grain
from camseg_core.runtime import Fit, Segmentation, View
from camseg_core.runtime.geometry import FrameGeometry, scaled_ids
from camseg_core.weights import CAMSEG_LITE

AREA, MULTIPLE = CAMSEG_LITE.network_pixels, CAMSEG_LITE.size_multiple
SIZES = [
    (1, 1),
    (1, 97),
    (700, 1),
    (33, 71),
    (96, 64),
    (360, 480),
    (479, 641),
    (480, 640),
    (1080, 1920),
    (3, 4000),
]
FITS = [
    Fit(),
    Fit("stretch"),
    Fit("crop"),
    Fit("crop", (0.0, 0.3, 1.0, 0.85)),
    Fit("crop", (0.21, 0.4, 0.77, 0.6)),
]


def geometry_of(size: tuple[int, int], fit: Fit) -> FrameGeometry:
    return FrameGeometry.fit(*size, AREA, MULTIPLE, fit)


def inside(geometry: FrameGeometry) -> tuple[slice, slice]:
    """The region of interest in the camera's picture."""
    (top, left), (height, width) = geometry.corner, geometry.region
    return slice(top, top + height), slice(left, left + width)


def block(geometry: FrameGeometry) -> npt.NDArray[np.float64]:
    """Height and width of a network pixel in the camera's pixels."""
    return np.array(geometry.region) / geometry.scaled


def segmented(rgb: npt.NDArray[np.uint8], fit: Fit) -> Segmentation:
    """The result if a network pixel is red where half a red pixel lies in it along each axis."""
    share = np.minimum(1, 1 / block(geometry_of(rgb.shape[:2], fit)))
    return red_segmenter(RedEngine(threshold=255 * 0.24 * share.prod())).segment(rgb, fit)


def marks(geometry: FrameGeometry, count: int = 8) -> npt.NDArray[np.int64]:
    """Rows and columns of pixels in the region, its corners among them."""
    (top, left), (height, width) = geometry.corner, geometry.region
    anywhere = np.random.default_rng(0).integers(
        (top, left), (top + height, left + width), (count, 2)
    )
    return np.concatenate(
        [[(top, left), (top + height - 1, left + width - 1), (top, left + width - 1)], anywhere]
    )


def marked(size: tuple[int, int], mark: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[tuple(mark)] = 255, 0, 0
    return rgb


@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_marked_pixel_comes_back_where_it_is(size: tuple[int, int], fit: Fit) -> None:
    geometry, off = geometry_of(size, fit), []
    unscaled = geometry.scaled == geometry.region
    for mark in marks(geometry):
        mask = segmented(marked(size, mark), fit).mask
        assert mask.shape == size
        found = np.argwhere(mask == RED)
        assert mask[tuple(mark)] == RED
        if unscaled:
            assert found.tolist() == [mark.tolist()]
        # it lies in one network pixel or, along each axis, over two
        assert (np.abs(found - mark) <= np.maximum(1, 2 * block(geometry))).all()
        off.append(found.mean(axis=0) - mark)
        assert (np.abs(off[-1]) <= np.maximum(1, block(geometry)) / 2 + 0.5).all()


@pytest.mark.parametrize("fit", FITS[:4], ids=str)
@pytest.mark.parametrize("size", [(479, 641), (1080, 1920), (33, 2900), (20, 700)])
def test_nothing_drifts_to_one_side(size: tuple[int, int], fit: Fit) -> None:
    geometry = geometry_of(size, fit)
    off = [
        np.argwhere(segmented(marked(size, mark), fit).mask == RED).mean(axis=0) - mark
        for mark in marks(geometry, 60)[3:]
    ]
    assert (np.abs(np.mean(off, axis=0)) < 0.15 * np.maximum(1, block(geometry))).all()


@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", [(33, 71), (479, 641), (1080, 1920)])
def test_thin_lines_come_back_whole_and_thin(size: tuple[int, int], fit: Fit) -> None:
    geometry = geometry_of(size, fit)
    rows, columns = inside(geometry)
    row, column = marks(geometry)[-1]
    for line in (np.s_[row, :], np.s_[:, column]):
        rgb = np.zeros((*size, 3), np.uint8)
        rgb[line] = 255, 0, 0
        true = rgb[rows, columns, 0] > 0
        found = segmented(rgb, fit).mask[rows, columns] == RED
        assert found[true].all()
        across = 1 if line[0] == slice(None) else 0
        distance = np.abs(np.argwhere(found)[:, across] - np.argwhere(true)[0, across])
        assert distance.max() <= max(1, 2 * block(geometry)[across])
        if geometry.scaled == geometry.region:
            assert np.array_equal(found, true)


@pytest.mark.parametrize("size", SIZES)
def test_an_unscaled_frame_comes_back_exactly(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    config = replace(SCALED_DOWN, network_pixels=4000 * 4000)
    for fit in FITS:
        if fit.mode == "stretch":
            continue
        result = red_segmenter(RedEngine(), config).segment(rgb, fit)
        where = inside(geometry_of(size, fit))
        assert np.array_equal(result.mask[where], np.where(rgb[..., 0] > 128, RED, 0)[where])
        assert np.array_equal(
            result.confidence[where], (rgb[..., 2] / 255).astype(np.float32)[where]
        )


@pytest.mark.parametrize("size", [(1, 1), (33, 71), (479, 641), (1080, 1920)])
def test_outside_the_region_of_interest_nothing_is_known(size: tuple[int, int]) -> None:
    fit = Fit("crop", (0.25, 0.5, 0.75, 0.875))
    rgb = np.full((*size, 3), 255, np.uint8)
    result, where = segmented(rgb, fit), inside(geometry_of(size, fit))
    known = np.zeros(size, np.bool_)
    known[where] = True
    assert known.any()
    assert (known.mean() < 1) == (size != (1, 1))
    assert np.array_equal(result.mask, np.where(known, RED, UNLABELLED))
    assert np.array_equal(result.confidence, known.astype(np.float32))


@pytest.mark.parametrize(
    ("roi", "size", "corner", "region"),
    [
        ((0.0, 0.0, 1.0, 1.0), (7, 9), (0, 0), (7, 9)),
        ((0.25, 0.5, 0.75, 1.0), (8, 12), (4, 3), (4, 6)),
        ((0.999, 0.999, 1.0, 1.0), (7, 9), (6, 8), (1, 1)),
        ((0.5, 0.5, 0.5001, 0.5001), (10, 10), (5, 5), (1, 1)),
        ((0.4, 0.4, 0.6, 0.6), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_the_region_is_rounded_to_pixels_and_never_empty(
    roi: tuple[float, float, float, float],
    size: tuple[int, int],
    corner: tuple[int, int],
    region: tuple[int, int],
) -> None:
    geometry = geometry_of(size, Fit("crop", roi))
    assert (geometry.corner, geometry.region) == (corner, region)


@pytest.mark.parametrize(
    "size", [*SIZES, (1, 100_000), (3000, 5000), (31, 33), (376, 1241), (720, 1280)]
)
def test_a_stretched_frame_fills_what_the_network_takes(size: tuple[int, int]) -> None:
    geometry = geometry_of(size, Fit("stretch"))
    assert geometry.scaled == geometry.padded
    assert not any(side % MULTIPLE for side in geometry.padded)
    assert geometry.padded[0] * geometry.padded[1] <= AREA
    if size[0] * size[1] > AREA and min(size) > 300:
        assert geometry.padded[0] * geometry.padded[1] > 0.85 * AREA
    for there, here in zip(geometry.padded, size, strict=True):
        assert there <= max(here, MULTIPLE)  # blown up only to the smallest that the network takes
    engine = RedEngine()
    red_segmenter(engine).segment(np.zeros((*size, 3), np.uint8), Fit("stretch"))
    assert engine.seen[0].shape == (1, *geometry.padded, 3)


def test_stretching_an_area_of_the_networks_own_shape_loses_no_pixels() -> None:
    for times in (1, 2, 3, 5, 7):
        assert FrameGeometry.fit(
            320 * times, 480 * times, 320 * 480, 32, Fit("stretch")
        ).padded == (
            320,
            480,
        )


@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_at_the_networks_size_says_where_its_pixels_lie(
    size: tuple[int, int], fit: Fit
) -> None:
    fit = replace(fit, output="network")
    geometry = geometry_of(size, fit)
    for mark in marks(geometry):
        result = segmented(marked(size, mark), fit)
        assert result.mask.shape == result.confidence.shape == geometry.scaled
        x, y = result.view.to_mask(mark[1], mark[0])
        assert -0.5 <= x <= geometry.scaled[1] - 0.5
        assert -0.5 <= y <= geometry.scaled[0] - 0.5
        view = result.view
        assert (x + 0.5) / view.scale_x - 0.5 + view.left == pytest.approx(mark[1])
        assert (y + 0.5) / view.scale_y - 0.5 + view.top == pytest.approx(mark[0])
        found = np.argwhere(result.mask == RED)
        assert result.mask[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] == RED
        assert (np.abs(found - (y, x)) <= np.maximum(1, 1 / block(geometry))).all()


@pytest.mark.parametrize(
    ("here", "there"), [(5344, 100_000), (1300, 4001), (554, 1920), (64, 20), (3, 3), (1, 5)]
)
def test_ids_are_those_of_the_pixel_in_which_a_centre_lies_to_the_last(
    here: int, there: int
) -> None:
    ids = np.random.default_rng(0).integers(0, 256, (here, 2)).astype(np.uint8)
    found = scaled_ids(ids, (there, 4))
    pick = random.Random(0).sample(range(there), min(there, 500))
    for row in (*pick, there - 1):
        assert (
            found[row].tolist()
            == np.repeat(ids[math.floor(Fraction(2 * row + 1, 2) * here / there)], 2).tolist()
        )


def test_a_mask_at_the_cameras_size_is_in_its_pixels_for_every_region() -> None:
    for fit in FITS:
        assert segmented(np.zeros((479, 641, 3), np.uint8), fit).view == View()


@pytest.mark.parametrize("fit", FITS, ids=str)
def test_the_picture_under_a_mask_is_what_the_network_saw(fit: Fit) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (479, 641, 3)).astype(np.uint8)
    for output in ("camera", "network"):
        engine = RedEngine()
        result = red_segmenter(engine).segment(rgb, replace(fit, output=output))
        picture = result.view.picture(rgb, result.mask.shape)
        height, width = result.mask.shape
        assert np.array_equal(
            picture, rgb if output == "camera" else engine.seen[0][0, :height, :width]
        )


def test_frames_of_one_size_at_the_network_share_a_batch_with_any_fit() -> None:
    frames = [np.full((480, 640, 3), value, np.uint8) for value in (0, 200, 90)] + [
        np.full((240, 640, 3), 220, np.uint8)
    ]
    fits = [Fit(), Fit(output="network"), Fit("stretch"), Fit("crop", (0.0, 0.0, 0.5, 1.0))]
    engine = RedEngine()
    results = red_segmenter(engine).segment_batch(frames, fits)
    assert [len(batch) for batch in engine.seen] == [2, 1, 1]
    for frame, fit, result in zip(frames, fits, results, strict=True):
        alone = red_segmenter(RedEngine()).segment(frame, fit)
        assert np.array_equal(result.mask, alone.mask)
        assert result.view == alone.view


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"mode": "squeeze"},
            "resize mode must be one of letterbox, stretch, crop, got 'squeeze'",
        ),
        ({"output": "screen"}, "output must be one of camera, network, got 'screen'"),
        ({"roi": (0.0, 0.2, 1.0, 1.0)}, "roi needs mode crop, not letterbox"),
        ({"mode": "stretch", "roi": (0.0, 0.2, 1.0, 1.0)}, "roi needs mode crop, not stretch"),
        (
            {"mode": "crop", "roi": (0.5, 0.0, 0.5, 1.0)},
            "roi must be left, top, right, bottom as shares .*, got 0.5, 0.0, 0.5, 1.0$",
        ),
        ({"mode": "crop", "roi": (0.0, 0.9, 1.0, 0.1)}, "roi must be .*, got 0.0, 0.9, 1.0, 0.1$"),
        ({"mode": "crop", "roi": (0.0, 0.0, 1.0, 1.5)}, "roi must be .*, got 0.0, 0.0, 1.0, 1.5$"),
        (
            {"mode": "crop", "roi": (0.0, float("nan"), 1.0, 1.0)},
            "roi must be .*, got 0.0, nan, 1.0, 1.0$",
        ),
        ({"mode": "crop", "roi": (0.0, 0.0, 1.0)}, "roi must be .*, got 0.0, 0.0, 1.0$"),
        ({"mode": "crop", "roi": ()}, "roi must be .*, got nothing$"),
    ],
)
def test_what_fits_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Fit(**options)


SMALL = [(1, 1), (7, 400), (33, 71), (96, 64), (227, 320), (256, 512), (359, 479)]


@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", SMALL)
def test_a_smaller_frame_is_enlarged_up_to_the_factor_and_the_networks_area(
    size: tuple[int, int], fit: Fit
) -> None:
    kept = geometry_of(size, fit)
    for factor in (1.25, 2.0, 4.0):
        geometry = FrameGeometry.fit(*size, AREA, MULTIPLE, fit, factor)
        grown = np.array(geometry.scaled) / geometry.region
        if fit.mode != "stretch":
            assert (grown <= factor + 0.5 / np.array(geometry.region)).all()
            reached = math.isclose(grown.max(), factor, rel_tol=0.1)
            assert reached or math.prod(geometry.padded) > 0.75 * AREA or min(size) < 10
        assert math.prod(geometry.scaled) <= 1.02 * AREA
        assert math.prod(geometry.scaled) >= math.prod(kept.scaled)


@pytest.mark.parametrize("output", ["camera", "network"])
@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", SMALL)
def test_what_is_seen_in_an_enlarged_frame_comes_back_where_it_is(
    size: tuple[int, int], fit: Fit, output: str
) -> None:
    fit = replace(fit, output=output)
    config = replace(SCALED_DOWN, max_upscale=2.0)
    segmenter = red_segmenter(RedEngine(threshold=254), config)
    inner = inside(geometry_of(size, fit))
    for row, column in marks(geometry_of(size, fit)):
        rgb = np.zeros((*size, 3), np.uint8)
        # red for two pixels around, so that interpolation leaves the marked pixel all red
        rgb[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3, 0] = 255
        result = segmenter.segment(rgb, fit)
        if output == "camera":
            assert result.mask.shape == size
            assert result.mask[row, column] == RED
            assert not (result.mask == RED)[inner][rgb[inner][..., 0] == 0].any()
        else:
            x, y = result.view.to_mask(column, row)
            assert result.mask[round(y), round(x)] == RED


def test_noise_of_a_small_frame_is_removed_before_it_is_enlarged() -> None:
    rng = np.random.default_rng(0)
    rgb = np.clip(rng.normal(120, 60, (120, 160, 3)), 0, 255).astype(np.uint8)
    geometry = FrameGeometry.fit(120, 160, AREA, MULTIPLE, max_upscale=2.0)
    picture, noisy = geometry.to_network(rgb, noise_filter=True)
    assert noisy
    smooth = without_grain(rgb)
    assert np.array_equal(picture[:240, :320], cv2.resize(smooth, (320, 240)))
