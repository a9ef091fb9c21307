"""Providers, precisions and fused graphs: which one runs, its options, and its errors."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fused_graph import without_graphs, write_fused
from onnx import TensorProto

from camseg_core.cli.main import main
from camseg_core.config.backbone import finer_features
from camseg_core.config.model import load_config
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime import Segmenter
from camseg_core.runtime.engine import (
    PARTS,
    Engine,
    EngineOptions,
    damaged,
    graph_path,
    graphs_of,
)
from camseg_core.runtime.onnx_engine import cache_of, session_providers
from camseg_core.runtime.onnx_graph import BoundGraph, DeviceArray, HostBuffers
from camseg_core.runtime.providers import load_engine, provider_list
from camseg_core.weights import checkpoint_folder

FRAMES = [sample.image for sample in SyntheticDrive(frames=3)]
FOLDER = checkpoint_folder("camseg-lite")
CONFIG = load_config(FOLDER / "config.json")
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def provider(request: pytest.FixtureRequest) -> str:
    """Each engine of the CPU."""
    return str(request.param)


@pytest.fixture(scope="module")
def segmenter(provider: str) -> Segmenter:
    return Segmenter.from_pretrained(provider=provider, threads=1)


def engine_of(provider: str, folder: Path = FOLDER, **options: Any) -> Engine:
    return load_engine(EngineOptions(folder, threads=1, **options), provider)


# which provider


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cpu", ("cpu",)),
        ("tensorrt,cuda,cpu", ("tensorrt", "cuda", "cpu")),
        ([" cuda", "cpu"], ("cuda", "cpu")),
        ("cpu,cpu", ("cpu",)),
        ("auto", ("auto",)),
        ("openvino:GPU,openvino:CPU", ("openvino:GPU", "openvino")),
        ("onnxruntime", ("cpu",)),
    ],
)
def test_providers_come_as_a_list_with_commas_or_a_sequence(
    given: Any, wanted: tuple[str, ...]
) -> None:
    assert provider_list(given) == wanted


def test_a_missing_provider_falls_back_to_the_next_and_that_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        segmenter = Segmenter.from_pretrained(provider="tensorrt,cuda,cpu", threads=1)
    assert segmenter.provider == "cpu"
    for name in ("TensorrtExecutionProvider", "CUDAExecutionProvider"):
        assert f"needs ONNX Runtime's {name}" in segmenter.fallback
    assert caplog.messages == [f"the model runs on cpu: {segmenter.fallback}"]


def test_nothing_is_said_of_a_fallback_where_there_is_none() -> None:
    segmenter = Segmenter.from_pretrained(provider="cpu", threads=1)
    found = segmenter.provider, segmenter.fallback, segmenter.choice, segmenter.precision
    assert found == ("cpu", "", "", "int8+fp32")
    assert segmenter.engine == f"ONNX Runtime {onnxruntime.__version__} on CPU"


def test_every_provider_of_a_list_that_cannot_be_used_is_named() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'tensorrt' needs .*'cuda' needs .*put onnxruntime-gpu in place of onnxruntime",
    ):
        Segmenter.from_pretrained(provider="tensorrt,cuda")


class Sessions:
    """Replaces `InferenceSession` by one with all providers, of which only `working` start."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *working: str, raising: tuple[str, ...] = ()
    ) -> None:
        self.made: list[dict[str, Any]] = []
        true_session = onnxruntime.InferenceSession

        def make(
            path: Path,
            options: Any,
            providers: list[tuple[str, dict[str, str]]],
            enable_fallback: int,
        ) -> Any:
            self.made.append(
                {"graph": path.stem, "providers": providers, "enable_fallback": enable_fallback}
            )
            if providers[0][0] in raising:
                raise RuntimeError("no kernel image is available\nfor this device")
            session = true_session(path, options, providers=["CPUExecutionProvider"])
            started = [name for name, _ in providers if name in working]
            monkeypatch.setattr(session, "get_providers", lambda: started)
            return session

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ALL)
        monkeypatch.setattr(onnxruntime, "InferenceSession", make)


