"""Settings for large trainings: memory, epochs, weight decay, repeated tokens, autoencoders."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import distributed_training
import pytest
import torch
from lite import tiny_lite
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camseg_core.config.model import CamSegConfig
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, ModelError
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.training import trainer as loop
from camseg_core.training.codec import load_codec_into
from camseg_core.training.distributed import Processes, enable_gradient_checkpointing
from camseg_core.training.draws import Draws
from camseg_core.training.frames import Frames
from camseg_core.training.joined import SetConfig
from camseg_core.training.mask_autoencoder import AutoencoderTraining
from camseg_core.training.objectives import published_objective
from camseg_core.training.recipes import Recipe
from camseg_core.training.run import keep_config
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Callback, Run
from camseg_core.training.transformer import TransformerTraining, train_transformer

CONFIG, LABELS = distributed_training.CONFIG, distributed_training.LABELS
DROPPING = replace(CONFIG, transformer=replace(CONFIG.transformer, dropout=0.3))


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(SyntheticDrive(frames=4, height=64, width=64, seed=1), LABELS)


def network(config: CamSegConfig = CONFIG) -> CamSeg:
    torch.manual_seed(0)
    model = CamSeg(config, LABELS)
    with torch.no_grad():
        for parameter in (
            model.denoiser.parameters()
        ):  # a fresh one is the zero function, whose blocks get no gradient
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def latents(numbers: range) -> tuple[Tensor, Tensor]:
    both = [
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(number))
        for number in numbers
    ]
    return torch.stack(both).unbind(1)  # type: ignore[return-value]


def objective(
    model: CamSeg, repeats: int = 1, size: int = 4, grad_accum_steps: int = 1
) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    config = LoopConfig(steps=1, lr=1, precision="fp32", grad_accum_steps=grad_accum_steps)
    return published_objective(model, latents, size, 0.0, config, Processes(), repeats, "truncate")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_loss_and_gradients_with_dropout() -> None:
    found = []
    for recompute in (False, True):
        model = network(DROPPING)
        if recompute:
            enable_gradient_checkpointing(model)
        torch.manual_seed(5)
        value, _ = objective(model, repeats=2)(0)
        value.backward()
        found.append((value, gradients(model)))
    (value, plain), (other, recomputed) = found
    assert torch.equal(value, other)
    assert plain.keys() == recomputed.keys()
    assert len(plain) > 50
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name
    assert plain["transformer.encoder_blocks.0.mlp.fc1.weight"].abs().max() > 0


def test_gradient_checkpointing_keeps_only_the_inputs_of_blocks() -> None:
    def kept(recompute: bool) -> int:
        model, count = network(), 0
        if recompute:
            enable_gradient_checkpointing(model)

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            objective(model)(0)
        return count

    assert kept(True) < 0.4 * kept(False)


def test_attention_keeps_no_scores_between_tokens() -> None:
    """Fused kernels keep inputs, result and a logarithm a row: no tensor as large as the scores."""
    model, tokens = network(), 1024
    x = torch.randn(1, tokens, CONFIG.transformer.width)
    sizes = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    ):
        model.transformer.encoder_blocks[0].attn(x).sum().backward()
    assert sizes
    assert max(sizes) < tokens**2 / 4


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts: int) -> None:
    whole, other = network(), network()
    objective(whole)(0)[0].backward()
    loss = objective(other, grad_accum_steps=parts)
    for part in range(parts):
        (loss(0, part)[0] / parts).backward()
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(other)[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_training_in_parts_ends_where_one_with_whole_batches_ends(
    tmp_path: Path, frames: Frames
) -> None:
    def trained(grad_accum_steps: int) -> dict[str, Tensor]:
        config = LoopConfig(
            steps=3,
            lr=1e-3,
            warmup=1,
            precision="fp32",
            ema_decay=0.5,
            grad_accum_steps=grad_accum_steps,
        )
        training = TransformerTraining(
            config, batch=4, augment="none", crop=(64, 64), all_hidden=0.5, diffusion_batch_mul=2
        )
        return train_transformer(
            training, network(), frames, Run(tmp_path / str(grad_accum_steps))
        ).state_dict()

    whole, parts = trained(1), trained(2)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=2e-5, rtol=1e-3, msg=name)
    assert not torch.equal(whole["transformer.mask_token"], network().transformer.mask_token)


def test_parts_of_a_step_take_its_samples_without_gap_or_overlap() -> None:
    taken = [
        list(Processes(rank, 2).samples(step=1, batch=8, part=part, parts=2))
        for part in range(2)
        for rank in range(2)
    ]
    assert taken == [[8, 9], [10, 11], [12, 13], [14, 15]]
    with pytest.raises(
        ConfigError,
        match="a batch of 6 cannot be shared by 2 processes in 2 parts each: "
        "make it a multiple of 4",
    ):
        Processes(0, 2).samples(step=0, batch=6, parts=2)


def test_repeated_tokens_are_denoised_from_other_noises_and_steps_under_one_condition() -> None:
    draws = Draws.of(range(2), 0, 0, (64, 4), 64, 1000, 0.0)
    noise, steps = draws.repeated(4, range(2), 0, 1000)
    assert (noise.shape, steps.shape) == ((8, 64, 4), (8, 64))
    assert torch.equal(noise[:2], draws.noises[0])
    assert torch.equal(steps[:2], draws.timesteps)
    assert (
        len({tuple(row.flatten().tolist()[:3]) for row in noise})
        == len({tuple(row.tolist()[:5]) for row in steps})
        == 8
    )
    (alone, of_second) = Draws.of(range(1, 2), 0, 0, (64, 4), 64, 1000, 0.0).repeated(
        4, range(1, 2), 0, 1000
    )
    assert torch.equal(alone, noise[1::2])  # a sample's own, whoever takes it
    assert torch.equal(of_second, steps[1::2])

    calls = []
    model = network()
    model.transformer.register_forward_hook(lambda *_: calls.append("transformer"))
    model.denoiser.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    with torch.no_grad():
        objective(model, repeats=4)(0)
    assert calls == ["transformer", 4 * 4 * 64]


def test_a_truncated_share_spreads_over_its_range_and_a_clamped_one_peaks_at_its_ends() -> None:
    def shares(cut: str) -> list[int]:
        return [
            int(Draws.of(range(1), step, 0, (1, 1), 100, 10, 0.0, cut).hidden.sum())
            for step in range(400)
        ]  # type: ignore[arg-type]

    truncated, clamped = shares("truncate"), shares("clamp")
    assert all(70 <= count <= 100 for count in truncated + clamped)
    assert 150 < clamped.count(100) < 250
    assert truncated.count(100) < 40
    assert truncated.count(70) + truncated.count(71) < 30 < clamped.count(70)


def test_epochs_are_converted_to_steps_by_the_number_of_frames() -> None:
    config = LoopConfig(steps=5, lr=1, epochs=10, warmup_epochs=0.5)
    assert (config.in_steps(100, 8).steps, config.in_steps(100, 8).warmup) == (125, 6)
    assert config.in_steps(100, 8).epochs is None
    plain = LoopConfig(steps=5, lr=1, warmup=2)
    assert plain.in_steps(100, 8) == plain
    with pytest.raises(ConfigError, match="counts in steps"):
        loop.train(
            nn.Linear(1, 1), lambda step: (torch.zeros(()), {}), config, Run(Path("nowhere")), 8
        )


def test_a_run_of_epochs_takes_their_steps(tmp_path: Path, frames: Frames) -> None:
    steps = []

    class Watcher(Callback):
        def on_train_begin(self, done: int, total: int, samples: int) -> None:
            steps.append(total)

        def on_step_end(self, done: int, figures: object, learning_rate: float) -> None:
            steps.append(learning_rate)

        def on_train_end(self, *_: object) -> None: ...

    config = LoopConfig(
        steps=99, lr=1.0e-4, schedule="constant", epochs=2, warmup_epochs=1, precision="fp32"
    )
    train_transformer(
        TransformerTraining(config, batch=2, augment="none", crop=(64, 64)),
        network(),
        frames,
        Run(tmp_path, (Watcher(),)),
    )
    assert steps == [4, pytest.approx(0.5e-4), *[pytest.approx(1e-4)] * 3]


def test_vectors_and_named_parts_do_not_decay() -> None:
    model = network()
    groups = loop.parameter_groups(
        model,
        LoopConfig(steps=1, lr=1, weight_decay=0.1, no_weight_decay=("denoiser.",)),
        lambda name: 1.0,
    )
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (
            parameter.ndim > 1 and not name.startswith("denoiser.")
        ), name
    with pytest.raises(
        ConfigError,
        match=r"no_weight_decay must list prefixes of parameter names, got 'difloss\.'",
    ):
        loop.parameter_groups(
            model, LoopConfig(steps=1, lr=1, no_weight_decay=("difloss.",)), lambda name: 1.0
        )


def test_betas_are_the_optimisers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    class Recording(torch.optim.AdamW):
        def __init__(self, *arguments: object, **options: object) -> None:
            seen.append(options["betas"])
            super().__init__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    model = nn.Linear(1, 1)
    config = LoopConfig(steps=1, lr=0.1, betas=(0.8, 0.99), precision="fp32")
    loop.train(model, lambda step: (model(torch.ones(1, 1)).sum(), {}), config, Run(tmp_path), 1)
    assert seen == [(0.8, 0.99)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grad_accum_steps": 0}, "grad_accum_steps must be >= 1, got 0"),
        ({"epochs": 0.0}, "epochs must be > 0, got 0.0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be >= 0, got -1.0"),
        ({"seed": 2**63}, "seed must be of 64 bits, got 9223372036854775808"),
        ({"betas": (0.9, 1.0)}, r"both betas must be in \[0, 1\), got \[0.9, 1.0\]"),
    ],
)
def test_impossible_loops_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LoopConfig(steps=1, lr=1, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["backbone_lr", "decoder_lr"])
def test_no_part_learns_backwards(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be >= 0, got -0.1"):
        TransformerTraining(**{name: -0.1})


def test_stages_are_frozen_that_the_backbone_has() -> None:
    with pytest.raises(ConfigError, match=r"frozen_stages must be in 0\.\.7, got 8"):
        TransformerTraining(frozen_stages=8)
    TransformerTraining(frozen_stages=7).check(tiny_lite().config)
    with pytest.raises(ConfigError, match="frozen_stages must be 0 for .*, whose image encoder is"):
        TransformerTraining(frozen_stages=2).check(distributed_training.CONFIG)


def test_repeats_are_for_the_published_layout() -> None:
    with pytest.raises(
        ConfigError,
        match="diffusion_batch_mul must be 1 for .*, got 4: more is for the published layout",
    ):
        TransformerTraining(diffusion_batch_mul=4).check(tiny_lite().config)
    TransformerTraining(augment="vary").check(tiny_lite().config)


def test_a_run_from_before_a_setting_existed_resumes(tmp_path: Path) -> None:
    recipe = Recipe(autoencoder=AutoencoderTraining(tiny_lite().config.mask_autoencoder))
    keep_config(recipe, tmp_path, Processes())
    path = tmp_path / "config.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    older = [
        line
        for line in lines
        if not line.strip().startswith(("grad_accum_steps:", "betas:", "no_weight_decay:"))
    ]
    assert len(older) == len(lines) - 6
    path.write_text("".join(older), encoding="utf-8")
    keep_config(recipe, tmp_path, Processes())
    message = (
        r"config\.yaml differs from the configuration given: training\.diffusion_batch_mul is 1 "
        "there, 2 here; use the one"
    )
    with pytest.raises(ConfigError, match=message):
        keep_config(
            replace(recipe, training=replace(recipe.training, diffusion_batch_mul=2)),
            tmp_path,
            Processes(),
        )


def test_a_run_goes_on_from_another_checkout(tmp_path: Path) -> None:
    """The files that say what labels mean are elsewhere then; the frames' labels are compared."""
    known, moved, other = (
        Recipe(
            data=(SetConfig("streets", "camvid", "streets", mapping=mapping),),
            autoencoder=AutoencoderTraining(tiny_lite().config.mask_autoencoder),
        )
        for mapping in ("/one/mapping.yaml", "/two/mapping.yaml", "/two/coarse.yaml")
    )
    keep_config(known, tmp_path, Processes())
    keep_config(moved, tmp_path, Processes())
    with pytest.raises(ConfigError, match=r"data\.0\.mapping is mapping.yaml there, coarse.yaml"):
        keep_config(other, tmp_path, Processes())
    changed = replace(known.training, loop=replace(known.training.loop, lr=1, warmup=1, steps=9))
    with pytest.raises(ConfigError, match=r"steps is 4000 there, 9 here, .*warmup .*, 1 more;"):
        keep_config(replace(known, training=replace(changed, batch=99)), tmp_path, Processes())


def test_the_autoencoder_of_a_whole_model_serves_a_training(tmp_path: Path) -> None:
    model = network()
    model.save_pretrained(tmp_path, torch.float16)
    taken = copy.deepcopy(network().autoencoder)
    for parameter in taken.parameters():
        parameter.data.zero_()
    load_codec_into(taken, tmp_path, CITYSCAPES)
    for name, tensor in model.autoencoder.state_dict().items():
        torch.testing.assert_close(taken.state_dict()[name], tensor, atol=1e-3, rtol=1e-3, msg=name)
    with pytest.raises(ModelError, match="must describe a mask_autoencoder"):
        load_codec_into(tiny_lite().mask_autoencoder, tmp_path, CITYSCAPES)
