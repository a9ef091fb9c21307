"""Graphs of the tiny model in every precision: as good as torch, or not kept. Tracing is slow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import published
import pytest
import reference
import torch
from camvid_folder import write_camvid
from lite import tiny_lite
from onnx import TensorProto

from camseg_core.cli.graphs import lines
from camseg_core.cli.main import main
from camseg_core.data.sets import open_set
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, DataError, ModelError
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.export import Exported, Scores, export_onnx
from camseg_core.export import check as scoring
from camseg_core.export.check import SIZES, Difference, Tolerance, check
from camseg_core.export.graphs import Traced, trace
from camseg_core.export.parts import fused_part, parts_of
from camseg_core.export.torch_engine import TorchEngine, decoder_module
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.runtime.engine import PARTS, EngineOptions, graph_path
from camseg_core.runtime.onnx_engine import OnnxEngine

pytestmark = pytest.mark.slow
SIZE = (64, 96)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("data"), "train", "val", size=SIZE)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, traced_tiny_lite: list[Traced], data: Path
) -> Path:
    """A checkpoint folder with graphs in every precision."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    tiny_lite().save_pretrained(folder)
    val = list(open_set("camvid", data, "val").samples)
    for precision in ("fp32", "fp16", "int8"):
        exported = export_onnx(
            tiny_lite(),
            folder,
            precision,
            traced=traced_tiny_lite,
            calibration=list(open_set("camvid", data, "train").samples),
            scores=Scores(tiny_lite(), val),
        )
        assert list(exported.mean_iou) == ["one_step:1", "ddim:10", "fused_ddim_2"]
        assert list(exported.sizes) == list(exported.differences) == [*PARTS, "fused_ddim_2"]
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(("sampler", "steps"), [("one_step", 1), ("ddim", 2), ("dpm_solver", 2)])
def test_masks_are_torchs(
    folder: Path, data: Path, precision: str, sampler: str, steps: int
) -> None:
    model, image = tiny_lite(), open_set("camvid", data, "val").samples[0].image
    expected = Segmenter(
        model.config, model.labels, TorchEngine(model), Sampling(sampler, steps)
    ).segment(image)
    found = Segmenter.from_pretrained(
        folder, precision=precision, sampler=sampler, steps=steps, threads=1
    ).segment(image)
    assert ("network" in found.timings) == (sampler == "ddim")
    # with random weights, classes hardly differ in probability: many pixels are near a tie
    assert (found.mask == expected.mask).mean() > {"fp32": 0.995, "fp16": 0.97, "int8": 0.5}[
        precision
    ]
    assert (
        np.abs(found.confidence - expected.confidence).max()
        < {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.2}[precision]
    )


