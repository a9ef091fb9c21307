"""The mask's calibration projects a point in space onto the same spot as the image's."""

import copy

import numpy as np
import pytest
from ros_harness import header
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from camseg_ros.messages import (
    MAX_COEFFICIENTS,
    MAX_INFO_NAME,
    check_camera_info,
    scaled_camera_info,
)

POINTS = np.random.default_rng(3).uniform((-4, -3, 2), (4, 3, 40), (50, 3))
TURN = np.array([[0.9998, -0.02, 0.001], [0.02, 0.9997, -0.01], [-0.0008, 0.0102, 0.9999]])


def calibration(**changes: object) -> CameraInfo:
    """The right camera of a 1920x1080 stereo pair, with skew, distortion and a baseline."""
    fields = {
        "header": header(1, "camera_optical"),
        "width": 1920,
        "height": 1080,
        "distortion_model": "rational_polynomial",
        "d": [-0.3, 0.12, 0.001, -0.0007, -0.02, 0.01, 0.002, 0.003],
        "k": [1230.5, 1.25, 955.3, 0.0, 1228.1, 541.7, 0.0, 0.0, 1.0],
        "r": TURN.reshape(-1),
        "p": [1190.2, 0.0, 961.4, -142.8, 0.0, 1190.2, 538.9, 3.5, 0.0, 0.0, 1.0, 0.0],
    }
    return CameraInfo(**{**fields, **changes})


def raw_pixels(info: CameraInfo) -> np.ndarray:
    """Project `POINTS` into the raw image, `(N, 2)`: radial and tangential distortion, then K."""
    x, y = (POINTS[:, :2] / POINTS[:, 2:]).T
    k1, k2, p1, p2, k3, k4, k5, k6 = info.d
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    distorted_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    distorted_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    u, v, w = np.reshape(info.k, (3, 3)) @ np.stack([distorted_x, distorted_y, np.ones_like(x)])
    return np.stack([u / w, v / w], -1)


def rectified_pixels(info: CameraInfo) -> np.ndarray:
    """Where `POINTS` fall in the rectified image, `(N, 2)`: R, then P."""
    turned = np.reshape(info.r, (3, 3)) @ POINTS.T
    u, v, w = np.reshape(info.p, (3, 4)) @ np.vstack([turned, np.ones(len(POINTS))])
    return np.stack([u / w, v / w], -1)


REGIONS = {
    "half": (0, 0, 0.5, 0.5, 960, 540),
    "the model's 512x288": (0, 0, 512 / 1920, 288 / 1080, 512, 288),
    "another aspect": (0, 0, 512 / 1920, 512 / 1080, 512, 512),
    "the lower part": (0, 200, 640 / 1920, 352 / 880, 640, 352),
    "between pixels": (10.5, 20.25, 1.7, 0.3, 1000, 200),
    "only cut out": (100, 50, 1, 1, 400, 300),
    "only smaller": (0, 0, 1, 1, 1900, 1000),
    "padded": (-32, -8, 1, 1, 1984, 1096),
}


@pytest.mark.parametrize("project", [raw_pixels, rectified_pixels])
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS.keys())
def test_points_fall_on_the_mask_where_the_image_went(region: tuple, project) -> None:
    left, top, scale_x, scale_y, width, height = region
    info = calibration()
    mask = scaled_camera_info(info, header(7), *region)
    expected = (project(info) + 0.5 - (left, top)) * (scale_x, scale_y) - 0.5
    assert np.allclose(project(mask), expected, rtol=0, atol=1e-8)
    assert (mask.width, mask.height, mask.header) == (width, height, header(7))
    assert np.array_equal(mask.r, info.r)
    assert mask.d == info.d
    assert mask.distortion_model == info.distortion_model
    assert check_camera_info(mask, width, height) == ""


