"""The runtime on the bundled model: any size, the same answer every time, clear errors."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camseg_core.cli.main import main
from camseg_core.data.image_files import read_rgb, write_image
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, ImageError, ModelError
from camseg_core.labels import UNLABELLED
from camseg_core.runtime import Segmenter
from camseg_core.runtime.geometry import FrameGeometry
from camseg_core.weights import checkpoint_folder

FRAME = SyntheticDrive(frames=1)[0].image
PICTURES = str(Path(__file__).parents[2] / "docs" / "images")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained()


@pytest.mark.parametrize(
    "size", [(360, 480), (1, 1), (1, 700), (37, 53), (720, 1280), (481, 641), (4000, 3)]
)
def test_the_mask_has_the_frames_own_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    result = segmenter.segment(cv2.resize(FRAME, size[::-1]))
    assert result.mask.shape == result.confidence.shape == size
    assert result.mask.dtype == np.uint8
    assert result.confidence.dtype == np.float32
    assert set(np.unique(result.mask)) <= {label.id for label in segmenter.labels} | {UNLABELLED}
    assert result.confidence.min() > 0
    assert result.confidence.max() <= 1


def test_the_road_ahead_is_road_and_the_sky_above_is_sky(segmenter: Segmenter) -> None:
    sample = SyntheticDrive(frames=1)[0]
    mask = segmenter.segment(sample.image).mask
    names = {label.id: label.name for label in segmenter.labels}
    for name in ("road", "sky"):
        truth = sample.label == next(i for i, n in names.items() if n == name)
        assert (mask[truth] == next(i for i, n in names.items() if n == name)).mean() > 0.5, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "steps"), [("one_step", 1), ("ddim", 4), ("dpm_solver", 3), ("ancestral", 5)]
)
def test_the_same_frame_and_seed_give_the_same_mask(sampler: str, steps: int) -> None:
    first, second = (
        Segmenter.from_pretrained(sampler=sampler, steps=steps, seed=7).segment(FRAME)
        for _ in range(2)
    )
    assert np.array_equal(first.mask, second.mask)
    assert np.array_equal(first.confidence, second.confidence)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "confident"])
def test_a_mask_is_revealed_in_passes_and_several_are_averaged(
    segmenter: Segmenter, order: str
) -> None:
    small = cv2.resize(FRAME, (160, 96))
    once = segmenter.segment(small)
    drawn = {
        (passes, samples): Segmenter.from_pretrained(
            sampler="ddim", steps=2, passes=passes, samples=samples, order=order
        )
        for passes, samples in ((1, 3), (3, 1), (3, 2))
    }
    for settings, each in drawn.items():
        first, second = each.segment_batch([small, small])
        assert np.array_equal(first.mask, second.mask), settings
        assert np.array_equal(first.confidence, second.confidence), settings
        assert (first.mask == once.mask).mean() > 0.8, settings
        assert 0 < first.confidence.min() <= first.confidence.max() <= 1
        assert list(first.timings)[1:-1] == ["image_encoder", "transformer", "denoiser", "decoder"]


@pytest.mark.slow
def test_a_frame_of_one_pixel_is_revealed_in_as_many_passes_as_it_has_tokens() -> None:
    result = Segmenter.from_pretrained(passes=50).segment(np.zeros((1, 1, 3), np.uint8))
    assert result.mask.shape == (1, 1)


def test_the_average_of_samples_is_surest_where_they_agree() -> None:
    each = [
        Segmenter.from_pretrained(
            sampler="ddim", steps=4, temperature=2.0, samples=samples
        ).segment(FRAME)
        for samples in (1, 4)
    ]
    one, four = each
    assert not np.array_equal(one.confidence, four.confidence)
    agreed = one.mask == four.mask
    assert four.confidence[agreed].mean() > four.confidence[~agreed].mean()


def test_the_logit_scale_changes_the_confidence_alone() -> None:
    segmenter = Segmenter.from_pretrained(provider="cpu")  # bf16 rounds logits by up to 0.06
    blunt, sharp = (
        segmenter.with_logit_scale(logit_scale).segment(FRAME) for logit_scale in (0.5, 2.0)
    )
    assert np.array_equal(blunt.mask, sharp.mask)
    assert (blunt.confidence <= sharp.confidence + 1e-6).all()
    assert blunt.confidence.mean() < sharp.confidence.mean() - 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"passes": 0}, "passes must be >= 1, got 0"),
        ({"order": "best"}, "order must be one of random, confident, got 'best'"),
    ],
)
def test_impossible_draws_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Segmenter.from_pretrained(**options)


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, ["network"]),
        ({"streams": True}, ["image_encoder", "transformer", "denoiser", "decoder"]),
    ],
)
def test_stages_are_timed_in_order(options: dict[str, Any], stages: list[str]) -> None:
    timings = Segmenter.from_pretrained(**options).segment(FRAME).timings
    assert list(timings) == ["preprocess", *stages, "postprocess"]
    assert all(milliseconds >= 0 for milliseconds in timings.values())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_not_an_rgb_frame_is_refused(segmenter: Segmenter, array) -> None:
    with pytest.raises(ImageError, match=r"a frame must be an RGB array \(H, W, 3\) of uint8"):
        segmenter.segment(array)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "sampler must be one of one_step"),
        ({"steps": 0}, "steps must be between 1 and 1000, got 0"),
        ({"provider": "npu"}, "provider must be one of auto, cpu, openvino, "),
        ({"provider": "cuda,npu"}, "provider must be one of auto, cpu, openvino, "),
        ({"provider": ""}, "provider must be one of auto, cpu, openvino, "),
        ({"provider": []}, "comma-separated, got nothing"),
        (
            {"precision": "int4"},
            "precision must be one of auto, fp32, bf16, fp16, int8, got 'int4'",
        ),
        ({"eta": 1.5}, "eta must be >= 0 and <= 1, got 1.5"),
        ({"threads": -1}, "threads must be a whole number >= 0, got -1"),
        ({"threads": 1.5}, "threads must be a whole number >= 0, got 1.5"),
        ({"kept_sizes": 0}, "kept_sizes must be a whole number >= 1, got 0"),
        (
            {"provider": "cuda"},
            "needs ONNX Runtime's CUDAExecutionProvider, "
            "but the installed one has only .*onnxruntime-gpu",
        ),
    ],
)
def test_a_wrong_option_names_the_choices_or_what_is_missing(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Segmenter.from_pretrained(**options)


def test_a_missing_or_damaged_model_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'nowhere'.*camseg-lite"):
        Segmenter.from_pretrained("nowhere")
    with pytest.raises(ModelError, match=r"config\.json"):
        Segmenter.from_pretrained(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(checkpoint_folder("camseg-lite"), folder)
    graph = folder / "onnx" / "fp32" / "transformer.onnx"
    graph.write_bytes(b"rubbish")
    with pytest.raises(ModelError, match=r"cannot load .*transformer\.onnx") as raised:
        Segmenter.from_pretrained(folder, precision="fp32")
    assert "\n" not in str(raised.value)
    graph.unlink()
    with pytest.raises(ModelError, match=r"missing .*transformer\.onnx"):
        Segmenter.from_pretrained(folder, precision="fp32")


def test_pixels_line_up_through_scaling_and_padding() -> None:
    for height, width in ((360, 480), (361, 479), (722, 960), (1080, 1920), (100, 30)):
        geometry = FrameGeometry.fit(height, width, 480 * 360, 32)
        ids = np.zeros((height, width), np.uint8)
        ids[height // 3 :, : width // 2] = 7
        there, _ = geometry.to_network(np.repeat(ids[..., None], 3, axis=2))
        assert there.shape[0] % 32 == there.shape[1] % 32 == 0
        ids_back = np.where(there[..., 0] > 3, 7, 0).astype(np.uint8)
        back, _ = geometry.from_network(ids_back, np.ones(ids_back.shape, np.float32))
        rows, columns = np.nonzero(back != ids)
        slack = max(1, round(height / geometry.scaled[0]))  # an edge may move by one network pixel
        assert (np.minimum(abs(rows - height // 3), abs(columns - width // 2)) <= slack).all()


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (1, 1), (3000, 5000), (31, 33)])
def test_the_network_never_sees_much_more_than_its_area(size: tuple[int, int]) -> None:
    geometry = FrameGeometry.fit(*size, 480 * 360, 32)
    assert geometry.padded[0] * geometry.padded[1] <= 1.25 * 480 * 360
    assert geometry.scaled[0] <= size[0]
    assert geometry.scaled[1] <= size[1]


def test_the_command_segments_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("a2.png", "a10.png", "a2.jpg"):
        cv2.imwrite(str(frames / name), cv2.cvtColor(FRAME, cv2.COLOR_RGB2BGR))
    main(["segment", str(frames), "--out", str(tmp_path / "out"), "--opacity", "0.3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.match(r"1/3 a2\.\w+: \w+.* \d+%.*; \d+ ms", lines[0])
    for kind in ("mask", "color", "overlay"):
        assert len(list((tmp_path / "out" / kind).glob("*.png"))) == 3
    mask = cv2.imread(str(tmp_path / "out" / "mask" / "a10.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, Segmenter.from_pretrained().segment(FRAME).mask)


def test_masks_are_drawn_in_the_colours_of_the_models_own_classes(tmp_path: Path) -> None:
    shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model")
    path = tmp_path / "model" / "labels.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    for entry in table["classes"]:
        entry["color"] = [entry["id"], 200, 7]
    path.write_text(json.dumps(table), encoding="utf-8")
    write_image(tmp_path / "a.png", FRAME)
    out = tmp_path / "out"
    arguments = ["segment", str(tmp_path / "a.png"), "--model", str(tmp_path / "model")]
    main([*arguments, "--out", str(out), "--opacity", "1"])
    mask = cv2.imread(str(out / "mask" / "a.png"), cv2.IMREAD_UNCHANGED)
    colors = np.stack([mask, np.full_like(mask, 200), np.full_like(mask, 7)], 2)
    for kind in ("color", "overlay"):
        assert np.array_equal(read_rgb(out / kind / "a.png"), colors)


@pytest.mark.parametrize("name", ["drive", "2024.05.01"])
def test_the_command_segments_a_video_up_to_a_number_of_frames(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video = cv2.VideoWriter(
        str(tmp_path / f"{name}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (480, 360)
    )
    for sample in SyntheticDrive(frames=4):
        video.write(cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR))
    video.release()
    main(
        ["segment", str(tmp_path / f"{name}.mp4"), "--out", str(tmp_path / "out"), "--frames", "3"]
    )
    assert sorted(path.name for path in (tmp_path / "out" / "mask").iterdir()) == [
        f"{name}_00000{i}.png" for i in range(3)
    ]
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 frames in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "nowhere"], "nowhere does not exist"),
        (["segment", PICTURES, "--model", "nothing"], "no model 'nothing'"),
        (["segment", ".", "--steps", "0"], "must be a whole number >= 1, got '0'"),
        (["segment", ".", "--sampler", "euler"], "invalid choice: 'euler'"),
        (["segment", ".", "--opacity", "2"], "must be a number from 0 to 1, got '2'"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_command_line_errors_are_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
