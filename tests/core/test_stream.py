"""Streams: masks of a video that flicker less, and a memory that ends where the video does."""

from typing import Any

import cv2
import numpy as np
import pytest

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError
from camseg_core.evaluation.metrics import Flicker
from camseg_core.labels import UNLABELLED
from camseg_core.runtime import Segmentation, Segmenter, Stream
from camseg_core.runtime.engine import EngineOptions
from camseg_core.runtime.onnx_engine import OnnxEngine
from camseg_core.runtime.stream import Motion, thumbnail

DRIVE = SyntheticDrive(frames=6, height=180, width=240, fps=20)
FRAMES = [sample.image for sample in DRIVE]
TIMES = [index / 20 for index in range(len(FRAMES))]
LATENTS = np.random.default_rng(0).standard_normal((1, 8, 48, 60)).astype(np.float32)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained(streams=True)


def drive(segmenter: Segmenter, stream: Stream | None) -> list[Segmentation]:
    return [
        segmenter.segment_batch([f], streams=[stream], times=[t])[0]
        for f, t in zip(FRAMES, TIMES, strict=True)
    ]


def noisy(frame: np.ndarray, seed: int) -> np.ndarray:
    return np.clip(frame + np.random.default_rng(seed).normal(0, 10, frame.shape), 0, 255).astype(
        np.uint8
    )


def test_a_still_camera_flickers_less_and_the_same_video_gives_the_same_masks(
    segmenter: Segmenter,
) -> None:
    def flicker(stream: Stream | None) -> float:
        measure = Flicker()
        for seed in range(5):
            measure.add(segmenter.segment_batch([noisy(FRAMES[0], seed)], streams=[stream])[0].mask)
        return measure.change_rate

    alone, steadied = flicker(None), flicker(Stream())
    assert steadied < 0.6 * alone
    assert flicker(Stream()) == steadied


def test_a_first_frame_is_segmented_as_by_itself_and_later_ones_are_not(
    segmenter: Segmenter,
) -> None:
    alone, steadied = drive(segmenter, None), drive(segmenter, Stream())
    assert np.array_equal(alone[0].mask, steadied[0].mask)
    assert np.array_equal(alone[0].confidence, steadied[0].confidence)
    assert not np.array_equal(alone[-1].confidence, steadied[-1].confidence)
    assert list(steadied[0].timings)[-3:] == ["stream", "decoder", "postprocess"]
    assert "stream" not in alone[0].timings


def test_nothing_carried_is_a_frame_by_itself(segmenter: Segmenter) -> None:
    for alone, steadied in zip(
        drive(segmenter, None), drive(segmenter, Stream(carry=0)), strict=True
    ):
        assert np.array_equal(alone.confidence, steadied.confidence)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"sampler": "ddim", "steps": 2}, {"samples": 2}, {"passes": 2}]
)
def test_any_sampler_samples_and_passes_can_be_steadied(options: dict[str, Any]) -> None:
    segmenter, stream = Segmenter.from_pretrained(**options), Stream()
    alone = segmenter.segment_batch(FRAMES[:2])
    steadied = [segmenter.segment_batch([frame], streams=[stream])[0] for frame in FRAMES[:2]]
    assert np.array_equal(alone[0].mask, steadied[0].mask)
    assert not np.array_equal(alone[1].confidence, steadied[1].confidence)


def test_cameras_in_a_batch_keep_their_own_memory(segmenter: Segmenter) -> None:
    left, right = Stream(), Stream()
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in FRAMES]
    small = cv2.resize(FRAMES[0], (96, 64))
    together = [
        segmenter.segment_batch([a, small, b, a], streams=[left, None, right, None])
        for a, b in zip(FRAMES, mirrored, strict=True)
    ]
    alone, by_itself = drive(segmenter, Stream()), drive(segmenter, None)
    for batch, one, none in zip(together, alone, by_itself, strict=True):
        np.testing.assert_allclose(batch[0].confidence, one.confidence, atol=1e-4)
        np.testing.assert_allclose(batch[3].confidence, none.confidence, atol=1e-4)
        assert batch[1].mask.shape == (64, 96)
    assert not left.resets
    assert not right.resets


