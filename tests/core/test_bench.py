"""`camseg bench`: what is compared with what, what it prints and writes, and what it refuses."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from lite import tiny_lite

from camseg_core.cli.inference import with_changes
from camseg_core.cli.main import main
from camseg_core.cli.options import add_model_options, model_options
from camseg_core.data.image_files import write_image
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError
from camseg_core.export import export_onnx
from camseg_core.export.graphs import Traced
from camseg_core.weights import checkpoint_folder

STAGES = ["preprocess", "image_encoder", "transformer", "denoiser", "decoder", "postprocess"]
QUICK = ["--threads", "1", "--size", "160x120", "--warm-up", "1"]


def options(*arguments: str) -> argparse.Namespace:
    """Model options as a command has them, beside one of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=5)
    add_model_options(parser)
    return parser.parse_args(arguments)


def test_changes_are_read_as_the_options_are_and_leave_the_rest() -> None:
    base = options("--threads", "3", "--seed", "7")
    changed = with_changes(base, ["sampler=ddim", "steps=6"])
    assert (changed.sampler, changed.steps, changed.threads, changed.seed) == ("ddim", 6, 3, 7)
    assert (base.sampler, base.steps) == ("one_step", 1)
    assert "frames" not in changed


def test_every_model_option_can_be_changed() -> None:
    base = options()
    for name, value in vars(model_options(base)).items():
        if value is not None:
            text = ",".join(value) if isinstance(value, tuple) else value
            assert vars(with_changes(base, [f"{name}={text}"])) == vars(model_options(base))


