"""OpenVINO beside ONNX Runtime: the choice between them, precisions, compilation and its cache."""

import hashlib
import importlib.util
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fused_graph import without_graphs, write_fused
from onnx import TensorProto, helper

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime import Segmenter, openvino_engine
from camseg_core.runtime.engine import Compilations, EngineOptions, graph_path, precision_name
from camseg_core.runtime.openvino_engine import OpenVinoEngine, openvino_core
from camseg_core.runtime.providers import load_engine
from camseg_core.weights import checkpoint_folder

FRAMES = [sample.image for sample in SyntheticDrive(frames=4)]
FOLDER = checkpoint_folder("camseg-lite")
CPU_ONLY = "tensorrt needs onnxruntime-gpu; cuda needs onnxruntime-gpu"


def has_bf16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class SharedCore:
    """The core of this process, for tests that change what it answers."""

    shared = openvino_core()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shared, name)


def without_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a package look as if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "camseg_core.runtime.providers.find_spec",
        lambda wanted: None if wanted == name else find(wanted),
    )
    monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained(provider="openvino", threads=1)


def untranslatable(folder: Path) -> Path:
    """A checkpoint folder whose graph has an operator that ONNX Runtime has and OpenVINO lacks."""
    fused = Fused("one_step", 1)
    write_fused(folder, fused)
    path = graph_path(folder, "fp32", fused.name)
    model = onnx.load(path)
    square = helper.make_tensor("square", TensorProto.FLOAT, [2, 2], [1.0, 0.0, 0.0, 1.0])
    model.graph.initializer.append(square)
    nodes = [
        helper.make_node("Det", ["square"], ["one"]),
        helper.make_node("Mul", ["scaled", "one"], ["product"]),
    ]
    at = next(i for i, node in enumerate(model.graph.node) if "scaled" in node.input)
    model.graph.node[at].input[0] = "product"
    for node in reversed(nodes):
        model.graph.node.insert(at, node)
    onnx.save(model, path)
    return folder


# which engine


def test_auto_takes_openvino_where_it_is_installed_and_says_why() -> None:
    segmenter = Segmenter.from_pretrained(threads=1)
    assert (segmenter.provider, segmenter.fallback) == ("openvino", "")
    assert segmenter.choice == f"auto: {CPU_ONLY}"
    assert segmenter.engine.startswith("OpenVINO 20")
    assert segmenter.engine.endswith(" on CPU")


def test_auto_takes_onnx_runtime_where_openvino_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "openvino")
    segmenter = Segmenter.from_pretrained(threads=1)
    assert segmenter.provider == "cpu"
    assert segmenter.choice == f"auto: {CPU_ONLY}; openvino is not installed"
    assert segmenter.fallback == ""


def test_a_provider_named_outright_is_an_error_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_package(monkeypatch, "openvino")
    with pytest.raises(ConfigError, match="OpenVINO cannot be imported.*pip install openvino"):
        Segmenter.from_pretrained(provider="openvino")


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ConfigError, match=f"needs an OpenVINO device {device} and its driver"):
        Segmenter.from_pretrained(provider=f"openvino:{device}")


def test_a_device_of_openvinos_own_choice_runs() -> None:
    segmenter = Segmenter.from_pretrained(provider="openvino:AUTO", precision="fp32")
    assert segmenter.provider == "openvino:AUTO"
    assert segmenter.precision == "fp32"
    assert segmenter.segment(FRAMES[0]).mask.shape == FRAMES[0].shape[:2]


def test_auto_goes_on_with_the_next_if_a_model_cannot_be_compiled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = untranslatable(without_graphs(tmp_path))
    with caplog.at_level(logging.WARNING):
        segmenter = Segmenter.from_pretrained(folder)
    assert segmenter.provider == "cpu"
    (message,) = caplog.messages
    assert message.startswith("openvino cannot run the model: ")
    assert "\n" not in message
    assert message.removeprefix("openvino cannot run the model: ") in segmenter.choice
    assert (segmenter.segment(FRAMES[0]).mask == 13).all()


