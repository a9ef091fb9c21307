"""The disturbances: seeded, of the stated effect, and rising with their level."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from camseg_core.data.corruptions import COMMON
from camseg_core.data.disturbances import PAPER, Disturbance
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, ImageError

BY_NAME = {each.name: each for each in PAPER}
COMMON_BY_NAME = {each.name: each for each in COMMON}
ALL = [
    pytest.param(each, id=f"{family}-{each.name}")
    for family, of in (("paper", PAPER), ("common", COMMON))
    for each in of
]
DETERMINISTIC = {
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "gaussian_blur",
    "defocus_blur",
    "zoom_blur",
    "pixelate",
    "jpeg_compression",
    "saturate",
}
"""Disturbances without random numbers."""
RISE_OTHERWISE = {"fog", "snow", "spatter", "frost_drawn", "saturate"}
"""Their published constants do not rise in effect with severity; each has a test of its own."""
RISING = [
    each
    for each in ALL
    if not (each.values[0] in COMMON and each.id.partition("-")[2] in RISE_OTHERWISE)
]


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    drive = SyntheticDrive(frames=3, height=180, width=240, fps=0.2)
    return [sample.image for sample in drive]


def grey(height: int = 200, width: int = 200, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def disturb(name: str, rgb: np.ndarray, level: float, frame: str = "frame") -> np.ndarray:
    return BY_NAME[name](rgb, level, seed=0, frame=frame)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def sharpness(rgb: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


@pytest.mark.parametrize("disturbance", ALL)
def test_seed_level_and_frame_determine_every_byte(
    disturbance: Disturbance, frames: list[np.ndarray]
) -> None:
    rgb = frames[0][:64, :80].copy()
    before = rgb.copy()
    made = {level: disturbance(rgb, level, seed=3, frame="a") for level in disturbance.levels}
    for level in reversed(disturbance.levels):
        np.random.default_rng().random()
        disturbance(rgb, disturbance.levels[0], seed=9, frame="other")
        assert disturbance(rgb, level, seed=3, frame="a").tobytes() == made[level].tobytes()
    for picture in made.values():
        assert picture.shape == rgb.shape
        assert picture.dtype == np.uint8
    assert np.array_equal(rgb, before)
    changed = [
        disturbance(rgb, disturbance.shown, seed=seed, frame=frame).tobytes()
        for seed, frame in ((3, "a"), (4, "a"), (3, "b"))
    ]
    assert len(set(changed)) == (1 if disturbance.name in DETERMINISTIC else 3)


@pytest.mark.parametrize("disturbance", ALL)
def test_the_clean_level_changes_nothing_and_every_other_something(
    disturbance: Disturbance, frames: list[np.ndarray]
) -> None:
    clean = disturbance(frames[0], disturbance.clean, seed=0, frame="a")
    assert np.array_equal(clean, frames[0])
    assert clean is not frames[0]
    assert all(
        distance(disturbance(frames[0], level, seed=0, frame="a"), clean) > 0.3
        for level in disturbance.levels
    )
    assert disturbance.shown in disturbance.levels
    assert list(disturbance.levels) == sorted(disturbance.levels)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (37, 3)])
@pytest.mark.parametrize("disturbance", ALL)
def test_any_size_can_be_disturbed(disturbance: Disturbance, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for level in disturbance.levels:
        assert disturbance(rgb, level, seed=0, frame="a").shape == rgb.shape


@pytest.mark.parametrize("disturbance", RISING)
def test_the_farther_the_level_the_farther_the_picture(
    disturbance: Disturbance, frames: list[np.ndarray]
) -> None:
    def mean_distance(level: float) -> float:
        return float(
            np.mean(
                [
                    distance(disturbance(rgb, level, seed=0, frame=str(i)), rgb)
                    for i, rgb in enumerate(frames)
                ]
            )
        )

    above = [mean_distance(level) for level in disturbance.levels if level > disturbance.clean]
    below = [
        mean_distance(level) for level in reversed(disturbance.levels) if level < disturbance.clean
    ]
    # pixelating by 0.5 matches the pixel grid and by 0.6 does not, which outweighs the factor
    slack = 0.93 if disturbance.name == "pixelate" else 1.0
    for way in (above, below):
        assert all(farther > slack * nearer for nearer, farther in pairwise(way)), way
    assert above[-1] > 1.2 * above[0]


@pytest.mark.parametrize("level", [5, 15, 30])
def test_gaussian_noise_has_the_stated_deviation(level: int) -> None:
    noise = disturb("gaussian_noise", grey(), level).astype(float) - 128
    assert noise.std() == pytest.approx(level, rel=0.02)
    assert abs(noise.mean()) < 0.02 * level
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02, (
        "every channel has its own"
    )


@pytest.mark.parametrize("level", BY_NAME["salt_and_pepper"].levels)
def test_salt_and_pepper_replaces_the_stated_share_half_white_half_black(level: float) -> None:
    picture = disturb("salt_and_pepper", grey(400, 400), level)
    white, black = (np.mean((picture == value).all(2)) for value in (255, 0))
    assert 100 * (white + black) == pytest.approx(level, rel=0.05)
    assert white == pytest.approx(black, rel=0.1)
    assert np.mean((picture == 128).all(2)) == pytest.approx(1 - white - black)


@pytest.mark.parametrize("level", [1, 2, 5])
def test_gaussian_blur_spreads_a_point_by_the_stated_deviation(level: int) -> None:
    square = np.zeros((121, 121, 3), np.uint8)
    square[50:71, 50:71] = 255
    x = np.arange(121) - 60
    spread = disturb("gaussian_blur", square, level)[60, :, 0].astype(float)
    original = (21**2 - 1) / 12
    assert (x * x * spread).sum() / spread.sum() - original == pytest.approx(level**2, rel=0.05)


@pytest.mark.parametrize("level", [9, 21])
def test_motion_blur_draws_a_point_out_to_a_line_of_the_stated_length(level: int) -> None:
    dot = np.zeros((81, 81, 3), np.uint8)
    dot[40, 40] = 255
    angles = []
    for frame in "abcdef":
        drawn = disturb("motion_blur", dot, level, frame)[..., 0].astype(float)
        y, x = (axis - 40 for axis in np.mgrid[:81, :81])
        covariance = (
            np.array([[(drawn * a * b).sum() for a in (x, y)] for b in (x, y)]) / drawn.sum()
        )
        across, along = np.linalg.eigvalsh(covariance)
        assert along == pytest.approx((level**2 - 1) / 12, rel=0.12)
        assert across < 0.6
        assert drawn.sum() == pytest.approx(255, rel=0.15)
        angles.append(round(float(np.arctan2(*np.linalg.eigh(covariance)[1][:, 1])), 1))
    assert len(set(angles)) > 3, "every frame has its own direction"


def test_blurs_take_variance_and_leave_the_mean(frames: list[np.ndarray]) -> None:
    for name in ("gaussian_blur", "motion_blur"):
        variances = [frames[0].var()] + [
            disturb(name, frames[0], level).var() for level in BY_NAME[name].levels
        ]
        assert variances == sorted(variances, reverse=True), name
        assert disturb(name, frames[0], BY_NAME[name].levels[2]).mean() == pytest.approx(
            frames[0].mean(), rel=0.05
        )


def test_brightness_scales_the_values_and_contrast_their_distance_from_the_mean() -> None:
    rgb = np.random.default_rng(0).integers(60, 160, (100, 100, 3), np.uint8)
    for level in BY_NAME["brightness"].levels:
        assert disturb("brightness", rgb, level).mean() == pytest.approx(
            level * rgb.mean(), rel=0.01
        )
        changed = disturb("contrast", rgb, level)
        assert changed.mean() == pytest.approx(rgb.mean(), rel=0.01)
        assert changed.std() == pytest.approx(level * rgb.std(), rel=0.02)


def test_saturation_scales_the_distance_from_grey(frames: list[np.ndarray]) -> None:
    without = disturb("saturation", frames[0], 0)
    assert np.ptp(without, axis=2).max() == 0
    assert distance(without[..., 0], cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)) < 0.6
    colourful = np.random.default_rng(0).integers(100, 150, (50, 50, 3), np.uint8)
    for level in (0.5, 1.5, 2):
        assert np.ptp(
            disturb("saturation", colourful, level).astype(float), axis=2
        ).mean() == pytest.approx(level * np.ptp(colourful.astype(float), axis=2).mean(), rel=0.03)


@pytest.mark.parametrize("level", BY_NAME["hue"].levels)
def test_hue_is_turned_by_the_stated_part_of_a_turn(level: float) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    rgb[..., 0] |= 128  # not grey
    rgb[..., 2] &= 63
    before, after = (
        cv2.cvtColor(each.astype(np.float32), cv2.COLOR_RGB2HSV)
        for each in (rgb, disturb("hue", rgb, level))
    )
    turned = (after[..., 0] - before[..., 0] + 180) % 360 - 180
    assert np.median(turned) == pytest.approx(360 * level, abs=0.5)
    assert np.abs(after[..., 2] - before[..., 2]).max() <= 1


def common(name: str, rgb: np.ndarray, severity: int, frame: str = "frame") -> np.ndarray:
    return COMMON_BY_NAME[name](rgb, severity, seed=0, frame=frame)


def test_common_noises_have_the_published_strength() -> None:
    assert [
        common("gaussian_noise", grey(), s).astype(float).std() for s in (1, 2)
    ] == pytest.approx([0.08 * 255, 0.12 * 255], rel=0.03)
    assert common("speckle_noise", grey(), 1).astype(float).std() == pytest.approx(
        0.15 * 128, rel=0.03
    )
    # the deviation of n photons is its root: a value v of 255 has v/255*60 of them
    assert common("shot_noise", grey(), 1).astype(float).std() == pytest.approx(
        255 * np.sqrt(128 / 255 * 60) / 60, rel=0.03
    )
    changed = common("impulse_noise", grey(), 5)
    assert np.isin(changed, (0, 255)).mean() == pytest.approx(0.27, rel=0.05)
    assert (changed == 255).any(2).mean() > (changed == 255).all(2).mean(), "channels by themselves"


def test_common_blurs_and_codecs_take_detail(frames: list[np.ndarray]) -> None:
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"):
        assert sharpness(common(name, frames[0], 5)) < 0.6 * sharpness(frames[0]), name
    coarse = common("pixelate", frames[0], 5)
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= 45 * 60
    qualities = [common("jpeg_compression", frames[0], severity) for severity in (1, 5)]
    assert distance(qualities[0], frames[0]) < distance(qualities[1], frames[0])


def test_glass_blur_only_moves_what_is_near() -> None:
    halves = grey()
    halves[:, :100], halves[:, 100:] = 0, 255
    changed = common("glass_blur", halves, 5)
    assert changed[:, :80].max() == 0
    assert changed[:, 120:].min() == 255
    assert 0 < changed[:, 99].mean() < 255


def test_elastic_transform_moves_pixels_by_few_and_makes_no_new_values() -> None:
    ramp = np.repeat(np.tile(np.arange(0, 200, dtype=np.uint8), (200, 1))[..., None], 3, axis=2)
    moved = [
        np.abs(
            common("elastic_transform", ramp, severity)[20:-20, 20:-20].astype(float)
            - ramp[20:-20, 20:-20]
        )
        for severity in (1, 5)
    ]
    assert 0.2 < moved[0].mean() < moved[1].mean() < 5
    assert moved[1].max() < 15


@pytest.mark.parametrize(("severity", "amount"), [(1, 1.5), (2, 2), (3, 2.5), (4, 2.5), (5, 3)])
def test_fog_adds_the_published_amount_of_cloud_and_takes_contrast_for_it(
    severity: int, amount: float
) -> None:
    darker, lighter = grey(value=60), grey(value=140)
    darker[0, 0] = lighter[0, 0] = 255  # what is brightest stays so
    foggy = [common("fog", each, severity).astype(float) for each in (darker, lighter)]
    assert np.median(foggy[1] - foggy[0]) == pytest.approx(80 / (1 + amount), abs=1)
    assert np.ptp(foggy[0][1:]) > 0.8 * 255 * amount / (1 + amount), (
        "from where there is no cloud to where it is densest"
    )


def test_snow_and_frost_whiten_and_mud_darkens(frames: list[np.ndarray]) -> None:
    dark = frames[0] // 3
    for name in ("snow", "frost_drawn"):
        assert all(common(name, dark, severity).mean() > dark.mean() + 10 for severity in (1, 5)), (
            name
        )
    edges = np.mean(
        [common("frost_drawn", grey(value=0), 3, str(i)).mean(2) for i in range(6)], axis=0
    )
    assert edges[:20].mean() > 1.1 * edges[80:120, 80:120].mean(), "ice grows from the edges"
    bright = grey(value=230)
    mud, water = common("spatter", bright, 5), common("spatter", frames[0] // 3, 2)
    assert mud.min() < 60
    assert 0.01 < (mud.mean(2) < 200).mean() < 0.5
    assert 0.01 < (water.astype(int) - frames[0] // 3 > 20).any(2).mean() < 0.5


def test_saturate_pales_first_and_is_gaudy_later(frames: list[np.ndarray]) -> None:
    spread = [
        np.ptp(rgb.astype(int), axis=2).mean()
        for rgb in (frames[0], *(common("saturate", frames[0], s) for s in range(1, 6)))
    ]
    assert spread[2] < spread[1] < spread[0] < spread[3] < spread[4] < spread[5]


def test_common_brightness_and_contrast_have_the_published_constants() -> None:
    assert common("brightness", grey(value=100), 2).mean() == pytest.approx(100 + 0.2 * 255, abs=1)
    rgb = np.random.default_rng(0).integers(50, 200, (80, 80, 3), np.uint8)
    assert common("contrast", rgb, 1).std() == pytest.approx(0.4 * rgb.std(), rel=0.05)


def test_unknown_levels_and_other_arrays_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"Gaussian noise has no level 6; choose from 5, 15, .*, or 0 for none"
    ):
        disturb("gaussian_noise", grey(), 6)
    for wrong in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ImageError, match="cannot disturb"):
            disturb("hue", wrong, 0.1)


def test_the_published_levels_are_among_ours() -> None:
    published = {
        "gaussian_noise": {5, 100},
        "gaussian_blur": {1, 25, 50},
        "motion_blur": {3, 9, 21, 105, 221},
        "salt_and_pepper": {1, 10, 50, 80},
        "brightness": {0.5, 1.5},
        "contrast": {0.5, 1.5},
        "saturation": {0, 2},
        "hue": {-0.2, 0.2},
    }
    assert set(BY_NAME) == set(published)
    for name, levels in published.items():
        assert levels <= set(BY_NAME[name].levels), name
    assert len(COMMON) == 19
    assert all(each.levels == (1, 2, 3, 4, 5) for each in COMMON)