def test_an_option_that_is_new_can_be_changed_without_being_named_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_more(parser: argparse.ArgumentParser) -> None:
        add_model_options(parser)
        parser.add_argument("--warmest-cache", type=Path)

    monkeypatch.setattr("camseg_core.cli.options.add_model_options", with_more)
    base = argparse.Namespace(**vars(options()), warmest_cache=None)
    for key in ("warmest-cache", "warmest_cache"):
        assert with_changes(base, [f"{key}=some/folder"]).warmest_cache == Path("some/folder")
    assert base.warmest_cache is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "banana=1",
            r"--against banana=1: must be KEY=VALUE, with KEY one of model, provider, precision, "
            "threads, sampler, .*steps, .*seed",
        ),
        ("frames=1", "--against frames=1: must be KEY=VALUE, with KEY one of model, "),
        ("sampler", "--against sampler: must be KEY=VALUE, with KEY one of model, "),
        ("step=3", "--against step=3: must be KEY=VALUE"),
        (
            "sampler=euler",
            "--against sampler=euler: invalid choice: 'euler' .*one_step.*ddim.*ancestral",
        ),
        ("steps=0", "--against steps=0: must be a whole number >= 1, got '0'"),
        ("seed=2", "--against seed=2: seed must be changed once, not twice"),
        ("threads=", "--against threads=: must be a whole number from 0 to 1024, got ''"),
    ],
)
def test_a_change_that_does_not_fit_says_what_does(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        with_changes(options(), ["seed=1", change])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "model=absent"], "no model 'absent'"),
        (["--against", "banana=1"], "--against banana=1: "),
        (["--size", "480"], "must be WIDTHxHEIGHT in pixels, such as 480x360, got '480'"),
        (["--size", "8x8"], "height and width must be >= 16, got 8x8"),
        (["--source", "absent.mp4"], "absent.mp4 does not exist"),
        (["--source", "absent.mp4", "--size", "64x64"], "not allowed with argument"),
        (
            ["--json", "/dev/null/file.json"],
            "--json /dev/null/file.json: its folder /dev/null must be a folder that can be",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--frames", "1", "--warm-up", "0", "--threads", "1", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_frames_of_two_sizes_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, width in (("a.png", 48), ("b.png", 64)):
        write_image(tmp_path / name, np.zeros((32, width, 3), np.uint8))
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--source", str(tmp_path), "--frames", "2", "--warm-up", "0"])
    assert caught.value.code == 2
    assert (
        "frames to time must have one size, got a.png of 48x32 pixels and b.png of 64x32 pixels"
        in capsys.readouterr().err
    )


def test_models_whose_ids_mean_other_classes_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint_folder("camseg-lite"), other)
    table = json.loads((other / "labels.json").read_text())
    names = [each["name"] for each in table["classes"]]
    for each, name in zip(table["classes"], [*names[1:], names[0]], strict=True):
        each["name"] = name
    table["label_set"] = "custom"
    (other / "labels.json").write_text(json.dumps(table))
    with pytest.raises(SystemExit):
        main(["bench", "--frames", "1", "--against", f"model={other}"])
    assert "must give each class the same id" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, traced_tiny_lite: list[Traced]) -> Path:
    """A checkpoint folder of the tiny model with its graphs."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_lite().save_pretrained(folder)
    export_onnx(tiny_lite(), folder, traced=traced_tiny_lite[:4])
    return folder


@pytest.mark.slow
def test_two_models_are_measured_and_compared(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "bench.json"
    changes = [
        "--against",
        "model=camseg-lite",
        "--against",
        "sampler=ddim",
        "--against",
        "steps=3",
    ]
    main(
        [
            "bench",
            *QUICK,
            "--frames",
            "5",
            "--model",
            str(tiny_folder),
            "--roofline",
            "--json",
            str(file),
            *changes,
        ]
    )
    text, content = capsys.readouterr().out, json.loads(file.read_text(encoding="utf-8"))
    assert content["about"] == {
        "source": "synthetic drive",
        "frame_size": [160, 120],
        "frames": 5,
        "warm_up": 1,
        "different_frames": 6,
    }
    assert content["machine"]["Processor"] in text
    tiny, lite = content["models"]
    assert (tiny["options"]["model"], lite["options"]["model"]) == (str(tiny_folder), "camseg-lite")
    assert (tiny["repeats"]["denoiser"], lite["repeats"]["denoiser"]) == (1, 3)
    # camseg-lite enlarges small frames
    assert (tiny["network_size"], lite["network_size"]) == ([160, 128], [320, 256])
    for model in (tiny, lite):
        assert list(model["stages_ms"]) == STAGES
        assert list(model["stages_work"]) == STAGES[1:5]
        assert len(model["frames_ms"]) == 5
        assert (
            0
            < model["latency_ms"]["p50"]
            <= model["latency_ms"]["p95"]
            <= model["latency_ms"]["p99"]
            <= max(model["frames_ms"])
        )
        assert model["frames_per_second"] == pytest.approx(5000 / sum(model["frames_ms"]))
        assert 20e6 < model["peak_memory_bytes"] < 4e9
        assert model["load_s"] > 0
    assert tiny["parameters"] < lite["parameters"]
    ratio = content["comparison"]["ratio_of_medians"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert ratio["value"] == pytest.approx(lite["latency_ms"]["p50"] / tiny["latency_ms"]["p50"])
    assert 0 <= content["comparison"]["agreement"] < 1
    assert {each["device"] for each in content["roofline"]["models"]["B"]} == {
        "AGX Orin 64 GB",
        "Orin NX 16 GB",
        "RTX 4090",
        "H100 SXM",
    }
    assert f"B takes {ratio['value']:.3f} times as long as A" in text
    assert "B: as A, but model camseg-lite, sampler ddim, steps 3\n" in text
    assert re.search(
        rf"^denoiser .* {lite['stages_work']['denoiser']['multiply_accumulates'] / 1e9:.2f}$",
        text,
        re.MULTILINE,
    )
    assert "Estimates, not measurements" in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.slow
def test_a_model_against_itself_agrees_on_real_frames_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = SyntheticDrive(frames=1, height=120, width=160)[0].image
    cv2.imwrite(str(tmp_path / "frame.png"), frame[..., ::-1])
    arguments = [
        "--source",
        str(tmp_path / "frame.png"),
        "--threads",
        "1",
        "--warm-up",
        "0",
        "--frames",
        "3",
    ]
    main(["bench", *arguments, "--against", "seed=0", "--json", str(tmp_path / "bench.json")])
    content, text = (
        json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")),
        capsys.readouterr().out,
    )
    assert content["about"]["different_frames"] == 1
    assert len(content["models"][1]["frames_ms"]) == 3
    assert content["comparison"]["agreement"] == 1
    assert "roofline" not in content
    assert "their masks agree on 100.00 % of the pixels" in text
    assert "\nB: as A\n" in text


@pytest.mark.slow
def test_without_torch_the_times_remain_and_one_line_says_what_is_missing(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['rich'] = None; "
        "import camseg_core.cli.main; camseg_core.cli.main.main()"
    )
    arguments = [
        "bench",
        *QUICK,
        "--frames",
        "2",
        "--roofline",
        "--json",
        str(tmp_path / "bench.json"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "parameters, GMAC and the roofline need torch, which is not installed: "
        "pip install '.[train]'" in done.stdout
    )
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    (model,) = content["models"]
    assert (model["parameters"], model["stages_work"], content["comparison"]) == (None, {}, None)
    assert list(model["stages_ms"]) == ["preprocess", "network", "postprocess"]
    assert "roofline" not in content
    assert "times as long" not in done.stdout
    assert "p99 ms\n" in done.stdout  # no empty column


def test_a_source_without_a_readable_image_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--source", str(tmp_path), "--frames=2", "--warm-up=0"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("has no image that can be read")