def test_frames_of_one_stream_can_come_in_one_batch(segmenter: Segmenter) -> None:
    stream = Stream()
    together = segmenter.segment_batch(FRAMES, streams=[stream] * len(FRAMES), times=TIMES)
    for batch, one in zip(together, drive(segmenter, Stream()), strict=True):
        np.testing.assert_allclose(batch.confidence, one.confidence, atol=1e-4)


@pytest.mark.parametrize(
    ("reason", "picture", "latents", "time"),
    [
        ("gap", FRAMES[1], LATENTS, 1.6),
        ("back", FRAMES[1], LATENTS, 0.9),
        ("size", FRAMES[1], LATENTS[..., :-4], 1.1),
        ("size", FRAMES[1], LATENTS[:, :-1], 1.1),
        ("scene", 255 - FRAMES[1], LATENTS, 1.1),
    ],
)
def test_a_stream_forgets_what_does_not_go_on(
    reason: str, picture: np.ndarray, latents: np.ndarray, time: float
) -> None:
    stream = Stream(max_gap_s=0.5)
    stream.steady(LATENTS, FRAMES[0], 1.0)
    other = latents + 1
    assert np.array_equal(stream.steady(other, picture, time), other)
    assert stream.resets == {reason: 1}
    assert not np.array_equal(stream.steady(other + 1, picture, time + 0.1), other + 1)
    assert stream.resets == {reason: 1}


def test_a_reset_stream_forgets_and_counts_no_reset_without_a_memory() -> None:
    stream = Stream()
    stream.reset()
    assert not stream.resets
    stream.steady(LATENTS, FRAMES[0])
    stream.reset()
    assert stream.resets == {"hand": 1}
    assert np.array_equal(stream.steady(LATENTS + 1, FRAMES[0]), LATENTS + 1)


@pytest.mark.parametrize(
    ("weather", "fps"), [("clear", 10), ("rain", 5), ("snow", 10), ("night", 10)]
)
def test_ordinary_driving_is_no_change_of_scene(weather: str, fps: float) -> None:
    stream = Stream()
    for index, sample in enumerate(SyntheticDrive(frames=5, fps=fps, weather=weather)):
        stream.steady(LATENTS, noisy(sample.image, index), index / fps)
    assert not stream.resets


def test_memory_follows_what_moves_and_leaves_out_what_is_new() -> None:
    random = np.random.default_rng(3)
    scene = cv2.resize(
        random.integers(0, 255, (30, 40), np.uint8), (300, 240), interpolation=cv2.INTER_CUBIC
    )
    before, now = (
        scene[:192, 20:260].copy(),
        scene[:192, 8:248].copy(),
    )  # all of it moves 12 pixels to the right
    now[60:100, 100:150] = 255 - now[60:100, 100:150]
    plane = cv2.resize(scene[:192].astype(np.float32), (150, 96), interpolation=cv2.INTER_AREA)
    old, new = plane[:, 10:130], plane[:, 4:124]
    mixed = Motion.between(now, before).mix(np.zeros((1, 96, 120), np.float32), old[None], 1.0)[0]
    still_there = np.ones((96, 120), bool)
    still_there[:, :12] = still_there[26:54, 46:79] = False  # came in at the left; changed
    assert np.abs(mixed - new)[still_there].mean() < 8
    assert np.abs(old - new)[still_there].mean() > 30
    changed = mixed[34:46, 54:71]
    assert np.abs(changed).mean() < 0.4 * np.abs(new[34:46, 54:71]).mean()


def test_a_thumbnail_has_one_size_for_any_picture() -> None:
    for size in ((1, 1), (32, 5000), (2000, 32)):
        assert thumbnail(np.zeros((*size, 3), np.uint8)).shape == (192, 240)


