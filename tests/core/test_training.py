"""Training on a few frames: it learns, resumes exactly, stops on NaN, and exports."""

import copy
import math
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from lite import LABELS, tiny_lite
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from camseg_core.data.augmentation import random_crops
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.errors import CamSegError, ModelError
from camseg_core.export import export_onnx
from camseg_core.export.graphs import Traced
from camseg_core.model.camseg import CamSeg
from camseg_core.model.weights_file import save_tensors
from camseg_core.runtime import Segmenter
from camseg_core.training import trainer as loop
from camseg_core.training.frames import Frames
from camseg_core.training.loading import FrameStream
from camseg_core.training.losses import pixel_loss
from camseg_core.training.mask_autoencoder import AutoencoderTraining, train_autoencoder
from camseg_core.training.objectives import TaskLoss, ddim_input
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Callback, Loss, Run, Stopped, Validation
from camseg_core.training.transformer import TransformerTraining, train_transformer
from camseg_core.training.validation import confusion_of


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(SyntheticDrive(frames=4, height=96, width=128, seed=1), LABELS)


def line(step: int, model: nn.Linear, target: float = 2.0) -> tuple[Tensor, dict[str, float]]:
    x = torch.randn(16, 1)
    return (model(x) - target * x).square().mean(), {}


def plain(**changes: Any) -> LoopConfig:
    return replace(
        LoopConfig(steps=10, lr=0.1, warmup=1, precision="fp32", weight_decay=0), **changes
    )