def test_a_model_that_cannot_be_compiled_is_one_line_if_openvino_is_named(tmp_path: Path) -> None:
    folder = untranslatable(without_graphs(tmp_path))
    with pytest.raises(ModelError) as caught:
        Segmenter.from_pretrained(folder, provider="openvino")
    assert "fused_one_step_1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trial_that_fails_for_any_reason_passes_to_the_next_provider(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(self: OpenVinoEngine, *_: object) -> None:
        raise RuntimeError("out of memory\nat the driver")

    monkeypatch.setattr(OpenVinoEngine, "run", run)
    segmenter = Segmenter.from_pretrained()
    assert segmenter.provider == "cpu"
    assert [each.count("\n") for each in caplog.messages] == [0]
    assert "cannot run the model: out of memory" in caplog.messages[0]


def test_a_damaged_graph_is_named_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("one_step", 1))
    path = graph_path(folder, "fp32", "fused_one_step_1")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        Segmenter.from_pretrained(folder, provider="openvino")
    assert str(caught.value).startswith(f"cannot load {path}: ")
    assert str(caught.value).endswith("the file is damaged, fetch or export it again")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_auto_stands_alone() -> None:
    with pytest.raises(ConfigError, match="provider auto must be given alone, got auto,cpu"):
        Segmenter.from_pretrained(provider="auto,cpu")


# precisions


@pytest.mark.parametrize(
    ("graphs", "arithmetic", "name"),
    [
        ("fp32", "fp32", "fp32"),
        ("fp32", "bf16", "bf16"),
        ("int8", "bf16", "int8+bf16"),
        ("fp16", "fp16", "fp16"),
        ("fp16", "fp32", "fp16+fp32"),
    ],
)
def test_a_precision_is_named_by_graphs_and_arithmetic(
    graphs: str, arithmetic: str, name: str
) -> None:
    assert precision_name(graphs, arithmetic) == name