def test_a_gpu_is_set_up_for_every_graph_with_its_options_and_the_cpu_behind_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sessions = Sessions(monkeypatch, *ALL)
    cache = tmp_path / "cache" / "engines"
    assert engine_of("tensorrt,cpu", cache=cache).options.provider == "tensorrt"
    assert cache.is_dir()
    assert [made["graph"] for made in sessions.made] == list(PARTS)
    for made in sessions.made:
        assert (
            made["enable_fallback"] == 0
        )  # or ONNX Runtime would fall back by itself, and print that it does
        assert [name for name, _ in made["providers"]] == ALL
        folder = Path(made["providers"][0][1]["trt_engine_cache_path"])
        assert folder.parent == cache
        assert folder.name.startswith(f"{made['graph']}-")


def test_engines_of_graphs_with_other_weights_are_kept_apart(tmp_path: Path) -> None:
    """ONNX Runtime names them by the graph's file and outputs alone."""
    folders = []
    for content in (b"old", b"new"):
        graph = tmp_path / "denoiser.onnx"
        graph.write_bytes(content)
        os.utime(graph, ns=(len(folders), len(folders)))
        folders.append(cache_of(graph, tmp_path / "cache"))
    assert len({*folders}) == 2


def test_a_tensorrt_engine_that_cannot_be_built_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Sessions(monkeypatch, *ALL)

    class Failing:
        def __init__(self, *_: object) -> None:
            self.inputs: dict[str, object] = {}

        def run(self, _: object) -> None:
            raise RuntimeError("workspace too small\nmore")

    monkeypatch.setattr("camseg_core.runtime.onnx_engine.BoundGraph", Failing)
    engine = engine_of("tensorrt")
    with pytest.raises(ModelError, match="cannot build an engine of decoder for 2x3: workspace"):
        engine.run("decoder", {"cells": np.zeros((2, 3), np.float32)})


def test_a_provider_whose_libraries_are_missing_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    Sessions(monkeypatch, "CPUExecutionProvider")  # ONNX Runtime leaves out what does not start
    engine = engine_of("cuda,cpu")
    assert engine.options.provider == "cpu"
    assert (
        engine.options.fallback
        == "CUDAExecutionProvider did not start: its libraries (CUDA, cuDNN, TensorRT) "
        "are missing or do not match it"
    )
    with pytest.raises(ConfigError, match="^CUDAExecutionProvider did not start"):
        engine_of("cuda")


def test_a_provider_that_cannot_load_a_graph_falls_back_and_the_last_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Sessions(monkeypatch, *ALL, raising=("TensorrtExecutionProvider",))
    engine = engine_of("tensorrt,cpu")
    assert engine.options.provider == "cpu"
    assert "no kernel image is available" in engine.options.fallback
    assert "\n" not in engine.options.fallback
    with pytest.raises(ModelError, match="no kernel image"):
        engine_of("tensorrt")


def test_tensorrt_computes_in_the_precision_and_keeps_engines_and_timings_only_where_asked(
    tmp_path: Path,
) -> None:
    def options(precision: str, cache: Path | None = None) -> dict[str, str]:
        (name, given), *_ = session_providers("tensorrt", ALL, precision, cache)
        assert name == "TensorrtExecutionProvider"
        return given

    assert options("fp32") == {"trt_fp16_enable": "False"}
    assert options("fp16") == {"trt_fp16_enable": "True"}
    assert options("fp16", tmp_path) == options("fp16") | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path),
    }


def test_cuda_picks_its_kernels_the_same_way_every_time_and_fp32_means_fp32() -> None:
    for precision, tf32 in (("fp32", "0"), ("fp16", "1")):
        (name, options), (behind, _) = session_providers("cuda", ALL, precision, None)
        assert (name, behind) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert options["cudnn_conv_algo_search"] == "HEURISTIC"
        assert options["use_tf32"] == tf32


