"""Strong noise is removed before the network, and every other frame stays as it is."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from lite import tiny_lite

from camseg_core.data.corruptions import COMMON
from camseg_core.data.disturbances import PAPER, Disturbance, gaussian_noise, salt_and_pepper
from camseg_core.data.random_changes import Disturb
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.evaluation.report.evaluation import report_content, score_table
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.model.camseg import CamSeg
from camseg_core.noise_filter import Pixels, measured, without_grain, without_impulses
from camseg_core.runtime.segmenter import Segmenter

SIZES = ((227, 320), (360, 480), (720, 1280))
FRAME = SyntheticDrive(1, 360, 480)[0].image
KEPT = ("share", "twice", "weights", "salt_and_pepper")
NOISE = ("gaussian_noise", "salt_and_pepper", "shot_noise", "impulse_noise", "speckle_noise")


def filtered(rgb: Pixels) -> Pixels:
    return without_grain(without_impulses(rgb))


def textured(seed: int = 0) -> Pixels:
    """A picture with edges, texture, and surfaces at both ends of the range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
    picture = cv2.resize(coarse, (480, 360), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    picture[:90], picture[300:] = 255, 0
    return np.ascontiguousarray(picture)


def error(picture: Pixels, truth: Pixels) -> float:
    return float(np.abs(picture.astype(int) - truth).mean())


@pytest.mark.parametrize("weather", ["clear", "night", "rain", "fog", "snow"])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_without_noise_is_returned_itself(size: tuple[int, int], weather: str) -> None:
    frame = SyntheticDrive(1, *size, seed=3, weather=weather)[0].image
    assert without_impulses(frame) is frame
    assert without_grain(frame) is frame


@pytest.mark.parametrize(
    "disturbance", [each for each in (*PAPER, *COMMON) if each.name.split("/")[-1] not in NOISE]
)
def test_what_is_not_noise_is_left_to_the_network(disturbance: Disturbance) -> None:
    for level in disturbance.levels:
        changed = disturbance(textured(), level, seed=0, frame="a")
        assert filtered(changed) is changed, level


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (4000, 3)])
def test_frames_of_any_size_pass(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for frame in (np.zeros((*shape, 3), np.uint8), rng.integers(0, 256, (*shape, 3), np.uint8)):
        before = frame.copy()
        assert filtered(frame).shape == frame.shape
        assert np.array_equal(frame, before)


@pytest.mark.parametrize("view", [np.s_[..., ::-1], np.s_[:, ::-1], np.s_[::2, ::2]])
def test_views_of_frames_pass(view: tuple[slice, ...]) -> None:
    rng = np.random.default_rng(8)
    for noisy in (salt_and_pepper(FRAME, 30, rng), gaussian_noise(FRAME, 60, rng)):
        found = filtered(noisy[view])
        assert np.array_equal(found, filtered(np.ascontiguousarray(noisy[view])))


@pytest.mark.parametrize("whole", [True, False], ids=["pixels", "channels"])
@pytest.mark.parametrize("percent", [1, 5, 25, 50, 80])
@pytest.mark.parametrize("picture", [FRAME, textured()], ids=["drive", "textured"])
def test_salt_and_pepper_is_replaced_and_nothing_else(
    picture: Pixels, percent: float, whole: bool
) -> None:
    rng = np.random.default_rng(1)
    noisy = salt_and_pepper(picture, percent, rng)
    if not whole:
        drawn = [salt_and_pepper(picture, percent, rng)[..., channel] for channel in range(3)]
        noisy = np.stack(drawn, -1)
    before = noisy.copy()
    result = without_impulses(noisy)
    assert np.array_equal(noisy, before)
    between = (noisy > 2) & (noisy < 253)
    assert np.array_equal(result[between], noisy[between])
    assert error(result, picture) < (0.15 if percent < 80 else 0.25) * error(noisy, picture)


def test_dark_and_overexposed_surfaces_stay() -> None:
    picture = textured()
    result = without_impulses(salt_and_pepper(picture, 20, np.random.default_rng(0)))
    for rows in (np.s_[4:86], np.s_[304:356]):
        assert error(result[rows], picture[rows]) < 0.5


@pytest.mark.parametrize("sigma", [30, 50, 100])
def test_gaussian_noise_is_smoothed_and_not_taken_for_impulses(sigma: float) -> None:
    noisy = gaussian_noise(FRAME, sigma, np.random.default_rng(2))
    assert measured(noisy).impulses > 0.004
    assert without_impulses(noisy) is noisy
    assert error(without_grain(noisy), FRAME) < 0.7 * error(noisy, FRAME)


def test_weak_noise_is_left_to_the_network() -> None:
    rng = np.random.default_rng(3)
    for noisy in (gaussian_noise(FRAME, 12, rng), salt_and_pepper(FRAME, 0.1, rng)):
        assert filtered(noisy) is noisy


def test_the_deviation_is_that_of_the_noise() -> None:
    grey = np.full((480, 640, 3), 128, np.uint8)
    for sigma in (5, 10, 20, 30):
        noisy = gaussian_noise(grey, sigma, np.random.default_rng(4))
        assert measured(noisy).deviation == pytest.approx(sigma, rel=0.1)


def segmenter(noise_filter: bool) -> Segmenter:
    model: CamSeg = tiny_lite()
    config = replace(model.config, noise_filter=noise_filter)
    return Segmenter(config, model.labels, TorchEngine(model))


def test_a_model_with_the_filter_says_whether_noise_was_removed() -> None:
    rng = np.random.default_rng(5)
    noisy = [salt_and_pepper(FRAME, 30, rng), gaussian_noise(FRAME, 60, rng)]
    results = segmenter(True).segment_batch([FRAME, *noisy])
    assert [each.noise_removed for each in results] == [False, True, True]
    plain = segmenter(False)
    assert not any(each.noise_removed for each in plain.segment_batch([FRAME, *noisy]))
    for found, frame in zip(results, (FRAME, *map(filtered, noisy)), strict=True):
        assert np.array_equal(found.mask, plain.segment(frame).mask)


def test_a_score_says_of_how_many_frames_noise_was_removed() -> None:
    sample = SyntheticDrive(1, 96, 128)[0]
    noisy = replace(sample, image=salt_and_pepper(sample.image, 30, np.random.default_rng(7)))
    samples, said = [sample, noisy, sample], "strong noise was removed from: 1 of 3 frames"
    for noise_filter, count in ((True, 1), (False, 0)):
        model = segmenter(noise_filter)
        result = evaluate(model, samples, model.labels)
        assert result.noise_removed == report_content(result)["noise_removed"] == count
        assert (said in score_table(result)) == noise_filter


def test_impulses_are_removed_before_a_large_frame_is_scaled_down() -> None:
    large = SyntheticDrive(1, 720, 1280)[0].image
    noisy = salt_and_pepper(large, 40, np.random.default_rng(6))
    with_filter, without = segmenter(True), segmenter(False)
    clean, found, missed = (
        each.features(frame)
        for each, frame in ((without, large), (with_filter, noisy), (without, noisy))
    )
    assert np.abs(found - clean).mean() < 0.2 * np.abs(missed - clean).mean()


def test_a_training_disturbs_as_the_vehicle_would_see_it() -> None:
    only = {name: None for name in Disturb.__dataclass_fields__ if name not in KEPT}
    disturb = Disturb(share=1, twice=0, salt_and_pepper=(30, 50), **only)  # type: ignore[arg-type]
    seen: list[npt.NDArray[np.uint8]] = []
    for noise_filter in (False, True):
        (change,) = disturb.changes(noise_filter)
        seen.append(change(FRAME, np.random.default_rng(7)))
    assert np.array_equal(seen[1], filtered(seen[0]))
    assert not np.array_equal(seen[0], seen[1])
