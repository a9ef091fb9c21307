"""The synthetic drive: deterministic, coherent, exactly labelled, the same in every weather."""

import hashlib

import numpy as np
import pytest

from camseg_core.data import Sample
from camseg_core.data.synthetic.camera import PinholeCamera
from camseg_core.data.synthetic.canvas import Canvas
from camseg_core.data.synthetic.drive import WEATHERS, SyntheticDrive
from camseg_core.data.synthetic.textures import opaque
from camseg_core.errors import ConfigError
from camseg_core.labels import CITYSCAPES, TRAIN_ID

SMALL = {"frames": 8, "height": 90, "width": 120}
BAD_WEATHERS = [weather for weather in WEATHERS if weather != "clear"]


def small(**changes: object) -> SyntheticDrive:
    return SyntheticDrive(**{**SMALL, **changes})  # type: ignore[arg-type]


def assert_same(first: Sample, second: Sample) -> None:
    assert first.name == second.name
    assert first.image.tobytes() == second.image.tobytes()
    assert first.label.tobytes() == second.label.tobytes()


def street_camera(height: int = 60, width: int = 80) -> PinholeCamera:
    return PinholeCamera(height, width, across=0.0, along=200.0, up=1.4, yaw=0.0, pitch=0.0)


@pytest.mark.parametrize("weather", WEATHERS)
def test_the_same_arguments_give_the_same_bytes(weather: str) -> None:
    assert_same(small(weather=weather)[3], small(weather=weather)[3])


FRAME_HASHES = {
    "clear": "5e0e167a4600d80f",
    "fog": "cfd20db9bb8951ce",
    "rain": "aef19e83ad396357",
    "snow": "b738c868d1837dbf",
    "night": "edb6e80cb019a27c",
}
"""Of frames 0, 7, 23 and 59 at 360x480; the demo, bags and reports are made of these frames."""


@pytest.mark.parametrize("weather", WEATHERS)
def test_frames_stay_the_same_to_the_byte(pinned_versions: None, weather: str) -> None:
    drive, digest = SyntheticDrive(frames=60, weather=weather), hashlib.sha256()
    for index in (0, 7, 23, 59):
        digest.update(drive[index].image.tobytes() + drive[index].label.tobytes())
    assert digest.hexdigest()[:16] == FRAME_HASHES[weather]


def test_random_access_equals_iteration() -> None:
    in_order = list(small(weather="rain"))
    assert len(in_order) == len(small()) == 8
    for index in (5, 0, 7, 2):
        assert_same(small(weather="rain")[index], in_order[index])


def test_a_frame_does_not_depend_on_the_length_of_the_drive() -> None:
    assert_same(small(frames=4)[3], small(frames=500)[3])


def test_seeds_give_different_streets() -> None:
    first, second = small(seed=0)[0], small(seed=1)[0]
    assert (first.label != second.label).mean() > 0.05
    assert not np.array_equal(first.image, second.image)


def test_samples_have_the_shapes_types_and_names_that_they_promise() -> None:
    sample = small(weather="snow", seed=7)[-2]
    assert sample.image.shape == (90, 120, 3)
    assert sample.image.dtype == np.uint8
    assert sample.label.shape == (90, 120)
    assert sample.label.dtype == np.uint8
    assert sample.name == "synthetic-seed7-snow-000006"


def test_an_index_outside_the_drive_is_an_index_error() -> None:
    for index in (8, -9):
        with pytest.raises(IndexError, match=str(index)):
            small()[index]


def test_stamps_follow_the_frame_rate() -> None:
    assert [small(fps=10.0).stamp_ns(index) for index in (0, 1, 7)] == [0, 100_000_000, 700_000_000]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_drive_shows_every_class_of_a_street(seed: int) -> None:
    drive = SyntheticDrive(frames=60, seed=seed)
    seen = set(np.unique(np.stack([drive[index].label for index in range(0, 60, 12)])).tolist())
    wanted = [
        "road",
        "sidewalk",
        "building",
        "vegetation",
        "sky",
        "pole",
        "traffic sign",
        "car",
        "person",
        "rider",
    ]
    assert {TRAIN_ID[name] for name in wanted} <= seen
    assert seen <= {label.id for label in CITYSCAPES}


@pytest.mark.parametrize("weather", BAD_WEATHERS)
def test_weather_changes_the_picture_and_leaves_the_label(weather: str) -> None:
    clear, bad = small()[4], small(weather=weather)[4]
    assert clear.label.tobytes() == bad.label.tobytes()
    assert np.abs(clear.image.astype(int) - bad.image).mean() > 5


@pytest.mark.parametrize("weather", BAD_WEATHERS)
def test_severity_scales_the_weather(weather: str) -> None:
    clear = small()[4].image.astype(int)
    change = [
        np.abs(clear - small(weather=weather, severity=severity)[4].image).mean()
        for severity in (0.1, 0.5, 1.0)
    ]
    assert change[0] < change[1] < change[2]


