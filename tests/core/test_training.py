"""Training on a handful of frames: it learns, resumes exactly, stops on NaN, and what it exports is what torch computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lite import tiny_lite
from torch import Tensor, nn

from camseg_core.data.synthetic import SyntheticDrive
from camseg_core.errors import CamSegError, ModelError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.config import MaskAutoencoderConfig
from camseg_core.model.samplers import SamplerOptions
from camseg_core.runtime import Segmenter
from camseg_core.runtime.export import export_onnx
from camseg_core.training import loop
from camseg_core.training.autoencoder import AutoencoderTraining, reconstruction_confusion, train_autoencoder
from camseg_core.training.frames import Frames
from camseg_core.training.lite import LABELS
from camseg_core.training.loop import LoopConfig
from camseg_core.training.transformer import TransformerTraining, evaluate_one_step, train_transformer


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(SyntheticDrive(frames=4, height=96, width=128, seed=1), LABELS)


def line(step: int, model: nn.Linear, target: float = 2.0) -> tuple[Tensor, dict[str, float]]:
    x = torch.randn(16, 1)
    return (model(x) - target * x).square().mean(), {}


def test_the_loop_learns_and_its_averaged_copy_follows(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    averaged = loop.train(
        model, lambda step: line(step, model), LoopConfig(steps=150, lr=0.1, warmup=5, ema_decay=0.9, weight_decay=0), tmp_path
    )
    assert abs(model.weight.item() - 2) < 0.05
    assert abs(averaged.weight.item() - 2) < 0.05


def test_a_killed_and_resumed_run_ends_with_the_same_weights(tmp_path: Path, frames: Frames) -> None:
    config = AutoencoderTraining(MaskAutoencoderConfig(len(LABELS), 4, (8, 8, 8), (8, 8, 8)), batch=2, crop=(32, 64))
    config = replace(config, loop=replace(config.loop, steps=6, save_every=2, log_every=2))
    whole = train_autoencoder(config, frames, tmp_path / "whole")

    class Killed(Exception):
        pass

    original = loop.learning_rate

    def killed_at_five(step: int, c: LoopConfig) -> float:
        if step == 5:
            raise Killed
        return original(step, c)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learning_rate", killed_at_five)
        with pytest.raises(Killed):
            train_autoencoder(config, frames, tmp_path / "killed")
    torch.manual_seed(99)  # whatever state the new process starts with
    resumed = train_autoencoder(config, frames, tmp_path / "killed")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_state(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    config = LoopConfig(steps=10, lr=0.1, save_every=2, warmup=1)
    with pytest.raises(CamSegError, match=r"the loss is nan at step 5; the last good state is .*state\.safetensors"):
        loop.train(model, lambda step: line(step, model, 2.0 if step < 5 else float("nan")), config, tmp_path)
    assert (tmp_path / "state.safetensors").is_file()


def test_warm_up_then_cosine() -> None:
    config = LoopConfig(steps=110, lr=1.0, warmup=10)
    rates = [loop.learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(0.505)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


@pytest.mark.slow
def test_the_mask_autoencoder_learns_to_reconstruct_a_few_frames(tmp_path: Path, frames: Frames) -> None:
    config = AutoencoderTraining(MaskAutoencoderConfig(len(LABELS), 8, (16, 24, 32), (16, 24, 32)), batch=4, crop=(64, 96))
    config = replace(config, loop=replace(config.loop, steps=150, ema_decay=0.8))
    model = train_autoencoder(config, frames, tmp_path)
    assert reconstruction_confusion(model, frames).accuracy() > 0.85
    latents = torch.cat([model.encode(torch.where(i > 10, 0, i)[None]).flatten(2) for i in frames.indices], dim=2)
    assert latents.mean().abs() < 0.3
    assert 0.6 < latents.std() < 1.5


@pytest.mark.slow
def test_the_whole_model_trains_exports_and_segments(tmp_path: Path, frames: Frames) -> None:
    """From a fresh model through a few steps to a checkpoint folder that the runtime, without torch, reads and agrees on."""
    codec = train_autoencoder(
        AutoencoderTraining(tiny_lite().config.mask_autoencoder, LoopConfig(steps=100, lr=2e-3, warmup=5, ema_decay=0.8), 4, (64, 96)),
        frames,
        tmp_path / "codec",
    )
    torch.manual_seed(0)
    model = CamSeg(tiny_lite().config, LABELS)
    model.mask_autoencoder.load_state_dict(codec.state_dict())
    model.image_encoder.load_imagenet()
    frozen = {name: tensor.clone() for name, tensor in model.mask_autoencoder.state_dict().items()}
    config = TransformerTraining(LoopConfig(steps=60, lr=3e-3, warmup=5, ema_decay=0.8), batch=4, crop=(64, 96))
    before = evaluate_one_step(model.eval(), frames).accuracy()
    trained = train_transformer(config, model, frames, tmp_path / "run")
    assert evaluate_one_step(trained, frames).accuracy() > before + 0.1
    for name, tensor in trained.mask_autoencoder.state_dict().items():
        assert torch.equal(tensor, frozen[name]), f"{name} of the frozen mask autoencoder moved"

    folder = tmp_path / "checkpoint"
    trained.save_pretrained(folder, torch.float16)
    stored = CamSeg.from_pretrained(folder)
    export_onnx(stored, folder)
    assert not list((folder / "onnx").glob("*.tmp"))
    assert not any(b"export.py" in path.read_bytes() for path in (folder / "onnx").iterdir())  # no paths of this machine
    segmenter = Segmenter.from_pretrained(folder)
    for image in frames.images:
        found = segmenter.segment(image.permute(1, 2, 0).contiguous().numpy()).mask
        assert (found == one_step_with_the_runtimes_noise(stored, image)).mean() > 0.995


@torch.no_grad()
def one_step_with_the_runtimes_noise(model: CamSeg, image: Tensor) -> np.ndarray:
    """The class ids `(H, W)` that torch gives for an image `(3, H, W)`, starting from the noise that the runtime draws."""
    tokens, grid = model.image_tokens(image[None])
    start = np.random.default_rng(0).standard_normal((grid[0] * grid[1], model.config.token_channels), np.float32)
    sampled = model.sample_tokens(model.transformer(tokens, grid), "one_step", SamplerOptions(), torch.from_numpy(start), lambda k: start)
    return model.decode_mask(model.to_latents(sampled, grid))[0].numpy()


@pytest.mark.slow
def test_a_graph_that_differs_from_torch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = onnx.save

    def spoil(graph: onnx.ModelProto, path: Path) -> None:
        for weight in graph.graph.initializer:
            values = onnx.numpy_helper.to_array(weight)
            if values.dtype == np.float16:
                weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float16(1.5), weight.name))
        original(graph, path)

    monkeypatch.setattr(onnx, "save", spoil)
    with pytest.raises(ModelError, match=r"the exported image_encoder differs from torch by .*; the graph is not kept"):
        export_onnx(tiny_lite(), tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))