def test_fp32_is_f32_arithmetic_and_equal_on_999_of_1000_pixels() -> None:
    engines = [
        Segmenter.from_pretrained(provider=provider, precision="fp32")
        for provider in ("cpu", "openvino")
    ]
    assert [each.precision for each in engines] == ["fp32", "fp32"]
    masks = [[each.segment(frame).mask for frame in FRAMES] for each in engines]
    assert np.mean(np.array(masks[0]) == np.array(masks[1])) > 0.999


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("provider", ["openvino", "openvino:AUTO"])
@pytest.mark.parametrize("size", [(64, 96), (20, 190)])
def test_a_frame_of_as_many_tokens_as_attention_has_heads_is_as_on_onnx_runtime(
    size: tuple[int, int],
    provider: str,
    cached: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    reference = Segmenter.from_pretrained(provider="cpu", precision="fp32").segment(frame)
    options: dict[str, Any] = {"provider": provider, "precision": "fp32"}
    if provider == "openvino":
        options["threads"] = 4
    if cached:  # as an older version left it
        options["engine_cache"] = tmp_path
        with monkeypatch.context() as patch:
            patch.setattr(openvino_engine, "_as_many_tokens_as_heads", lambda _: False)
            Segmenter.from_pretrained(**options).segment(frame)
    segmenter = Segmenter.from_pretrained(**options)
    for _ in range(10):
        found = segmenter.segment(frame)
        assert np.mean(found.mask == reference.mask) > 0.999
        assert np.allclose(found.confidence, reference.confidence, atol=1e-3)


@pytest.mark.skipif(not has_bf16(), reason="the processor has no bf16")
def test_bf16_runs_on_fp32_graphs_and_is_equal_on_97_of_100_pixels() -> None:
    reference = Segmenter.from_pretrained(provider="cpu", precision="fp32")
    segmenter = Segmenter.from_pretrained(provider="openvino", precision="bf16")
    assert segmenter.precision == "bf16"
    assert {path.parent.name for path in segmenter.graph_files} == {"fp32"}
    equal = [segmenter.segment(f).mask == reference.segment(f).mask for f in FRAMES]
    assert np.mean(equal) > 0.97


def test_auto_takes_int8_graphs_and_the_processors_fastest_arithmetic(
    segmenter: Segmenter,
) -> None:
    assert segmenter.precision == ("int8+bf16" if has_bf16() else "int8+fp32")


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_bf16_is_refused_by_onnx_runtime(provider: str) -> None:
    with pytest.raises(ConfigError, match="bf16 needs provider openvino|CUDAExecutionProvider"):
        Segmenter.from_pretrained(provider=provider, precision="bf16")


def test_a_processor_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(SharedCore):
        def get_property(self, device: str, name: str, *rest: Any) -> Any:
            if name == "OPTIMIZATION_CAPABILITIES":
                return ["FP32", "INT8"]
            return self.shared.get_property(device, name, *rest)

    monkeypatch.setattr(openvino_engine, "openvino_core", Older)
    with pytest.raises(ConfigError, match="bf16 needs a processor with bf16 .* only FP32, INT8"):
        load_engine(EngineOptions(FOLDER, precision="bf16"), "openvino")


# the same seed, the same mask


def hashes(segmenter: Segmenter) -> list[str]:
    results = [segmenter.segment(frame) for frame in FRAMES]
    arrays = [array for each in results for array in (each.mask, each.confidence)]
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


RESTARTED = """
import sys
from test_openvino import hashes, Segmenter
options = dict(zip(("precision", "engine_cache"), sys.argv[1:]))
print(*hashes(Segmenter.from_pretrained(provider="openvino", threads=2, **options)))
"""


def restarted(*options: str) -> list[str]:
    """Return the hashes of another process."""
    command = [sys.executable, "-c", RESTARTED, *options]
    folder = Path(__file__).parent
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return found.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_same_frames_give_the_same_bytes_twice_and_after_a_restart(
    tmp_path: Path, precision: str
) -> None:
    segmenter = Segmenter.from_pretrained(provider="openvino", precision=precision, threads=2)
    first = hashes(segmenter)
    assert hashes(segmenter) == first
    cache = str(tmp_path / "cache")
    # compiled anew, compiled and kept, and read from the cache
    for options in ((precision,), (precision, cache), (precision, cache)):
        assert restarted(*options) == first
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("left", [0, 100, 0.5, 0.9])
def test_a_cache_that_was_cut_short_is_compiled_again(tmp_path: Path, left: float) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("one_step", 1))
    cache = tmp_path / "cache"
    before = Segmenter.from_pretrained(folder, provider="openvino", engine_cache=cache)
    (path,) = cache.glob("*.blob")
    content = path.read_bytes()
    path.write_bytes(content[: int(left if left >= 1 else left * len(content))])
    after = Segmenter.from_pretrained(folder, provider="openvino", engine_cache=cache)
    for found, expected in zip(
        (after.segment(FRAMES[0]).mask, after.segment(FRAMES[0]).confidence),
        (before.segment(FRAMES[0]).mask, before.segment(FRAMES[0]).confidence),
        strict=True,
    ):
        assert np.array_equal(found, expected)


def test_results_are_not_overwritten_by_the_next_frame(segmenter: Segmenter) -> None:
    first = segmenter.segment(FRAMES[0])
    mask, confidence = first.mask.copy(), first.confidence.copy()
    segmenter.segment(255 - FRAMES[0])
    assert np.array_equal(first.mask, mask)
    assert np.array_equal(first.confidence, confidence)


# compilation


def test_a_size_is_compiled_once_and_the_least_recently_used_is_dropped(
    tmp_path: Path,
) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("one_step", 1))
    segmenter = Segmenter.from_pretrained(
        folder, provider="openvino", frame_size=(64, 96), kept_sizes=2
    )
    assert segmenter.compilations.count == 1
    # a frame of 96×64 is enlarged
    assert segmenter.compilations.last.startswith("fused_one_step_1 for 192x128 in ")
    for side, count in ((64, 1), (128, 2), (64, 2), (128, 2), (192, 3), (64, 4)):
        segmenter.segment(np.zeros((side, 96, 3), np.uint8))
        assert segmenter.compilations.count == count