def test_operators_that_tensorrt_lacks_go_to_the_cpu_where_there_is_no_cuda() -> None:
    assert [name for name, _ in session_providers("tensorrt", [ALL[0], ALL[2]], "fp32", None)] == [
        ALL[0],
        ALL[2],
    ]


def test_an_engine_cache_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"the engine cache .*file/engines cannot be made: Not a directory"
    ):
        Segmenter.from_pretrained(engine_cache=tmp_path / "file" / "engines")


# which graphs


def test_a_precision_without_graphs_says_which_command_makes_them() -> None:
    with pytest.raises(
        ModelError,
        match=r"missing .*/onnx/fp16/image_encoder\.onnx: "
        r".*camseg export --model \S+ --precision fp16 --out FOLDER makes it",
    ):
        Segmenter.from_pretrained(precision="fp16")


def with_precisions(tmp_path: Path, *precisions: str) -> Path:
    """A checkpoint folder with the bundled fp32 parts in the place of these precisions."""
    folder = without_graphs(tmp_path)
    for precision in precisions:
        shutil.copytree(FOLDER / "onnx" / "fp32", folder / "onnx" / precision)
    return folder


@pytest.mark.parametrize(
    ("there", "provider", "taken"),
    [
        (("fp32", "fp16", "int8"), "cpu", "int8"),
        (("fp32", "fp16"), "cpu", "fp32"),
        (("fp32", "int8"), "openvino:GPU", "int8"),
        (("fp32", "fp16", "int8"), "cuda", "fp16"),
        (("fp32", "int8"), "tensorrt", "fp32"),
    ],
)
def test_auto_takes_the_best_that_the_folder_has_for_the_provider(
    tmp_path: Path, there: tuple[str, ...], provider: str, taken: str
) -> None:
    assert graphs_of(with_precisions(tmp_path, *there), provider, "auto", None).precision == taken


def test_a_fallback_takes_the_graphs_that_suit_the_provider_that_starts(tmp_path: Path) -> None:
    segmenter = Segmenter.from_pretrained(
        with_precisions(tmp_path, "fp16", "int8"), provider="cuda,cpu"
    )
    assert (segmenter.provider, segmenter.precision) == ("cpu", "int8+fp32")


def test_a_provider_without_graphs_falls_back_to_one_that_has_some(tmp_path: Path) -> None:
    segmenter = Segmenter.from_pretrained(with_precisions(tmp_path, "int8"), provider="cuda,cpu")
    assert segmenter.provider == "cpu"
    assert "fp32/image_encoder.onnx" in segmenter.fallback


def test_fp16_graphs_on_the_cpu_are_computed_in_fp32(tmp_path: Path) -> None:
    folder = with_precisions(tmp_path, "fp16")
    segmenter = Segmenter.from_pretrained(folder, provider="cpu", precision="fp16")
    assert segmenter.precision == "fp16+fp32"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("bad magic\nmore"), "bad magic; the file is damaged, fetch or export"),
        (RuntimeError("Failed to allocate memory for requested buffer"), "not enough memory"),
        (MemoryError(), "MemoryError; there is not enough memory"),
        (PermissionError("denied"), "denied; make it readable"),
    ],
)
def test_a_graph_that_cannot_be_loaded_says_what_to_do(error: Exception, remedy: str) -> None:
    assert remedy in str(damaged(Path("x.onnx"), error))


def test_int8_on_a_gpu_is_refused_with_the_precision_to_choose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ALL)
    with pytest.raises(ConfigError, match="int8 graphs are made for CPUs.*cuda.*choose fp16"):
        Segmenter.from_pretrained(
            with_precisions(tmp_path, "int8"), provider="cuda", precision="int8"
        )


def first_number(seed: int) -> np.float32:
    return np.random.default_rng(seed).standard_normal(1, np.float32)[0]


