"""The published model is reproduced: latents and conditions to 1e-4, RGB to 1e-3, ids exactly."""

import pytest
import reference
import torch
from torch import Tensor

from camseg_core.diffusion.samplers import SAMPLERS, SamplerOptions
from camseg_core.labels import PUBLISHED_PALETTE, UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.training.losses import add_noise, published_loss
from camseg_core.weights import CAM_SEG_BASE_768

T = reference.tensors()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_autoencoder_encodes_and_decodes_as_published(shape: str) -> None:
    autoencoder = reference.model().autoencoder
    mean, log_variance = autoencoder.posterior(T[f"vae_{shape}_image"])
    assert_close(mean, T[f"vae_{shape}_mean"])
    assert_close(log_variance, T[f"vae_{shape}_logvar"])
    scaled = T[f"vae_{shape}_latent"] * autoencoder.config.latent_scale
    assert_close(autoencoder.decode(scaled), T[f"vae_{shape}_decoded"], 1e-3)


def test_latents_become_tokens_as_published() -> None:
    tokens, grid = reference.model().to_tokens(T["image_latents"])
    assert grid == (6, 6)
    assert torch.equal(tokens, T["image_tokens"])
    assert torch.equal(reference.model().to_latents(tokens, grid), T["image_latents"])


def test_transformer_with_all_mask_tokens_hidden() -> None:
    transformer = reference.model().transformer
    assert_close(
        transformer.encode_visible(T["image_tokens"], (6, 6), None, None), T["infer_encoder_out"]
    )
    assert_close(transformer.sequence_conditions(T["image_tokens"], (6, 6)), T["infer_condition"])
    assert_close(transformer(T["image_tokens"], (6, 6)), T["infer_condition"][:, 36:])


def test_transformer_with_some_mask_tokens_known() -> None:
    transformer, hidden = reference.model().transformer, T["partial_mask"][:, 36:].bool()
    assert_close(
        transformer.encode_visible(T["image_tokens"], (6, 6), T["mask_tokens"], hidden),
        T["partial_encoder_out"],
    )
    assert_close(
        transformer.sequence_conditions(T["image_tokens"], (6, 6), T["mask_tokens"], hidden),
        T["partial_condition"],
    )


def test_hiding_every_token_by_flag_equals_giving_no_mask() -> None:
    transformer = reference.model().transformer
    hidden = torch.ones(2, 36, dtype=torch.bool)
    assert_close(
        transformer(T["image_tokens"], (6, 6), T["mask_tokens"], hidden),
        transformer(T["image_tokens"], (6, 6)),
    )


def test_denoiser_output() -> None:
    assert_close(reference.model().denoiser(T["net_x"], T["net_t"], T["net_c"]), T["net_out"])


def denoise(x: Tensor, step: int) -> Tensor:
    return reference.model().denoiser(x, torch.full((len(x),), step), T["net_c"])


def assert_sampled(found: Tensor, expected: Tensor) -> None:
    """Compare to 1e-4 relative to the samples' scale.

    At the noisiest step a random network's clean estimate is its output times 2e4, so samples are
    near 8e4, where fp32 resolves only 8e-3.
    """
    scale = expected.abs().max()
    assert scale > 1e4
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "temperature"), [("ancestral_1_0", 1.0), ("ancestral_0_7", 0.7)])
def test_ancestral_sampler_at_two_temperatures(name: str, temperature: float) -> None:
    options = SamplerOptions(steps=10, temperature=temperature)
    noise = T[f"{name}_noise"]
    found = SAMPLERS["ancestral"](
        denoise,
        T["ancestral_init"],
        reference.model().schedule,
        options,
        lambda k: noise[k],
    )
    assert_sampled(found, T[f"{name}_out"])


def test_ddim_sampler_without_noise() -> None:
    found = SAMPLERS["ddim"](
        denoise,
        T["ancestral_init"],
        reference.model().schedule,
        SamplerOptions(10),
        lambda k: torch.full((72, 16), torch.nan),
    )
    assert_sampled(found, T["ddim_out"])


def test_training_loss_and_its_two_parts() -> None:
    model = reference.model()
    clean, noise, steps = T["loss_target"], T["loss_noise"], T["loss_t"]
    output = model.denoiser(add_noise(clean, noise, steps, model.schedule), steps, T["net_c"])
    squared_error, bound = published_loss(output, clean, noise, steps, model.schedule)
    assert_close(squared_error, T["loss_mse"])
    assert_close(bound, T["loss_vb"])
    assert_close(squared_error + bound, T["loss_loss"])


def test_palette_is_the_published_one() -> None:
    assert torch.equal(torch.tensor(PUBLISHED_PALETTE), T["palette"])


def test_image_to_class_ids_end_to_end_exactly() -> None:
    model = reference.model()
    features = model.image_features((T["e2e_image"] * 0.5 + 0.5) * 255)
    noise = T["e2e_noise"][
        :, 36:
    ]  # the published code denoises the image's tokens too and throws them away
    sampled = model.sample(
        model.conditions(features),
        "ancestral",
        SamplerOptions(10),
        T["e2e_init"][36:],
        lambda k: noise[k],
    )
    latents = model.to_latents(sampled, model.denoised_grid(features))
    assert_sampled(latents, T["e2e_mask_latents"])
    assert_close(model.autoencoder.decode(latents), T["e2e_rgb"], 1e-3)
    expected = torch.where(T["e2e_class_ids"] == 0, UNLABELLED, T["e2e_class_ids"] - 1)
    assert torch.equal(model.decode_mask(latents)[0].long(), expected)


def test_full_size_parameters_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        model = CamSeg(CAM_SEG_BASE_768)
    autoencoder = model.autoencoder.state_dict()
    assert {
        name: list(tensor.shape) for name, tensor in autoencoder.items()
    } == reference.published_shapes("autoencoder_kl_f16")
    rest = model.transformer.state_dict() | {
        f"diffloss.net.{name}": tensor for name, tensor in model.denoiser.state_dict().items()
    }
    assert {
        name: list(tensor.shape) for name, tensor in rest.items()
    } == reference.published_shapes("transformer_base_768")