@pytest.mark.parametrize("project", [raw_pixels, rectified_pixels])
def test_the_cameras_own_region_and_binning_are_worked_in(project) -> None:
    roi = RegionOfInterest(x_offset=200, y_offset=100, width=1600, height=800, do_rectify=True)
    info = calibration(binning_x=2, binning_y=4, roi=roi)
    assert check_camera_info(info, 800, 200) == ""
    mask = scaled_camera_info(info, header(7), 40, 10, 0.5, 1.5, 380, 285)
    image = (project(info) + 0.5 - (200, 100)) / (2, 4) - 0.5
    expected = (image + 0.5 - (40, 10)) * (0.5, 1.5) - 0.5
    assert np.allclose(project(mask), expected, rtol=0, atol=1e-8)
    assert (mask.binning_x, mask.binning_y, mask.roi) == (0, 0, RegionOfInterest())
    assert check_camera_info(mask, 380, 285) == ""


@pytest.mark.parametrize("binning", [0, 1, 2])
def test_without_a_change_every_byte_but_the_header_stays(binning: int) -> None:
    info = calibration(
        binning_x=binning,
        binning_y=binning,
        roi=RegionOfInterest(x_offset=8, width=1600, height=800),
    )
    size = 1600 // max(binning, 1), 800 // max(binning, 1)
    expected = copy.deepcopy(info)
    expected.header = header(7)
    mask = scaled_camera_info(info, header(7), 0, 0, 1, 1, *size)
    assert mask == expected
    for name in ("d", "k", "r", "p"):
        assert getattr(mask, name).tobytes() == getattr(info, name).tobytes(), name


def test_the_original_is_left_alone() -> None:
    info = calibration()
    before = copy.deepcopy(info)
    for region in ((0, 0, 1, 1, 1920, 1080), (0, 0, 0.5, 0.5, 960, 540)):
        mask = scaled_camera_info(info, header(7), *region)
        mask.k[0], mask.r[0], mask.p[0] = 1.0, 2.0, 3.0
        mask.d[0] = 4.0
    assert info == before


def test_an_uncalibrated_camera_stays_uncalibrated() -> None:
    mask = scaled_camera_info(
        CameraInfo(width=1920, height=1080), header(7), 0, 0, 0.5, 0.5, 960, 540
    )
    assert not np.any(mask.k)
    assert not np.any(mask.p)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"roi": RegionOfInterest(width=1920, height=1080), "binning_x": 1}, ""),
        (
            {"width": 1280, "height": 720},
            "it is for images of 1280x720 pixels, the image has 1920x1080",
        ),
        ({"width": 0, "height": 0}, "it is for images of 0x0 pixels"),
        ({"binning_x": 2, "binning_y": 2}, "it is for images of 960x540 pixels"),
        ({"binning_x": 2**32 - 1}, "it is for images of 0x1080 pixels"),
        (
            {"roi": RegionOfInterest(x_offset=4, width=1920, height=1080)},
            "its roi of 1920x1080 pixels at (4, 0) exceeds",
        ),
        ({"roi": RegionOfInterest(x_offset=2**32 - 1)}, "it is for images of"),
        (
            {"d": [0.0] * (MAX_COEFFICIENTS + 1)},
            "it must have at most 32 distortion coefficients, has 33",
        ),
        ({"d": [float("nan")] * 5}, "its D contains a number that is not finite"),
        ({"k": [float("inf"), *[0.0] * 8]}, "its K contains a number that is not finite"),
        ({"r": [*[0.0] * 8, float("nan")]}, "its R contains a number that is not finite"),
        ({"p": [*[0.0] * 11, float("-inf")]}, "its P contains a number that is not finite"),
        (
            {"distortion_model": "x" * (MAX_INFO_NAME + 1)},
            "its distortion_model must have at most 256 characters, has 257",
        ),
        (
            {"header": header(1, "x" * 10_000)},
            "its frame_id must have at most 256 characters, has 10000",
        ),
    ],
)
def test_a_calibration_of_another_image_is_rejected_with_the_reason(
    changes: dict, text: str
) -> None:
    found = check_camera_info(calibration(**changes), 1920, 1080)
    assert found.startswith(text) if text else found == ""