def test_a_frame_of_one_pixel_can_be_in_a_stream(segmenter: Segmenter) -> None:
    stream, pixel = Stream(), np.zeros((1, 1, 3), np.uint8)
    for _ in range(2):
        assert segmenter.segment_batch([pixel], streams=[stream])[0].mask.shape == (1, 1)
    assert not stream.resets


def test_streams_and_times_are_as_many_as_frames(segmenter: Segmenter) -> None:
    with pytest.raises(ConfigError, match="streams must be one per frame, got 1 for 2"):
        segmenter.segment_batch(FRAMES[:2], streams=[Stream()])
    with pytest.raises(ConfigError, match="times must be one per frame, got 0 for 2"):
        segmenter.segment_batch(FRAMES[:2], times=[])


def test_a_whole_network_in_one_graph_takes_no_stream(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter._engine, "fused", Fused("ddim", 4))
    with pytest.raises(ConfigError, match=r"fused_ddim_4 does not output: load with streams=True"):
        segmenter.segment_batch(FRAMES[:1], streams=[Stream()])


def test_the_parts_are_loaded_for_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Recording(OnnxEngine):
        def __init__(self, options: EngineOptions, fused: Fused | None) -> None:
            asked.append(fused)
            super().__init__(options, fused)

    monkeypatch.setattr("camseg_core.runtime.providers.OnnxEngine", Recording)
    for streams in (False, True):
        Segmenter.from_pretrained(provider="cpu", streams=streams)
    assert asked == [Fused("one_step", 1), None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"carry": 1.0}, "carry must be >= 0 and < 1, got 1.0"),
        ({"carry": float("nan")}, "carry must be >= 0 and < 1, got nan"),
        ({"max_gap_s": 0.0}, "max_gap_s must be > 0, got 0.0"),
    ],
)
def test_impossible_streams_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Stream(**options)


def test_flicker_counts_only_where_the_truth_stays() -> None:
    measure = Flicker()
    assert np.isnan(measure.flicker)
    assert np.isnan(measure.change_rate)
    labels = (
        np.array([[0, 0, 1, UNLABELLED]], np.uint8),
        np.array([[0, 0, 2, UNLABELLED]], np.uint8),
    )
    measure.add(np.array([[0, 0, 1, 3]], np.uint8), labels[0])
    measure.add(np.array([[0, 5, 2, 4]], np.uint8), labels[1])
    assert measure.flicker == 0.5
    assert measure.change_rate == 0.75


def test_flicker_makes_no_pairs_over_a_cut_a_size_or_a_missing_label() -> None:
    one, other = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    measure = Flicker()
    measure.add(one, one)
    measure.cut()
    measure.add(other, one)
    measure.add(np.zeros((3, 2), np.uint8), np.zeros((3, 2), np.uint8))
    assert np.isnan(measure.change_rate)
    measure.add(np.ones((3, 2), np.uint8))
    assert measure.change_rate == 1
    assert np.isnan(measure.flicker)


@pytest.mark.parametrize("gain", [1.0, 0.3, 0.15])
def test_what_differs_as_much_in_relation_is_as_new_in_the_dark(gain: float) -> None:
    """Grey levels are fewer at night; trust in the past must not grow with that."""
    before = FRAMES[0]
    now = before.copy()
    now[60:120, 80:160] = 255 - before[60:120, 80:160]
    pair = (thumbnail((picture * gain).astype(np.uint8)) for picture in (now, before))
    motion = Motion.between(*pair)
    changed = motion.trust[70:120, 90:150]
    assert changed.mean() < 0.35
    assert motion.trust[:50].mean() > 0.9


@pytest.mark.parametrize("gain", [1.0, 0.3, 0.15])
def test_a_cut_is_noticed_in_the_dark(gain: float) -> None:
    stream = Stream()
    for picture in (FRAMES[0], 255 - FRAMES[0]):
        dark = (picture.astype(np.float32) * gain).astype(np.uint8)
        stream.steady(LATENTS, dark)
    assert stream.resets == {"scene": 1}