def test_a_fused_graph_is_used_where_the_checkpoint_has_it(tmp_path: Path, provider: str) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("ddim", 4))
    result = Segmenter.from_pretrained(
        folder, provider=provider, sampler="ddim", steps=4, seed=3, temperature=0.5
    ).segment(FRAMES[0])
    assert list(result.timings) == ["preprocess", "network", "postprocess"]
    assert (result.mask == 13).all()
    logit_scale = load_config(folder / "config.json").logit_scale
    # ddim scales the noise that it starts from; OpenVINO may compute in bf16, of eight bits
    assert result.confidence == pytest.approx(0.5 * logit_scale * first_number(3), rel=2**-7)
    for other in ({"steps": 5}, {"eta": 0.5}, {"sampler": "dpm_solver"}, {"sampler": "ancestral"}):
        with pytest.raises(
            ModelError, match=r"missing .*image_encoder\.onnx"
        ):  # so the parts are what would run
            Segmenter.from_pretrained(
                folder, provider=provider, **{"sampler": "ddim", "steps": 4} | other
            )


def test_one_step_takes_one_step_for_any_number_of_steps_and_leaves_its_noise_unscaled(
    tmp_path: Path, provider: str
) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("one_step", 1))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"logit_scale": 2.5}))
    for steps in (1, 7):
        segmenter = Segmenter.from_pretrained(
            folder, provider=provider, precision="fp32", steps=steps
        )
        assert segmenter.segment(FRAMES[0]).confidence == pytest.approx(2.5 * first_number(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ancestral:4",
            "sampler 'ancestral' cannot be fused into one graph; "
            "choose one of one_step, ddim, dpm_solver",
        ),
        ("ddim:four", "a fused graph must be SAMPLER:STEPS, as in ddim:4, got 'ddim:four'"),
        ("ddim:0", "steps of a fused graph must be >= 1, got 0"),
        ("one_step:3", "steps of one_step must be 1, got 3"),
    ],
)
def test_a_graph_that_cannot_be_fused_is_reported(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fused.parse(text)


def test_fused_graphs_are_named_by_sampler_and_steps() -> None:
    assert Fused.parse("one_step") == Fused.parse("one_step:1") == Fused("one_step", 1)
    assert Fused.parse("dpm_solver:12").name == "fused_dpm_solver_12"


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("onnx/*/*.onnx")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_the_bundled_graphs_ask_for_no_newer_runtime_than_the_package_does(path: Path) -> None:
    """ONNX Runtime 1.17 reads format 9 and operator set 20, and has no DepthToSpace for bytes."""
    graph = onnx.load(path)
    assert graph.ir_version <= 9
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 20)]
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(graph).graph.value_info
    }
    assert all(
        types[node.output[0]] == TensorProto.FLOAT
        for node in graph.graph.node
        if node.op_type == "DepthToSpace"
    )


def test_the_graphs_take_and_give_what_their_users_rely_on() -> None:
    def ends(part: str) -> tuple[dict[str, tuple[str, int]], dict[str, tuple[str, int]]]:
        session = onnxruntime.InferenceSession(
            graph_path(FOLDER, "fp32", part), providers=["CPUExecutionProvider"]
        )
        given, got = (
            {each.name: (each.type, len(each.shape)) for each in side}
            for side in (session.get_inputs(), session.get_outputs())
        )
        return given, got

    floats = "tensor(float)"
    assert CONFIG.image_encoder is not None
    finer = [f"features_{each.stride}" for each in finer_features(CONFIG.image_encoder.stride)]
    maps = dict.fromkeys(("features", *finer), (floats, 4))
    assert ends("image_encoder") == ({"image": ("tensor(uint8)", 4)}, maps)
    assert ends("transformer") == (
        maps | {"mask": (floats, 3), "hidden": ("tensor(bool)", 2)},
        {"condition": (floats, 3)},
    )
    assert ends("denoiser") == (
        {"tokens": (floats, 2), "step": ("tensor(int64)", 1), "condition": (floats, 2)},
        {"output": (floats, 2)},
    )
    given = {"latents": (floats, 5), "sharpness": (floats, 0)}
    assert ends("decoder") == (given, {"mask": ("tensor(uint8)", 3), "confidence": (floats, 3)})