def test_other_sampling_counts_its_compilations_with_the_models(segmenter: Segmenter) -> None:
    other = segmenter.with_sampling(segmenter.sampling)
    assert other.compilations is segmenter.compilations


def test_passes_of_any_number_of_cells_need_no_further_compilation() -> None:
    segmenter = Segmenter.from_pretrained(provider="openvino", passes=5, threads=1)
    compiled = segmenter.compilations.count
    segmenter.segment(np.zeros((384, 480, 3), np.uint8))
    assert segmenter.compilations.count == compiled <= 4


def test_seconds_spent_compiling_are_counted_from_a_moment_on() -> None:
    compilations, waits = Compilations(), (0.05, 0.05)
    began = time.monotonic()
    with compilations.compiling("a"):
        assert compilations.running == "a"
        time.sleep(waits[0])
    middle = time.monotonic()
    assert compilations.running == ""
    with compilations.compiling("b"):
        time.sleep(waits[1])
        assert compilations.seconds_since(middle) >= waits[1]  # while it goes on
    assert compilations.count == 2
    assert compilations.last.startswith("b in ")
    assert compilations.seconds_since(began) >= sum(waits)
    assert compilations.seconds_since(time.monotonic()) == 0
    assert compilations.seconds_since(middle) <= time.monotonic() - middle


def test_other_threads_run_while_a_graph_is_compiled() -> None:
    """A compilation that held Python's lock would stop the watchdog and the signal handling."""
    beats, over = list[float](), threading.Event()

    def beat() -> None:
        while not over.wait(0.005):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    Segmenter.from_pretrained(provider="openvino", precision="fp32")
    over.set()
    thread.join()
    assert len(beats) > 10


def test_a_signal_reaches_its_handler_after_engines_have_gone() -> None:
    """OpenVINO sets the stack of signal handlers: one that was freed would end the process."""
    code = """
import os, signal
from camseg_core.runtime.engine import EngineOptions
from camseg_core.runtime.providers import load_engine
from camseg_core.weights import checkpoint_folder
signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
options = EngineOptions(checkpoint_folder("camseg-lite"))
engines = [load_engine(options, "openvino") for _ in range(3)]
while engines:
    engines.pop(0)  # in the order in which they came
    os.kill(os.getpid(), signal.SIGCHLD)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout.split()) == (0, ["handled"] * 3), found.stderr


def test_nothing_is_reported_over_the_network_when_openvino_is_imported() -> None:
    code = """
import sys
from camseg_core.runtime.openvino_engine import openvino_module
openvino_module()
print(sorted(name for name, module in sys.modules.items() if "telemetry" in name and module))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    senders = [name for name in found.stdout.split("'") if name.startswith("openvino_telemetry")]
    assert senders == []


def test_every_device_is_compiled_for_with_a_latency_hint_and_no_pinned_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[str, dict[str, object]]] = []

    class Intel(SharedCore):
        """A machine with Intel graphics; what would run there runs on the CPU."""

        available_devices: Sequence[str] = ("CPU", "GPU.0", "GPU.1", "NPU")

        def get_property(self, device: str, name: str, *rest: Any) -> Any:
            if device != "CPU" and name == "OPTIMIZATION_CAPABILITIES":
                return ["FP32", "FP16", "INT8"]
            return self.shared.get_property("CPU", name, *rest)

        def compile_model(self, model: Any, device: str, settings: dict[str, object]) -> Any:
            seen.append((device, settings))
            return self.shared.compile_model(model, "CPU")

    monkeypatch.setattr(openvino_engine, "openvino_core", Intel)
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("one_step", 1))
    for device in ("GPU", "NPU", "AUTO"):
        segmenter = Segmenter.from_pretrained(
            folder, provider=f"openvino:{device}", precision="fp32", threads=1
        )
        assert segmenter.engine.endswith(f" on {device}")
        assert seen[-1] == (
            device,
            {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
        )
    Segmenter.from_pretrained(folder, provider="openvino", threads=3, engine_cache=tmp_path)
    assert seen[-1] == (
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": 3,
            "CACHE_DIR": str(tmp_path),
        },
    )