def test_a_fused_graph_gives_what_the_parts_give(folder: Path, data: Path) -> None:
    model, image = tiny_lite(), open_set("camvid", data, "val").samples[1].image
    parts = Segmenter(
        model.config,
        model.labels,
        OnnxEngine(EngineOptions(folder, precision="fp32")),
        Sampling("ddim", 2, 0.7, seed=5),
    ).segment(image)
    fused = Segmenter.from_pretrained(
        folder, precision="fp32", sampler="ddim", steps=2, temperature=0.7, seed=5
    ).segment(image)
    assert list(fused.timings) == ["preprocess", "network", "postprocess"]
    assert (fused.mask == parts.mask).mean() > 0.999
    assert fused.confidence == pytest.approx(parts.confidence, abs=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_goes_in_and_comes_out_is_the_same_in_every_precision(
    folder: Path, precision: str
) -> None:
    def ends(chosen: str, graph: str) -> list[tuple[str, int, int]]:
        content = onnx.load(graph_path(folder, chosen, graph)).graph
        tensors = [(each.name, each.type.tensor_type) for each in (*content.input, *content.output)]
        return [(name, tensor.elem_type, len(tensor.shape.dim)) for name, tensor in tensors]

    for graph in (*PARTS, "fused_ddim_2"):
        assert ends(precision, graph) == ends("fp32", graph)


def test_fp16_graphs_compute_in_fp16_and_int8_graphs_in_int8(folder: Path) -> None:
    def nodes(precision: str, part: str) -> list[str]:
        return [node.op_type for node in onnx.load(graph_path(folder, precision, part)).graph.node]

    for part in PARTS:
        weights = {
            weight.data_type
            for weight in onnx.load(graph_path(folder, "fp16", part)).graph.initializer
            if len(weight.dims) > 1
        }
        assert TensorProto.FLOAT16 in weights, part
        assert "QuantizeLinear" in nodes("int8", part), part
        assert "QuantizeLinear" not in nodes("fp32", part), part
    assert not any(
        b"modules.py" in path.read_bytes() for path in (folder / "onnx").rglob("*.onnx")
    )  # no paths of this machine


def test_the_attention_stays_in_floats(folder: Path) -> None:
    graph = onnx.load(graph_path(folder, "int8", "transformer")).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    softmax = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    products = [
        node for node in graph.node if node.op_type == "MatMul" and softmax & set(node.input)
    ]
    assert products
    assert not any(
        made_by.get(name) == "DequantizeLinear" for node in products for name in node.input
    )


@pytest.mark.parametrize("graph", [*PARTS, "fused_ddim_2"])
def test_products_are_in_int8_only_with_weights_on_their_right(folder: Path, graph: str) -> None:
    """The decoder's product with the identity moves class numbers, which must stay exact."""
    content = onnx.load(graph_path(folder, "int8", graph)).graph
    made_by = {output: node for node in content.node for output in node.output}
    constants = {weight.name for weight in content.initializer}

    def in_int8(name: str) -> bool:
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    for node in content.node:
        if node.op_type == "MatMul" and any(map(in_int8, node.input)):
            assert in_int8(node.input[1])
            assert made_by[node.input[1]].input[0] in constants, node.name


def test_a_whole_network_is_compared_on_street_pictures() -> None:
    part = fused_part(tiny_lite(), Fused("one_step", 1))
    image, start, _ = part.make(2, 3, 4)
    side = tiny_lite().config.size_multiple
    assert image.shape == (2, 3 * side, 4 * side, 3)
    assert start.shape[0] == 2
    assert not np.array_equal(image[0], image[1])  # the drive goes on
    neighbours = np.abs(np.diff(image.astype(int), axis=2)).mean()
    assert neighbours < 40  # of noise: 85


def test_a_variant_that_loses_too_much_is_refused_and_the_old_one_stays(
    folder: Path, traced_tiny_lite: list[Traced], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(scoring, "LARGEST_LOSS", -1.0)
    with pytest.raises(
        ModelError,
        match=r"fp16 with one_step:1 must score within -1\.0 of torch's mIoU 0\.\d+ "
        r"on 3 frames, got 0\.\d+",
    ):
        export_onnx(
            tiny_lite(),
            folder,
            "fp16",
            traced=traced_tiny_lite[:4],
            scores=Scores(tiny_lite(), list(open_set("camvid", data, "val").samples)),
        )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_graphs_that_are_not_written_again_are_gone(
    folder: Path, traced_tiny_lite: list[Traced], tmp_path: Path
) -> None:
    export_onnx(tiny_lite(), tmp_path, traced=traced_tiny_lite)
    assert graph_path(tmp_path, "fp32", "fused_ddim_2").is_file()
    again = export_onnx(tiny_lite(), tmp_path, traced=traced_tiny_lite[:4])
    assert sorted(path.stem for path in tmp_path.rglob("*.onnx")) == sorted(PARTS)
    assert again.removed == ["fused_ddim_2"]
    assert (
        lines(again, 0)[-1] == "  removed fused_ddim_2, which was not requested: --fused keeps it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_int8_needs_frames_and_scores_need_labels(
    traced_tiny_lite: list[Traced], tmp_path: Path, data: Path
) -> None:
    with pytest.raises(ConfigError, match="int8 graphs need frames of the camera's kind"):
        export_onnx(tiny_lite(), tmp_path, "int8", traced=traced_tiny_lite)
    with pytest.raises(ConfigError, match="precision must be one of fp32, fp16, int8, got 'int4'"):
        export_onnx(tiny_lite(), tmp_path, "int4", traced=traced_tiny_lite)
    unlabelled = [
        type(sample)(sample.image, np.full_like(sample.label, 255), sample.name)
        for sample in open_set("camvid", data, "val").samples
    ]
    with pytest.raises(DataError, match="the 3 frames to score must show the model's classes"):
        export_onnx(
            tiny_lite(),
            tmp_path,
            traced=traced_tiny_lite[:4],
            scores=Scores(tiny_lite(), unlabelled),
        )
    assert not list(tmp_path.rglob("*"))


def test_weights_that_fp16_would_change_too_much_are_stored_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter folds batch norms into kernels, which then are no fp16 numbers any more."""
    tiny_lite().save_pretrained(tmp_path / "stored", torch.float16)
    model = CamSeg.from_pretrained(tmp_path / "stored")
    encoder = parts_of(model)[0]
    traced = [Traced(encoder, trace(encoder))]
    sizes, found = [], []
    for limit in (5e-3, 1e-5):
        monkeypatch.setitem(scoring.TOLERANCES, "fp32", Tolerance(limit, limit, 0))
        exported = export_onnx(model, tmp_path, traced=traced)
        sizes.append(exported.sizes["image_encoder"])
        found.append(exported.differences["image_encoder"].largest)
    assert found[1] <= 1e-5 < found[0] <= 5e-3
    assert sizes[1] > 1.7 * sizes[0]


def test_a_graph_that_differs_from_the_model_is_reported_with_the_difference(
    traced_tiny_lite: list[Traced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, graph = traced_tiny_lite[2].part, onnx.ModelProto()
    graph.CopyFrom(traced_tiny_lite[2].graph)
    for weight in graph.graph.initializer:
        if len(weight.dims) > 1:
            weight.CopyFrom(
                onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(weight), weight.name)
            )
    onnx.save(graph, tmp_path / "denoiser.onnx")
    with pytest.raises(
        ModelError,
        match=r"the exported denoiser differs from torch by 0\.\d+ \(limit 0\.005\); "
        "the graph is not kept",
    ):
        check(part, tmp_path / "denoiser.onnx", "fp32")
    monkeypatch.setitem(check.__globals__["TOLERANCES"], "fp32", Tolerance(1.0, 1.0, 1.0))
    assert 0.005 < check(part, tmp_path / "denoiser.onnx", "fp32").largest < 1.0


def test_the_command_writes_a_folder_that_segments_and_prints_what_it_found(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    traced_tiny_lite: list[Traced],
) -> None:
    monkeypatch.setattr(
        "camseg_core.export.trace_all", lambda model, fused: traced_tiny_lite[: 4 + len(fused)]
    )
    source, out = tmp_path / "model", tmp_path / "out"
    tiny_lite().save_pretrained(source)
    main(["export", "--model", str(source), "--out", str(out), "--fused", "ddim:2"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        "without --data, graphs are compared with torch on random inputs; no mask is scored"
    )
    assert [line.split()[0] for line in printed[2:]] == [*PARTS, "fused_ddim_2"]
    frames = ["--data", str(data), "--calibration-frames", "2", "--frames", "2"]
    main(["export", "--model", str(source), "--out", str(out), "--precision", "int8", *frames])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:]] == [*PARTS, "one_step:1", "ddim:10"]
    assert "on 2 frames" in printed[-1]
    for precision in ("fp32", "int8"):
        assert (
            Segmenter.from_pretrained(out, precision=precision)
            .segment(open_set("camvid", data, "val").samples[0].image)
            .mask.shape
            == SIZE
        )
    for name in ("config.json", "labels.json", "model.safetensors"):
        kept = (out / name).read_bytes()
        (out / name).write_bytes(kept + b" ")
        with pytest.raises(SystemExit):
            main(["export", "--model", str(source), "--out", str(out)])
        message = f"holds another model than {source} (other {name})"
        assert message in capsys.readouterr().err
        (out / name).write_bytes(kept)


def test_scores_of_a_data_set_with_ids_of_its_own_match_classes_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's road is class 7 of the data set, and its car class 13 stands for trees."""
    model, root = tiny_lite(), tmp_path / "data"
    model.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(2):
            image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            own = rng.choice(np.array([3, 7, 13], np.uint8), (64, 96))
            cv2.imwrite(str(root / "labels" / split / f"{i}.png"), own)
    entries = (
        "{id: 3, name: sky, color: [1, 1, 1]}",
        "{id: 7, name: road, color: [2, 2, 2]}",
        "{id: 13, name: vegetation, color: [3, 3, 3]}",
    )
    table = "".join(f"  - {entry}\n" for entry in entries)
    (root / "labels.yaml").write_text(f"classes:\n{table}", encoding="utf-8")
    found = dict[str, float]()

    def export(model: CamSeg, folder: Path, precision: str, **options: Any) -> Exported:
        engine, sampling = TorchEngine(model), Fused("one_step", 1)
        found["torch"], _ = options["scores"].check(engine, sampling, "torch")
        return Exported(
            precision, folder, sizes={"decoder": 1}, differences={"decoder": Difference(0, 0, None)}
        )

    monkeypatch.setattr("camseg_core.export.trace_all", lambda model, fused: [])
    monkeypatch.setattr("camseg_core.export.export_onnx", export)
    main(["export", "--model", str(tmp_path / "model"), "--data", str(root)])
    data = open_set("folder", root, "val")
    (scored,) = data.scored_by({"it": model.labels}).scored
    segmenter = Segmenter(model.config, model.labels, TorchEngine(model), Sampling("one_step"))
    expected = evaluate(segmenter, data.samples, scored).confusion.labelled_mean_iou()
    assert found["torch"] == expected


@pytest.mark.parametrize("part", range(4), ids=PARTS)
def test_the_published_layouts_graphs_are_torchs_at_any_size(tmp_path: Path, part: int) -> None:
    model = reference.model()
    written = Traced(parts_of(model)[part], trace(parts_of(model)[part]))

    path = tmp_path / "graph.onnx"
    onnx.save(written.graph, path)
    check(written.part, path, "fp32")
    if written.part.name == "transformer":  # image and mask share one sequence
        assert [each.name for each in onnxruntime.InferenceSession(path).get_inputs()] == [
            "features"
        ]


@torch.no_grad()
def test_a_decoded_picture_gives_the_nearest_colours_class_and_how_near_it_is() -> None:
    model = reference.model()
    decoder = decoder_module(model)
    latents = torch.from_numpy(parts_of(model)[3].make(*SIZES[1])[0])
    mask, confidence = decoder(latents[:, :1], torch.tensor(1.0))
    assert (mask == model.decode_mask(latents[:, 0])).float().mean() > 0.999
    assert confidence.min() > 1 / 20
    assert confidence.max() <= 1
    assert (decoder(latents[:, :1], torch.tensor(4.0))[1] >= confidence - 1e-6).all()


def test_a_light_decoder_is_what_the_decoders_graph_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CamSeg(replace(published.TINY, light_decoder=published.LIGHT)).eval()
    decoder = next(part for part in parts_of(model) if part.name == "decoder")
    path = tmp_path / "decoder.onnx"
    onnx.save(trace(decoder), path)
    latents = torch.randn(2, 1, 4, 6, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, confidence = session.run(
        None, {"latents": latents.numpy(), "sharpness": np.array(1, np.float32)}
    )
    with torch.no_grad():
        light, exact = (model.decode_mask(latents[:, 0], exact).numpy() for exact in (False, True))
    assert (ids == light).mean() > 0.999
    assert (ids == exact).mean() < 0.9
    assert confidence.min() >= 1 / (len(model.labels) + 1) - 1e-6


def test_torch_behind_the_engines_interface_is_the_model(data: Path) -> None:
    model: CamSeg = tiny_lite()
    engine, image = TorchEngine(model), open_set("camvid", data, "val").samples[0].image[None]
    features = engine.run("image_encoder", {"image": image})
    tokens = features["features"].shape[2] * features["features"].shape[3]
    known = np.zeros((1, tokens, model.config.token_channels), np.float32)
    default = engine.run("transformer", features)["condition"]
    all_hidden, all_known = (
        engine.run("transformer", {**features, "mask": known, "hidden": hidden})["condition"]
        for hidden in (np.ones((1, tokens), np.bool_), np.zeros((1, tokens), np.bool_))
    )
    assert np.allclose(default, all_hidden, atol=1e-5)
    assert not np.allclose(default, all_known, atol=1e-3)