def test_the_transformer_hears_what_is_known_and_hiding_everything_is_the_default(
    provider: str,
) -> None:
    engine = engine_of(provider)
    features = engine.run("image_encoder", {"image": FRAMES[0][None, :64, :96]})
    assert engine.takes_mask
    tokens = features["features"].shape[2] * features["features"].shape[3]
    size = 1, tokens, CONFIG.token_channels
    mask = np.random.default_rng(0).standard_normal(size, np.float32)
    nothing, everything_hidden, half_known = (
        np.array(engine.run("transformer", {**features, **known})["condition"])
        for known in (
            {},
            {"mask": mask, "hidden": np.ones((1, tokens), np.bool_)},
            {"mask": mask, "hidden": np.arange(tokens)[None] % 2 == 0},
        )
    )
    assert np.array_equal(nothing, everything_hidden)
    assert not np.allclose(nothing, half_known, atol=0.1)


def test_the_decoder_averages_probabilities_over_samples_and_sharpens_them(provider: str) -> None:
    engine = engine_of(provider, precision="fp32")

    def decode(latents: np.ndarray, logit_scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        inputs = {"latents": latents, "sharpness": np.array(logit_scale, np.float32)}
        mask, confidence = engine.run("decoder", inputs).values()
        return mask, confidence

    latents = np.random.default_rng(0).standard_normal((2, 3, 8, 16, 24), np.float32)
    mask, confidence = decode(latents)
    assert mask.shape == confidence.shape == (2, 64, 96)
    same = np.repeat(latents[:, :1], 3, axis=1)
    for once, thrice in zip(decode(latents[:, :1]), decode(same), strict=True):
        assert once == pytest.approx(thrice, abs=1e-5)
    alone = np.stack([decode(latents[:, i : i + 1])[1] for i in range(3)])
    assert confidence.mean() < alone.mean()  # samples that disagree are less sure together
    sharper, confident = decode(latents[:, :1], logit_scale=3.0)
    assert np.array_equal(sharper, decode(latents[:, :1])[0])
    assert (confident >= alone[0] - 1e-6).all()


def test_the_logit_scale_changes_the_confidence_and_not_the_mask(segmenter: Segmenter) -> None:
    plain = segmenter.segment(FRAMES[0])
    config = replace(segmenter.config, logit_scale=0.3)
    # the graph that runs by default, as `segmenter` has it
    engine = load_engine(EngineOptions(FOLDER, threads=1), segmenter.provider, Fused("one_step", 1))
    softer = Segmenter(config, segmenter.labels, engine).segment(FRAMES[0])
    assert np.array_equal(softer.mask, plain.mask)
    assert (softer.confidence <= plain.confidence + 1e-6).all()
    assert softer.confidence.mean() < plain.confidence.mean() - 0.05


def test_a_configuration_from_before_the_logit_scale_loads_and_one_that_makes_no_sense_does_not(
    tmp_path: Path,
) -> None:
    content = json.loads((FOLDER / "config.json").read_text())
    content.pop("logit_scale", None)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    assert load_config(path).logit_scale == 1.0
    path.write_text(json.dumps(content | {"logit_scale": 0.0}))
    with pytest.raises(ModelError, match=r"logit_scale must be a finite number > 0, got 0\.0"):
        load_config(path)


# how frames go through


@pytest.mark.parametrize(("sampler", "steps", "eta"), [("one_step", 1, 0.0), ("ddim", 2, 1.0)])
def test_frames_in_a_batch_get_what_they_get_alone(
    provider: str, sampler: str, steps: int, eta: float
) -> None:
    segmenter = Segmenter.from_pretrained(
        provider=provider, sampler=sampler, steps=steps, eta=eta, threads=1
    )
    frames = [
        FRAMES[0][:128, :160],
        FRAMES[1][:96, :64],
        FRAMES[2][:128, :160],
        FRAMES[0][:100, :160],
    ]  # all but the second padded alike
    results = segmenter.segment_batch(frames)
    for frame, together in zip(frames, results, strict=True):
        alone = segmenter.segment(frame)
        assert np.array_equal(together.mask, alone.mask)
        assert together.confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert list(together.timings) == list(alone.timings)
    assert segmenter.segment_batch([]) == []


def test_ddims_share_of_noise_is_passed_on(provider: str) -> None:
    masks = [
        Segmenter.from_pretrained(provider=provider, sampler="ddim", steps=3, eta=eta, threads=1)
        .segment(FRAMES[0])
        .confidence
        for eta in (0.0, 1.0)
    ]
    assert not np.array_equal(*masks)


def test_warming_up_takes_a_frame_of_the_cameras_size(segmenter: Segmenter) -> None:
    assert segmenter.warm_up(60, 90) > 0
    assert segmenter.warm_up(60, 90, batch=2) > 0


def test_what_a_graph_leaves_for_the_next_can_be_bound_in_another_shape() -> None:
    engine = engine_of("cpu")
    width, channels = CONFIG.condition_width, CONFIG.denoised_channels
    condition = np.random.default_rng(0).standard_normal((2, 6, width), np.float32)
    tokens = np.random.default_rng(1).standard_normal((12, channels), np.float32)
    kept = DeviceArray(onnxruntime.OrtValue.ortvalue_from_numpy(condition), condition.shape)
    inputs = {"tokens": tokens, "step": np.array([999])}
    found, expected = (
        engine.run("denoiser", {**inputs, "condition": each.reshape(-1, width)})["output"]
        for each in (kept, condition)
    )
    assert np.array_equal(found, expected)
    assert kept.reshape(-1, width).shape == (12, width)
    assert np.array_equal(np.asarray(kept.reshape(12, width)), condition.reshape(12, width))


def test_page_locked_buffers_are_used_again_and_results_are_copies() -> None:
    """The CPU's memory stands in for a GPU's: the same calls of ONNX Runtime."""
    devices = onnxruntime.get_ep_devices()
    info = devices[0].memory_info(onnxruntime.OrtDeviceMemoryType.DEFAULT)
    buffers = HostBuffers(info, onnxruntime.OrtValue.ortvalue_from_shape_and_type)
    session = onnxruntime.InferenceSession(
        graph_path(FOLDER, "fp32", "decoder"), providers=["CPUExecutionProvider"]
    )
    buffered, plain = (BoundGraph(session, "cpu", host_buffers=each) for each in (buffers, None))
    random = np.random.default_rng(0)
    inputs = [
        {
            "latents": random.standard_normal((1, 1, 8, 8, 8), np.float32),
            "sharpness": np.array(1.0, np.float32),
        }
        for _ in range(3)
    ]
    found = [list(buffered.run(each).values()) for each in inputs]
    for each, ours in zip(inputs, found, strict=True):
        for one, other in zip(ours, plain.run(each).values(), strict=True):
            assert np.array_equal(one, other)
    assert buffers.get("latents", (1, 1, 8, 8, 8), np.float32) is buffers.get(
        "latents", (1, 1, 8, 8, 8), np.float32
    )


def test_the_buffers_least_recently_used_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []

    def make(shape: list[int], *_: Any, **__: Any) -> list[int]:
        made.append(shape)
        return shape

    monkeypatch.setattr("camseg_core.runtime.onnx_graph.MAX_CACHED_BUFFERS", 2)
    buffers = HostBuffers(None, make)
    sizes = (1, 2, 1, 3, 1, 2)
    assert [buffers.get("image", (size,), np.uint8) for size in sizes] == [[s] for s in sizes]
    assert made == [[1], [2], [3], [2]]


def test_without_page_locked_memory_frames_go_without() -> None:
    assert HostBuffers.of(onnxruntime, ["CUDAExecutionProvider"]) is None
    assert (
        HostBuffers.of(object(), ["CUDAExecutionProvider"]) is None
    )  # an ONNX Runtime from before


# the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["segment", ".", "--provider", "cuda,npu"],
            "provider must be one of auto, cpu, openvino, ",
        ),
        (
            ["bench", "--provider", "cuda"],
            "provider 'cuda' needs ONNX Runtime's CUDAExecutionProvider",
        ),
        (["segment", ".", "--precision", "int4"], "invalid choice: 'int4'"),
        (["bench", "--precision", "fp16"], "camseg export --model"),
        (["segment", ".", "--temperature", "-1"], "must be a number >= 0, got '-1'"),
        (["segment", ".", "--eta", "2"], "must be a number from 0 to 1, got '2'"),
        (
            ["build-engine", "--size", "480x360", "--engine-cache", "CACHE"],
            "needs ONNX Runtime's TensorrtExecutionProvider",
        ),
        (
            ["build-engine", "--size", "480", "--engine-cache", "CACHE"],
            "must be WIDTHxHEIGHT in pixels, such as 480x360, got '480'",
        ),
        (["build-engine", "--engine-cache", "CACHE"], "--size"),
        (["export", "--fused", "ancestral:3"], "'ancestral' cannot be fused into one graph"),
        (["export"], "--out must name a folder for the graphs of the bundled camseg-lite"),
        (["export", "--precision", "int8"], "name a data set with --data ROOT"),
        (["export", "--model", "nothing"], "no model 'nothing'"),
        (["export", "--data", "nowhere"], "no split 'val' in nowhere"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path) if argument == "CACHE" else argument for argument in arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_engines_are_built_for_every_size_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the CPU in place of TensorRT, which is missing here."""
    sessions = Sessions(monkeypatch, *ALL)
    monkeypatch.setattr(
        "camseg_core.runtime.onnx_engine.BoundGraph",
        lambda session, device, keep, buffers: BoundGraph(session, "cpu", keep),
    )
    (tmp_path / "one.engine").write_bytes(b"0" * 2_000_000)
    sizes = ["--size", "96x64", "--size", "64x32"]
    cache = ["--engine-cache", str(tmp_path)]
    main(["build-engine", *sizes, *cache, "--batch", "2", "--streams", "--samples", "2"])
    lines = capsys.readouterr().out.splitlines()
    of_two = " for 2 frames at once"
    built = ["96x64", f"96x64{of_two}", "64x32", f"64x32{of_two}"]
    assert [line.split(":")[0] for line in lines] == [*built, str(tmp_path)]
    assert lines[-1].endswith(": 1 files, 2 MB, for camseg-lite in fp32")
    assert {name for made in sessions.made for name, _ in made["providers"][:1]} == {
        "TensorrtExecutionProvider"
    }


def test_a_configuration_with_the_old_names_loads_and_names_the_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    content = json.loads((FOLDER / "config.json").read_text())
    content["noise_steps"] = content.pop("num_train_timesteps")
    content["sharpness"] = content.pop("logit_scale")
    content["denoiser"]["prediction"] = content["denoiser"].pop("prediction_type")
    path.write_text(json.dumps(content))
    assert load_config(path) == load_config(FOLDER / "config.json")
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: noise_steps is now called num_train_timesteps",
        f"{path}: sharpness is now called logit_scale",
        f"{path}: denoiser.prediction is now called prediction_type",
    ]
    content["denoiser"]["prediction"] = "noise"
    path.write_text(json.dumps(content))
    assert load_config(path).denoiser.prediction_type == "epsilon"