def test_the_loop_learns_and_its_averaged_copy_follows(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    averaged = loop.train(
        model,
        lambda step: line(step, model),
        plain(steps=150, warmup=5, ema_decay=0.9),
        Run(tmp_path),
        16,
    )
    assert abs(model.weight.item() - 2) < 0.05
    assert abs(averaged.weight.item() - 2) < 0.05


class Killed(Exception):
    """In place of a process that is killed: nothing catches it, and nothing is saved on its way."""


def killed_at(step: int, loss: Loss) -> Loss:
    def killing(at: int) -> tuple[Tensor, dict[str, float]]:
        if at == step:
            raise Killed
        return loss(at)

    return killing


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_killed_and_resumed_run_ends_with_the_same_weights(tmp_path: Path, step: int) -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 1, 1)
        )

    def loss_of(model: nn.Module) -> Loss:
        return lambda step: (model(torch.randn(4, 1, 8, 8)).square().mean(), {})

    config = plain(steps=6, save_every=2)
    whole = network()
    averaged = loop.train(whole, loss_of(whole), config, Run(tmp_path / "whole"), 4)
    killed = network()
    with pytest.raises(Killed):
        loop.train(killed, killed_at(step, loss_of(killed)), config, Run(tmp_path / "killed"), 4)
    torch.manual_seed(99)  # a new process starts in another state
    resumed = network()
    resumed_average = loop.train(resumed, loss_of(resumed), config, Run(tmp_path / "killed"), 4)
    for one, other in ((whole, resumed), (averaged, resumed_average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.slow
def test_the_whole_model_killed_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, frames: Frames
) -> None:
    config = TransformerTraining(
        LoopConfig(steps=4, lr=1e-3, warmup=1, save_every=2), batch=2, crop=(64, 96)
    )

    def model() -> CamSeg:
        return copy.deepcopy(tiny_lite())

    whole = train_transformer(config, model(), frames, Run(tmp_path / "whole"))

    class Watcher(Callback):
        def on_step_end(self, done: int, figures: object, learning_rate: float) -> None:
            if done == 3:
                raise Killed

        def on_train_begin(self, *_: object) -> None: ...

    with pytest.raises(Killed):
        train_transformer(config, model(), frames, Run(tmp_path / "killed", (Watcher(),)))
    resumed = train_transformer(config, model(), frames, Run(tmp_path / "killed"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_fp16_keeps_the_gradient_scale_when_resumed(tmp_path: Path) -> None:
    def loss_of(model: nn.Module) -> Loss:
        return lambda step: line(step, model)

    config = plain(steps=6, save_every=2, precision="fp16")
    whole, killed, resumed = (copy.deepcopy(nn.Linear(1, 1)) for _ in range(3))
    for other in (killed, resumed):
        other.load_state_dict(whole.state_dict())
    loop.train(whole, loss_of(whole), config, Run(tmp_path / "whole"), 16)
    with pytest.raises(Killed):
        loop.train(killed, killed_at(3, loss_of(killed)), config, Run(tmp_path / "killed"), 16)
    loop.train(resumed, loss_of(resumed), config, Run(tmp_path / "killed"), 16)
    assert torch.equal(whole.weight, resumed.weight)
    ends = [load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed")]
    for entry in ("scaler.scale", "scaler._growth_tracker"):
        assert torch.equal(*(end[entry] for end in ends)), entry
    assert ends[0]["scaler._growth_tracker"] == 6


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_state(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(
        CamSegError,
        match=r"the loss must be finite, got nan at step 5; "
        r"the last good state is .*state\.safetensors",
    ):
        loop.train(
            model,
            lambda step: line(step, model, 2.0 if step < 5 else float("nan")),
            plain(save_every=2),
            Run(tmp_path),
            16,
        )
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert file.metadata()["step"] == "4"
    assert all(
        tensor.isfinite().all() for tensor in load_file(tmp_path / "state.safetensors").values()
    )


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(
    tmp_path: Path,
) -> None:
    model = nn.Linear(1, 1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value, figures = line(step, model)
        return (
            value if step < 5 else (model.weight.sum() * 0).sqrt()
        ), figures  # zero, with an infinite slope

    with pytest.raises(
        CamSegError,
        match=r"the gradient's norm must be finite, got (nan|inf) at step 5; "
        r"the last good state is .*state\.safetensors",
    ):
        loop.train(model, loss, plain(save_every=2), Run(tmp_path), 16)
    assert model.weight.isfinite().all()
    assert all(
        tensor.isfinite().all() for tensor in load_file(tmp_path / "state.safetensors").values()
    )


def test_a_run_that_is_asked_to_stop_saves_its_state_and_resumes(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == 3:
            (tmp_path / "stop").touch()
        return line(step, model)

    with pytest.raises(Stopped, match="stopped after step 4 of 10"):
        loop.train(model, loss, plain(), Run(tmp_path), 16)
    steps: list[int] = []
    loop.train(
        model, lambda step: (steps.append(step), line(step, model))[1], plain(), Run(tmp_path), 16
    )
    assert steps == list(range(4, 10))


@pytest.mark.parametrize("during", ["the last step", "the last validation"])
def test_a_stop_after_the_last_step_began_is_not_swallowed(tmp_path: Path, during: str) -> None:
    model = nn.Linear(1, 1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == 9 and during == "the last step":
            os.kill(os.getpid(), signal.SIGTERM)
        return line(step, model)

    def validate(_: nn.Module) -> Validation:
        if during == "the last validation":
            os.kill(os.getpid(), signal.SIGTERM)
        return {}, None

    with pytest.raises(Stopped, match=r"the last step, 10 \(SIGTERM\): .* command to finish"):
        loop.train(model, loss, plain(), Run(tmp_path, (Callback(),)), 16, validate=validate)
    # the same command has no step left
    loop.train(model, lambda step: pytest.fail("a step"), plain(), Run(tmp_path), 16)


def test_a_run_without_a_state_writes_nothing(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    run = Run(tmp_path, keeps_state=False)
    loop.train(model, lambda step: line(step, model), plain(save_every=2), run, 16)
    assert not [*tmp_path.iterdir()]


def test_a_state_that_does_not_fit_on_the_disk_is_named_and_the_last_one_stays(
    tmp_path: Path,
) -> None:
    model = nn.Linear(100, 1)
    loop.train(model, lambda _: (model(torch.ones(100)).sum(), {}), plain(), Run(tmp_path), 16)
    state = tmp_path / "state.safetensors"
    kept, before = state.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CamSegError, match=rf"cannot write {state}: .*File too large.*; free"):
            save_tensors({"x": torch.zeros(1000)}, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    model, other = nn.Linear(1, 1), nn.Linear(2, 1)
    loop.train(model, lambda step: line(step, model), plain(), Run(tmp_path), 16)
    with pytest.raises(
        CamSegError,
        match=r"cannot resume from .*state\.safetensors: "
        r"module\.weight must be \(1, 2\), as in the model, got \(1, 1\)",
    ):
        loop.train(other, lambda step: line(step, other), plain(), Run(tmp_path), 16)


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"\0" * 100)
    model = nn.Linear(1, 1)
    with pytest.raises(
        CamSegError, match=r"cannot resume from .*state\.safetensors: .*choose another --run"
    ):
        loop.train(model, lambda step: line(step, model), plain(), Run(tmp_path), 16)


def test_warm_up_then_cosine_or_constant() -> None:
    config = LoopConfig(steps=110, lr=1.0, warmup=10)
    rates = [loop.learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(0.505)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02
    constant = [
        loop.learning_rate(step, replace(config, schedule="constant")) for step in range(110)
    ]
    assert constant == rates[:10] + [1.0] * 100


def test_a_sample_depends_only_on_its_number(frames: Frames) -> None:
    augment = random_crops((64, 96), (0.25, 1.0), color=True)
    together = FrameStream(frames, augment, seed=3).batch(range(6, 10))
    stream = FrameStream(frames, augment, seed=3)
    torch.rand(7)
    for row, number in enumerate(range(6, 10)):
        for whole, single in zip(together, stream.batch(range(number, number + 1)), strict=True):
            assert torch.equal(whole[row : row + 1], single)


def test_every_pass_over_the_data_shows_every_frame_once_in_another_order(frames: Frames) -> None:
    stream = FrameStream(frames, None, seed=0)
    orders = [
        [stream.frame(number) for number in range(4 * epoch, 4 * epoch + 4)] for epoch in range(6)
    ]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_the_pixel_loss_against_arithmetic_by_hand() -> None:
    probabilities = torch.tensor(
        [[[0.5, 0.25]], [[0.5, 0.75]]]
    )  # (K, H, W): two classes, two pixels, and one void
    logits = torch.cat([probabilities.log(), torch.tensor([[[9.0]], [[-9.0]]])], dim=2).unsqueeze(0)
    indices = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    loss = pixel_loss(logits, indices, torch.tensor([1.0, 3.0]), jaccard_weight=2.0)
    assert loss.cross_entropy == pytest.approx(-(math.log(0.5) + 3 * math.log(0.75)) / 4)
    first, second = (0.5 + 1) / (0.75 + 1 - 0.5 + 1), (0.75 + 1) / (1.25 + 1 - 0.75 + 1)
    assert loss.jaccard == pytest.approx(1 - (first + second) / 2)
    assert loss.total.item() == pytest.approx(loss.cross_entropy + 2 * loss.jaccard)


def test_the_gradient_of_the_pixel_loss_is_its_derivative() -> None:
    """Compare the hand-written gradient with that of autograd for the same loss."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(3, 4, 5, 6, generator=generator)).requires_grad_()
    indices = torch.randint(4, (3, 5, 6), generator=generator, dtype=torch.uint8)
    indices[0, :2] = 255
    indices[1] = 255  # an image without any label
    weights = torch.rand(4, generator=generator) + 0.5
    losses = []
    for image, truth in zip(logits, indices, strict=True):
        labelled = truth != 255
        chosen, share = truth[labelled].long(), image.softmax(0)[:, labelled]
        each = weights[chosen] * -share.gather(0, chosen.unsqueeze(0)).squeeze(0).log()
        loss = each.sum() / weights[chosen].sum().clamp_min(1e-6)
        shown = chosen.unique()
        for k in shown:
            common, is_k = share[k][chosen == k].sum(), (chosen == k).sum()
            loss = loss + 0.7 * (1 - (common + 1) / (share[k].sum() + is_k - common + 1)) / len(
                shown
            )
        losses.append(loss)
    expected = torch.stack(losses).mean()
    (wanted,) = torch.autograd.grad(2 * expected, logits)
    total = pixel_loss(logits, indices, weights, jaccard_weight=0.7).total
    (found,) = torch.autograd.grad(2 * total, logits)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
    assert not found[1].any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_the_gradient_of_the_pixel_loss_survives_narrow_numbers(
    dtype: torch.dtype, tolerance: float
) -> None:
    """For a usual frame, scaled as the gradient scaler does: unscaled, fp16 would round it to 0."""
    logits = (
        torch.randn(2, 11, 120, 160, generator=torch.Generator().manual_seed(0))
        .to(dtype)
        .requires_grad_()
    )
    indices = torch.randint(
        11, (2, 120, 160), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    (narrow,) = torch.autograd.grad(
        scale * pixel_loss(logits, indices, torch.ones(11), 0.5).total, logits
    )
    wide_logits = logits.detach().float().requires_grad_()
    (wide,) = torch.autograd.grad(
        scale * pixel_loss(wide_logits, indices, torch.ones(11), 0.5).total, wide_logits
    )
    assert narrow.dtype == dtype
    assert (narrow.float() - wide).norm() < tolerance * wide.norm()


def test_the_weights_of_rare_classes_fade() -> None:
    task, balanced = TaskLoss(balanced_until=10), torch.tensor([0.25, 4.0])
    assert task.class_weights(balanced, 0).tolist() == [0.25, 4.0]
    assert task.class_weights(balanced, 5).tolist() == pytest.approx([0.5, 2.0])
    assert (
        task.class_weights(balanced, 10).tolist()
        == task.class_weights(balanced, 11).tolist()
        == [1.0, 1.0]
    )
    assert TaskLoss(balanced_until=0).class_weights(balanced, 0).tolist() == [1.0, 1.0]


def test_chains_score_each_later_call_in_turn() -> None:
    task = TaskLoss(chains=(2, 4))
    assert [task.scored_call(step) for step in range(5)] == [(2, 1), (4, 1), (4, 2), (4, 3), (2, 1)]
    assert TaskLoss().scored_call(0) is None


@torch.no_grad()
def test_the_last_scored_call_of_a_chain_has_the_input_of_ddim() -> None:
    model, random = tiny_lite(), torch.Generator().manual_seed(0)
    condition = torch.randn(2, 6, model.config.condition_width, generator=random)
    start = torch.randn(2, 6, model.config.denoised_channels, generator=random)
    x, number = ddim_input(model, condition, start, steps=4, call=3)
    scored = model.denoiser(x.flatten(0, 1), torch.full((12,), number), condition.flatten(0, 1))
    given = model.sample(
        condition,
        "ddim",
        SamplerOptions(4, model.config.temperature),
        start.flatten(0, 1),
        lambda k: start.flatten(0, 1),
    )
    torch.testing.assert_close(scored, given.flatten(0, 1))


@pytest.mark.slow
def test_the_whole_model_trains_exports_and_segments(tmp_path: Path, frames: Frames) -> None:
    """A few steps of training give a checkpoint folder whose masks the runtime computes alike."""
    codec = train_autoencoder(
        AutoencoderTraining(
            tiny_lite().config.mask_autoencoder,
            LoopConfig(steps=100, lr=2e-3, warmup=5, ema_decay=0.8),
            4,
            (64, 96),
        ),
        frames,
        Run(tmp_path / "codec"),
    )
    torch.manual_seed(0)
    model = CamSeg(tiny_lite().config, LABELS)
    model.mask_autoencoder.load_state_dict(codec.state_dict())
    model.image_encoder.load_imagenet()
    frozen = {name: tensor.clone() for name, tensor in model.mask_autoencoder.state_dict().items()}
    stem = {name: tensor.clone() for name, tensor in model.image_encoder.stem.state_dict().items()}
    config = TransformerTraining(
        LoopConfig(steps=60, lr=3e-3, warmup=5, ema_decay=0.8),
        batch=4,
        crop=(64, 96),
        frozen_stages=1,
    )
    before = confusion_of(model.eval(), frames).accuracy()
    trained = train_transformer(config, model, frames, Run(tmp_path / "run"))
    assert confusion_of(trained, frames).accuracy() > before + 0.1
    for name, tensor in trained.mask_autoencoder.state_dict().items():
        assert torch.equal(tensor, frozen[name]), f"{name} of the frozen mask autoencoder moved"
    for name, tensor in trained.image_encoder.stem.state_dict().items():
        assert torch.equal(tensor, stem[name]), f"{name} of the frozen stem moved"

    folder = tmp_path / "checkpoint"
    trained.save_pretrained(folder, torch.float16)
    stored = CamSeg.from_pretrained(folder)
    export_onnx(stored, folder)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert sorted(path.stem for path in (folder / "onnx" / "fp32").glob("*.onnx")) == [
        "decoder",
        "denoiser",
        "image_encoder",
        "transformer",
    ]
    assert not any(
        b"modules.py" in path.read_bytes() for path in (folder / "onnx" / "fp32").iterdir()
    )  # no paths of this machine
    segmenter = Segmenter.from_pretrained(folder, provider="cpu", precision="fp32")
    for image in frames.images:
        found = segmenter.segment(image.permute(1, 2, 0).contiguous().numpy()).mask
        assert (found == one_step_with_the_runtimes_noise(stored, image)).mean() > 0.995


@torch.no_grad()
def one_step_with_the_runtimes_noise(model: CamSeg, image: Tensor) -> np.ndarray:
    """Return torch's train ids `(H, W)` for an image `(3, H, W)`, from the runtime's noise."""
    features = model.image_features(image[None])
    grid = model.denoised_grid(features)
    start = np.random.default_rng(0).standard_normal(
        (grid[0] * grid[1], model.config.denoised_channels), np.float32
    )
    sampled = model.sample(
        model.conditions(features),
        "one_step",
        SamplerOptions(),
        torch.from_numpy(start),
        lambda k: start,
    )
    return model.decode_mask(model.to_latents(sampled, grid))[0].numpy()


@pytest.mark.slow
def test_a_graph_that_differs_from_torch_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced_tiny_lite: list[Traced]
) -> None:
    original = onnx.save

    def spoil(graph: onnx.ModelProto, path: Path) -> None:
        for weight in graph.graph.initializer:
            values = onnx.numpy_helper.to_array(weight)
            if values.dtype == np.float32 and values.size >= 256:
                weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.5), weight.name))
        original(graph, path)

    monkeypatch.setattr(onnx, "save", spoil)
    with pytest.raises(
        ModelError,
        match=r"the exported image_encoder differs from torch by .*; the graph is not kept",
    ):
        export_onnx(tiny_lite(), tmp_path, traced=traced_tiny_lite)
    assert not list(tmp_path.rglob("*.onnx"))