def test_fog_fades_what_is_far_more_than_what_is_near() -> None:
    clear, foggy = (SyntheticDrive(frames=1, weather=weather)[0] for weather in ("clear", "fog"))
    road = clear.label == TRAIN_ID["road"]
    change = np.where(road, np.abs(clear.image.astype(int) - foggy.image).mean(2), np.nan)
    far, near = np.nanmean(change[190:205]), np.nanmean(change[340:])
    assert far > 3 * near


def test_night_is_dark_and_its_lamps_are_not() -> None:
    night = SyntheticDrive(frames=1, weather="night", severity=1.0)[0].image
    assert night.mean() < 45
    assert night.max() > 180


def test_consecutive_frames_move_a_little() -> None:
    drive = small(frames=3, height=180, width=240)
    first, second = drive[1], drive[2]
    assert not np.array_equal(first.image, second.image)
    assert 0.001 < (first.label != second.label).mean() < 0.15


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 33), (101, 77), (48, 400), (240, 31)])
def test_any_size_is_drawn(height: int, width: int) -> None:
    for weather in WEATHERS:
        sample = SyntheticDrive(
            frames=1, height=height, width=width, weather=weather, severity=1.0
        )[0]
        assert sample.image.shape == (height, width, 3)
        assert sample.label.shape == (height, width)
        assert TRAIN_ID["road"] in sample.label


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames must be >= 1, got 0"),
        ({"height": 15}, "height and width must be >= 16, got 15x120"),
        ({"width": 3}, "must be >= 16, got 90x3"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"fps": 0.0}, "fps must be above 0, got 0.0"),
        ({"fps": float("nan")}, "fps must be above 0, got nan"),
        ({"weather": "hail"}, "one of clear, fog, rain, snow, night, got 'hail'"),
        ({"severity": 1.5}, "severity must be from 0 to 1, got 1.5"),
        ({"severity": float("nan")}, "severity must be from 0 to 1, got nan"),
    ],
)
def test_errors_name_the_value_and_the_choices(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_the_nearer_of_two_polygons_drawn_far_to_near_hides_the_other() -> None:
    canvas = Canvas(street_camera(), lights_on=False)
    square = np.array([(-1, 0, 0), (1, 0, 0), (1, 0, 2.8), (-1, 0, 2.8)], np.float32)
    for ahead, color, name in ((40, (200, 0, 0), "building"), (10, (0, 0, 200), "car")):
        canvas.fill(square + np.array([0, 200 + ahead, 0], np.float32), color, TRAIN_ID[name])
    column = int(
        canvas.camera.project(canvas.camera.view(np.array([[0, 210, 1.4]], np.float32)))[0, 0]
    )
    assert canvas.label[30, column] == TRAIN_ID["car"]
    assert canvas.image[30, column].tolist() == [0, 0, 200]
    assert canvas.geometry[30, column, 0] == pytest.approx(0.1, rel=0.02)


def test_a_polygon_that_crosses_the_camera_is_clipped_not_mirrored() -> None:
    canvas = Canvas(street_camera(), lights_on=False)
    canvas.fill(
        np.array([(-20, 190, 0), (20, 190, 0), (20, 260, 0), (-20, 260, 0)], np.float32),
        (90, 90, 90),
        TRAIN_ID["road"],
    )
    assert (canvas.label[-1] == TRAIN_ID["road"]).all()
    assert (canvas.label[:29] == TRAIN_ID["sky"]).all()


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    canvas = Canvas(street_camera(), lights_on=False)
    corners = np.array([(-2, 190, 3), (2, 190, 3), (-2, 190, 0)], np.float32)
    canvas.texture(opaque(np.full((8, 8, 3), 200, np.float32)), corners, TRAIN_ID["building"])
    canvas.fill(corners, (10, 10, 10), TRAIN_ID["car"])
    canvas.shade(corners, 0.5)
    assert (canvas.label == TRAIN_ID["sky"]).all()
    assert not canvas.image.any()


def test_a_texture_has_the_depth_of_its_plane() -> None:
    canvas = Canvas(street_camera(), lights_on=False)
    canvas.texture(
        opaque(np.full((8, 8, 3), 200, np.float32)),
        np.array([(5, 205, 6), (5, 260, 6), (5, 205, 0)], np.float32),
        2,
    )
    wall = canvas.label == 2
    depth = 1 / canvas.geometry[..., 0][wall]
    assert wall.any()
    # The wall is 5 m to the right and the picture ends about 30 degrees to the right.
    assert depth.min() == pytest.approx(8.5, rel=0.1)
    assert depth.max() == pytest.approx(60, rel=0.1)
