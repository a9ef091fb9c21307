"""The autoencoders of masks (KL, VQ, FSQ) and of pictures: quantising, learning, exact resuming."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.distributed as dist
from lite import LABELS
from resuming import assert_resumes
from safetensors import safe_open
from torch import Tensor

from camseg_core.config.model import KLAutoencoderConfig, MaskAutoencoderConfig, load_config
from camseg_core.config.reader import build
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, ModelError
from camseg_core.labels import CITYSCAPES
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import MaskAutoencoder, MaskEncoder
from camseg_core.model.quantizers import FiniteScalarQuantizer, VectorQuantizer
from camseg_core.training.frames import Frames, HeldFrames
from camseg_core.training.kl_autoencoder import (
    PictureAutoencoderTraining,
    scale_latents,
    train_picture_autoencoder,
)
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    latent_rate,
    reconstruction_confusion,
    train_autoencoder,
)
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Callback, Run
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(SyntheticDrive(frames=4, height=96, width=128, seed=1), LABELS)


LEVELS = (8, 5, 3, 2)
CODEBOOKS = [None, 16, LEVELS]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_encoder_begins_with_the_one_hot_image_in_blocks(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    indices = torch.randint(0, len(LABELS), (2, 6, 8), dtype=torch.uint8)
    image = torch.nn.functional.one_hot(indices.long(), len(LABELS)).permute(0, 3, 1, 2)
    first = MaskEncoder(tiny(None)).layers[0]
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        found = first(indices)
    assert found.dtype == precision
    assert torch.equal(found, torch.nn.functional.pixel_unshuffle(image, 2).to(precision))


def tiny(codebook_size: int | tuple[int, ...] | None) -> MaskAutoencoderConfig:
    return MaskAutoencoderConfig(len(LABELS), 4, (8, 8, 8), (8, 8, 8), (1, 1, 2), codebook_size)


def quantizer_of(*entries: tuple[float, ...]) -> VectorQuantizer:
    quantizer = VectorQuantizer(len(entries), len(entries[0])).eval()
    quantizer.codebook.copy_(torch.tensor(entries))
    return quantizer


def as_map(*vectors: tuple[float, ...]) -> Tensor:
    """Vectors as latents `(1, C, 1, N)`."""
    return torch.tensor(vectors).T[None, :, None]


# the quantiser


def test_every_vector_becomes_the_nearest_entry() -> None:
    quantizer = quantizer_of((0.0, 0.0), (1.0, 1.0), (4.0, -2.0))
    latents = as_map((0.6, 0.6), (0.4, 0.4), (9.0, -9.0), (-5.0, -5.0))
    assert quantizer.entries(latents).tolist() == [[[1, 0, 2, 0]]]
    quantised, distance = quantizer(latents)
    assert torch.equal(quantised, as_map((1.0, 1.0), (0.0, 0.0), (4.0, -2.0), (0.0, 0.0)))
    assert distance.item() == pytest.approx((2 * 0.16 + 2 * 0.16 + 25 + 49 + 50) / 8)


def test_the_gradient_passes_straight_through() -> None:
    latents = as_map((0.6, 0.6), (9.0, -9.0)).requires_grad_()
    quantised, _ = quantizer_of((0.0, 0.0), (4.0, -2.0))(latents)
    weights = torch.randn(quantised.shape, generator=torch.Generator().manual_seed(0))
    (quantised * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_the_distance_pulls_latents_to_their_entries() -> None:
    latents = as_map((1.0, 0.0)).requires_grad_()
    _, distance = quantizer_of((0.0, 0.0), (4.0, 0.0))(latents)
    distance.backward()
    assert latents.grad.flatten().tolist() == [1.0, 0.0]


def test_an_entry_moves_to_the_mean_of_its_vectors_only_in_training() -> None:
    quantizer = quantizer_of((0.0, 0.0), (10.0, 10.0))
    quantizer.uses.fill_(2.0)
    latents = as_map((1.0, 0.0), (3.0, 0.0), (9.0, 9.0), (11.0, 11.0))
    quantizer(latents)
    assert torch.equal(quantizer.codebook, torch.tensor([[0.0, 0.0], [10.0, 10.0]]))
    quantizer.train()
    for _ in range(200):
        quantizer(latents)
    torch.testing.assert_close(
        quantizer.codebook, torch.tensor([[2.0, 0.0], [10.0, 10.0]]), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(quantizer.uses, torch.tensor([2.0, 2.0]))


def test_dead_entries_are_revived_where_the_error_is_largest() -> None:
    """From one entry in use and seven far away, all come to use, also for the two rare places."""
    torch.manual_seed(0)
    quantizer = quantizer_of((0.0, 0.0), *[(1e3 + i, 1e3) for i in range(7)]).train()
    quantizer.uses.copy_(torch.tensor([64.0] + [0.0] * 7))
    common = 0.1 * torch.randn(1000, 2)
    rare = torch.tensor([[50.0, 0.0], [0.0, -50.0]])
    latents = torch.cat([common, rare]).T[None, :, None]
    for _ in range(60):
        quantizer(latents)
    assert quantizer.codebook.abs().max() < 60
    assert set(quantizer.eval().entries(latents).unique().tolist()) == set(range(8))
    assert quantizer(latents)[1] < 0.1


def test_close_entries_stay_distinct_under_bf16_autocast() -> None:
    quantizer = quantizer_of((100.0, 0.0), (100.1, 0.0))
    with torch.autocast("cpu", torch.bfloat16):
        quantised, _ = quantizer(as_map((100.08, 0.0)))
    assert quantised.flatten().tolist() == pytest.approx([100.1, 0.0])


def codebook_after(shares: int, rank: int) -> Tensor:
    """A codebook after four steps in which this process sees its share of each batch."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 4).train()
    for step in range(4):
        batch = torch.randn((4, 4, 6, 6), generator=torch.Generator().manual_seed(step))
        torch.manual_seed(step)
        quantizer(batch.chunk(shares)[rank])
    return quantizer.codebook


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    torch.save(codebook_after(2, rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_the_codebook_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    alone = codebook_after(1, 0)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)


@pytest.mark.parametrize("levels", [(8, 8), (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (2, 3)])
def test_fsq_has_every_combination_of_levels_as_an_entry(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    size = math.prod(levels)
    assert quantizer.size == size
    everywhere = torch.linspace(-9, 9, 400)
    for channel, count in enumerate(levels):
        latents = torch.zeros(1, len(levels), 1, 400)
        latents[0, channel, 0] = everywhere
        assert len(quantizer.entries(latents).unique()) == count
    numbers = torch.arange(size).view(1, 1, -1)
    grid = quantizer.look_up(numbers)
    assert len(grid[0, :, 0].T.unique(dim=0)) == size
    assert (grid.min(), quantizer.look_up(torch.full((1, 1, 1), 0)).max()) == (-1, -1)
    torch.testing.assert_close(quantizer.nearest(grid), grid)


def test_fsq_entries_are_the_latents_that_it_returns() -> None:
    quantizer = FiniteScalarQuantizer(LEVELS)
    latents = 3 * torch.randn((2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    quantised, penalty = quantizer(latents)
    torch.testing.assert_close(quantised, quantizer.look_up(quantizer.entries(latents)))
    torch.testing.assert_close(quantizer.nearest(quantised), quantised)
    torch.testing.assert_close(quantizer.nearest(quantised + 0.1), quantised)
    torch.testing.assert_close(quantizer.nearest(quantised * 99), quantizer.nearest(quantised * 9))
    assert penalty == 0
    zero = quantizer(torch.zeros(1, 4, 1, 1))[0]
    assert not zero.any()


def test_the_gradient_of_fsq_is_that_of_the_bounds_without_the_rounding() -> None:
    """For an odd number of levels the bounded latent is tanh, scaled to the outer levels."""
    latents = torch.linspace(-2, 2, 9).view(1, 1, 1, 9).requires_grad_()
    quantised, _ = FiniteScalarQuantizer((5,))(latents)
    quantised.sum().backward()
    assert len(quantised.unique()) == 5
    torch.testing.assert_close(latents.grad, 1.001 * (1 - latents.tanh().square()))


# masks


def test_a_stored_kl_autoencoder_still_fits() -> None:
    """The bundled checkpoint was written before there was a codebook: same names, same shapes."""
    folder = checkpoint_folder(DEFAULT_MODEL)
    config = load_config(folder / "config.json").mask_autoencoder
    assert config.codebook_size is None
    expected = {
        name: list(tensor.shape) for name, tensor in MaskAutoencoder(config).state_dict().items()
    }
    with safe_open(folder / "model.safetensors", "pt") as file:
        prefix = "mask_autoencoder."
        stored = {
            name.removeprefix(prefix): file.get_slice(name).get_shape()
            for name in file.keys()  # noqa: SIM118
            if name.startswith(prefix)
        }
    assert stored == expected


def test_kl_and_vq_start_from_the_same_weights() -> None:
    models = []
    for size in (None, 16):
        torch.manual_seed(0)
        models.append(MaskAutoencoder(tiny(size)))
    kl, vq = (model.state_dict() for model in models)
    assert set(vq) - set(kl) == {"quantizer.codebook", "quantizer.uses"}
    for name, tensor in kl.items():
        assert torch.equal(tensor, vq[name]), name


def test_vq_latents_are_codebook_entries_and_small_disturbances_are_decoded_away() -> None:
    torch.manual_seed(0)
    model = MaskAutoencoder(tiny(16)).eval()
    model.latent_mean.copy_(torch.randn(4))
    model.latent_std.copy_(torch.rand(4) + 0.5)
    indices = torch.randint(len(LABELS), (2, 32, 64))
    latents = model.encode(indices)
    raw = (
        (latents * model.latent_std.view(1, -1, 1, 1) + model.latent_mean.view(1, -1, 1, 1))
        .permute(0, 2, 3, 1)
        .flatten(0, 2)
    )
    assert torch.cdist(raw, model.quantizer.codebook).min(1).values.max() < 1e-3
    logits = model.decode(latents)
    assert logits.shape == (2, len(LABELS), 32, 64)
    torch.testing.assert_close(model.decode(latents + 1e-3), logits)


def test_gradients_reach_the_encoder_through_the_codebook() -> None:
    torch.manual_seed(0)
    model = MaskAutoencoder(tiny(16))
    logits, _ = model(torch.randint(len(LABELS), (2, 32, 32)), torch.zeros(2, 4, 4, 4))
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", CODEBOOKS, ids=str)
def test_an_exported_decoder_decodes_as_the_model_does(
    tmp_path: Path, size: int | tuple[int, ...] | None
) -> None:
    torch.manual_seed(0)
    model = MaskAutoencoder(tiny(size)).eval()
    model.forward = model.decode  # type: ignore[method-assign]
    latents = torch.randn(1, 4, 4, 6)
    program = torch.onnx.export(model, (latents,), dynamo=True, verbose=False)
    program.save(tmp_path / "decoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: latents.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model.decode(latents), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 0, -4])
def test_a_codebook_of_one_entry_or_none_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match=f"codebook_size must be >= 2, got {size}"):
        tiny(size)


@pytest.mark.parametrize("levels", [(8, 1, 5, 5), (8, 0), ()])
def test_fsq_with_less_than_two_levels_is_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"codebook_size must list levels >= 2 \(FSQ\), got \["):
        tiny(levels)


def test_fsq_without_levels_for_each_channel_is_refused() -> None:
    with pytest.raises(ModelError, match=r"levels of each latent channel \(FSQ\), got 3 for 4"):
        tiny((8, 6, 5))


def test_a_configuration_with_a_codebook_reads_back() -> None:
    for config in map(tiny, CODEBOOKS):
        as_json = json.loads(json.dumps(asdict(config)))
        assert build(MaskAutoencoderConfig, as_json, "x", ModelError) == config


def test_a_crop_between_latent_cells_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"both sides of crop must be multiples of 8, got \[60, 96\]"
    ):
        AutoencoderTraining(tiny(None), crop=(60, 96))
    with pytest.raises(
        ConfigError, match=r"both sides of crop must be multiples of 16, got \[60, 96\]"
    ):
        PictureAutoencoderTraining(crop=(60, 96))


def test_an_empty_batch_and_an_endless_one_are_refused() -> None:
    for config in (AutoencoderTraining, PictureAutoencoderTraining):
        with pytest.raises(ConfigError, match="batch must be >= 1, got 0"):
            config(batch=0)
        with pytest.raises(ConfigError, match="batch must be <= 65536, got 1000000"):
            config(batch=1_000_000)


def test_rates_of_continuous_and_of_quantised_latents(frames: Frames) -> None:
    torch.manual_seed(0)
    kl, vq = MaskAutoencoder(tiny(None)).eval(), MaskAutoencoder(tiny(16)).eval()
    with torch.no_grad():
        for model in (kl, vq):
            model.encoder.layers[-1].weight.zero_()
            model.encoder.layers[-1].bias.zero_()
    assert latent_rate(kl, frames).bits == 0  # a posterior that is the standard normal says nothing
    with torch.no_grad():
        kl.encoder.layers[-1].bias[
            4
        ] = -2.0  # a log-variance: KL of N(0, e^-2) is (e^-2 - 1 + 2) / 2 nats
    assert latent_rate(kl, frames).bits == pytest.approx(
        (torch.e**-2 + 1) / 2 / 0.6931472, rel=1e-5
    )
    rate = latent_rate(vq, frames)  # all vectors alike: one entry of 16
    assert (rate.bits, rate.used_share, rate.perplexity) == (4.0, 1 / 16, 1.0)
    fsq = MaskAutoencoder(tiny(LEVELS)).eval()
    assert latent_rate(fsq, frames).bits == pytest.approx(math.log2(8 * 5 * 3 * 2))


SHORT = LoopConfig(steps=7, lr=2e-3, warmup=2, ema_decay=0.5, save_every=2)


@pytest.mark.parametrize("size", CODEBOOKS, ids=str)
def test_a_killed_mask_autoencoder_resumes_exactly(
    tmp_path: Path, frames: Frames, size: int | tuple[int, ...] | None
) -> None:
    config = AutoencoderTraining(tiny(size), SHORT, batch=2, crop=(32, 64))
    assert_resumes(lambda run: train_autoencoder(config, frames, run), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "channels"), [(64, 8), ((8, 6, 5), 3)])
def test_a_quantised_autoencoder_learns_to_reconstruct_a_few_frames(
    tmp_path: Path, frames: Frames, size: int | tuple[int, ...], channels: int
) -> None:
    model = MaskAutoencoderConfig(
        len(LABELS), channels, (16, 24, 32), (16, 24, 32), (1, 1, 2), codebook_size=size
    )
    config = AutoencoderTraining(
        model,
        LoopConfig(steps=100, lr=4e-3, warmup=10, ema_decay=0.9, weight_decay=1e-4),
        batch=4,
        crop=(64, 96),
    )
    trained = train_autoencoder(config, frames, Run(tmp_path))
    assert reconstruction_confusion(trained, frames).accuracy() > 0.8
    rate = latent_rate(trained, frames)
    assert rate.used_share * trained.quantizer.size > 30
    assert rate.perplexity > 4


# pictures

TINY_PICTURES = KLAutoencoderConfig(
    base_width=32, multipliers=(1, 1, 1), blocks_per_level=1, latent_channels=4
)


def test_scaled_latents_decode_to_the_same_picture() -> None:
    torch.manual_seed(0)
    model = KLAutoencoder(TINY_PICTURES).eval()
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    latents, restored = model.encode(pictures), model.decode(model.encode(pictures))
    drawn = model.encode(pictures, torch.Generator().manual_seed(1))
    scale_latents(model, 3.5)
    torch.testing.assert_close(model.encode(pictures), 3.5 * latents)
    torch.testing.assert_close(
        model.encode(pictures, torch.Generator().manual_seed(1)), 3.5 * drawn
    )
    torch.testing.assert_close(model.decode(model.encode(pictures)), restored)


@pytest.mark.slow
def test_a_killed_picture_autoencoder_resumes_exactly(tmp_path: Path, frames: Frames) -> None:
    config = PictureAutoencoderTraining(TINY_PICTURES, SHORT, batch=2, crop=(32, 32))
    assert_resumes(lambda run: train_picture_autoencoder(config, frames, LABELS, run), tmp_path)


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_step_end(self, done: int, figures: dict[str, float], learning_rate: float) -> None:
        self.all.append(figures["error"])


@pytest.mark.slow
def test_a_picture_autoencoder_learns_and_gives_latents_of_unit_deviation(
    tmp_path: Path, frames: Frames
) -> None:
    loop = LoopConfig(steps=130, lr=4e-3, warmup=5, ema_decay=0.8, weight_decay=0.0)
    losses = Losses()
    config = PictureAutoencoderTraining(TINY_PICTURES, loop, batch=4, crop=(16, 24))
    model = train_picture_autoencoder(config, frames, LABELS, Run(tmp_path, (losses,)))
    assert sum(losses.all[-10:]) < 0.5 * sum(losses.all[:10])
    deviation = model.encode(frames.images.float() / 127.5 - 1).std()
    assert 0.6 < deviation < 1.5
    assert model.config == TINY_PICTURES, (
        "a model that was made for these sizes must be able to take the weights"
    )


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_number_of_widths_gives_the_stride_of_the_latents(levels: int) -> None:
    config = MaskAutoencoderConfig(len(LABELS), 4, (8,) * levels, (8,) * levels, (1,) * levels)
    model = MaskAutoencoder(config).eval()
    latents = model.encode(torch.zeros((1, 32, 48), dtype=torch.long))
    assert latents.shape == (1, 4, 32 // config.stride, 48 // config.stride)
    assert config.stride == 2**levels
    assert model.decode(latents).shape == (1, len(LABELS), 32, 48)


@pytest.mark.parametrize(
    "sizes", [((8, 8), (8, 8, 8), (1, 1)), ((8, 8), (8, 8), (1,)), ((8,), (8,), (1,))]
)
def test_widths_of_different_strides_are_refused(sizes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ModelError, match="must list the same strides, at least two, got"):
        MaskAutoencoderConfig(11, 4, *sizes)


def test_a_codebook_stays_when_only_new_classes_are_learned(tmp_path: Path) -> None:
    config = MaskAutoencoderConfig(12, 4, (16, 24), (16, 24), (0, 1), codebook_size=16)
    torch.manual_seed(0)
    start = MaskAutoencoder(config).eval()
    indices = torch.randint(0, 12, (4, 32, 32), dtype=torch.uint8)
    pictures = torch.zeros((4, 3, 32, 32), dtype=torch.uint8)
    frames = HeldFrames(pictures, indices, ("a",) * 4, CITYSCAPES[:12])
    training = AutoencoderTraining(
        config, LoopConfig(steps=30, lr=1e-2, warmup=1, ema_decay=0.5), 2, (32, 32)
    )
    plain = torch.randint(0, 11, (2, 32, 32))
    with torch.no_grad():
        before = start.encode(plain)
    tuned = train_autoencoder(training, frames, Run(tmp_path), start, range(11))
    with torch.no_grad():
        torch.testing.assert_close(tuned.encode(plain), before)
